//! The streams of a client's connection, one after the other.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use http::{Method, Response};
use pingora::{
    apps::HttpServerApp,
    http::RequestHeader,
    protocols::{Digest, Stream as Connection, http::v2::server::default_h2_options},
    server::ShutdownWatch,
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use super::{Stream, head};
use crate::data_plane::{detached, listener::RefusalContext};

/// The number of ambiguous requests after which a connection is closed.
const FAULTS_MAX: usize = 32;

/// Serves a connection until it closes. When `leaving` changes, GOAWAY is sent; requests sent before the
/// client has read it are still served.
pub(crate) async fn serve<A>(
    app: &Arc<A>,
    connection: Connection,
    refusing: &RefusalContext,
    leaving: &ShutdownWatch,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let digest = Arc::new(Digest {
        ssl_digest: connection.get_ssl_digest(),
        timing_digest: connection.get_timing_digest(),
        proxy_digest: connection.get_proxy_digest(),
        socket_digest: connection.get_socket_digest(),
    });
    let options = app.h2_options().unwrap_or_else(default_h2_options);
    let idle_timeout = app.server_options().and_then(|options| options.h2_idle_timeout);
    let mut connection = match options.handshake::<_, Bytes>(connection).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%error, "no handshake of HTTP/2");
            return;
        }
    };
    let (active, mut changed) = (Arc::new(Active::default()), leaving.clone());
    let (mut told, mut faults) = (false, 0);
    // Bounded by the number of streams. h2 resets a dropped one with CANCEL, which clients take for the end
    // of a complete response.
    let (broken, mut breaks_off) = mpsc::unbounded_channel();
    let mut breaking: Option<SendResponse<Bytes>> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = changed.changed(), if !told => {
                connection.graceful_shutdown();
                told = true;
                continue;
            }
            accepted = connection.accept() => accepted,
            // A reset discards what has not been written yet. By now everything has been that the client
            // accepts.
            () = ready(()), if breaking.is_some() => {
                if let Some(mut respond) = breaking.take() {
                    respond.send_reset(Reason::INTERNAL_ERROR);
                }
                continue;
            }
            Some(respond) = breaks_off.recv() => {
                breaking = Some(respond);
                continue;
            }
            () = active.idle(idle_timeout), if !told => return,
        };
        // It is for a client to close a connection, in whatever way.
        let Some(Ok((request, respond))) = accepted else { return };
        let (request, body) = request.into_parts();
        let request = RequestHeader::from(request);
        if let Err(refusal) = head::check(&request) {
            let answer = refusing.refuse(refusal, &request);
            // It fails only if the client has reset the stream.
            let _ = send(respond, answer, request.method == Method::HEAD);
            faults += 1;
            if faults >= FAULTS_MAX {
                tracing::debug!("too many malformed requests on a connection of HTTP/2");
                return;
            }
            continue;
        }
        let stream = Stream::new(request, body, respond, broken.clone(), Arc::clone(&digest));
        let (app, leaving, in_flight) = (Arc::clone(app), leaving.clone(), active.begin());
        tokio::spawn(async move {
            let _in_flight = in_flight;
            app.process_new_http(detached::session(stream), &leaving).await;
        });
    }
}

/// Sends a whole short response. h2 buffers what does not fit the client's window yet.
fn send(
    mut respond: SendResponse<Bytes>,
    answer: Response<Bytes>,
    is_head: bool,
) -> Result<(), h2::Error> {
    let (head, body) = answer.into_parts();
    let end = is_head || body.is_empty();
    let mut answer = respond.send_response(Response::from_parts(head, ()), end)?;
    if end { Ok(()) } else { answer.send_data(body, true) }
}

/// How many streams are in progress.
#[derive(Default)]
struct Active {
    count: AtomicUsize,
    none: Notify,
}

/// One of them, until it is dropped.
struct InFlight(Arc<Active>);

impl Active {
    fn begin(self: &Arc<Self>) -> InFlight {
        self.count.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Waits until there has been none for this time.
    async fn idle(&self, patience: Option<Duration>) {
        let Some(patience) = patience else { return std::future::pending().await };
        while self.count.load(Ordering::Relaxed) != 0 {
            self.none.notified().await;
        }
        sleep(patience).await;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}
