//! The streams of a client's connection, one after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::{Response, StatusCode};
use pingora::{
    apps::HttpServerApp,
    http::RequestHeader,
    protocols::{Digest, Stream as Connection, http::v2::server::default_h2_options},
    server::ShutdownWatch,
};
use tokio::{sync::Notify, time::sleep};

use super::{
    Stream,
    head::{self, Fault},
};
use crate::unattended;

/// A connection ends with so many requests that cannot be read in one way only.
const FAULTS_MAX: usize = 32;

/// Serves a connection until its client leaves. When `leaving` changes the client is told to; what it asks
/// until it has heard that is still answered.
pub(crate) async fn serve<A>(app: &Arc<A>, connection: Connection, leaving: &ShutdownWatch)
where
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
    loop {
        let accepted = tokio::select! {
            biased;
            _ = changed.changed(), if !told => {
                connection.graceful_shutdown();
                told = true;
                continue;
            }
            accepted = connection.accept() => accepted,
            () = active.idle(idle_timeout), if !told => return,
        };
        // It is for a client to close a connection, in whatever way.
        let Some(Ok((request, mut respond))) = accepted else { return };
        let (request, body) = request.into_parts();
        let request = RequestHeader::from(request);
        if let Err(fault) = head::check(&request) {
            match fault {
                Fault::Malformed => respond.send_reset(Reason::PROTOCOL_ERROR),
                Fault::Authority => {
                    let mut response = Response::new(());
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    // A client that has given it up does not want to know.
                    let _ = respond.send_response(response, true);
                }
            }
            faults += 1;
            if faults >= FAULTS_MAX {
                tracing::debug!("too many malformed requests on a connection of HTTP/2");
                return;
            }
            continue;
        }
        let stream = Stream::new(request, body, respond, Arc::clone(&digest));
        let (app, leaving, under_way) = (Arc::clone(app), leaving.clone(), active.begin());
        tokio::spawn(async move {
            let _under_way = under_way;
            app.process_new_http(unattended::session(stream), &leaving).await;
        });
    }
}

/// How many streams are under way.
#[derive(Default)]
struct Active {
    count: AtomicUsize,
    none: Notify,
}

/// One of them, until it is dropped.
struct UnderWay(Arc<Active>);

impl Active {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.count.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Waits until there has been none for so long.
    async fn idle(&self, patience: Option<Duration>) {
        let Some(patience) = patience else { return std::future::pending().await };
        while self.count.load(Ordering::Relaxed) != 0 {
            self.none.notified().await;
        }
        sleep(patience).await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}
