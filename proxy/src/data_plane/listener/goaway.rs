//! Sends GOAWAY to HTTP/2 clients, after which a connection ends with the last of its streams. Requests that
//! a client sends before it has read it are still served.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use pingora::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::{
        Stream,
        http::{ServerSession, v2::server::H2Options},
    },
    server::ShutdownWatch,
};
use tokio::sync::{Notify, watch};

use super::RefusalContext;
use crate::data_plane::http2;

/// Serves a connection, and sends GOAWAY when `told` is ready.
pub(super) async fn serve<A: HttpServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    stream: Stream,
    refusing: &RefusalContext,
    told: impl Future<Output = ()> + Send,
) {
    // GOAWAY is sent when this changes. The process's own signal changes too late.
    let (leave, leaving) = watch::channel(false);
    let served = http2::serve(app, stream, refusing, &leaving);
    let telling = async {
        told.await;
        leave.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = served => {}
        () = telling => {}
    }
}

/// For a connection that begins during a drain. A client that gets GOAWAY before its first request would
/// reconnect again and again.
pub(super) struct LateConnection<A> {
    app: Arc<A>,
    asked: Notify,
}

impl<A> LateConnection<A> {
    pub(super) fn new(app: &Arc<A>) -> Self {
        Self { app: Arc::clone(app), asked: Notify::new() }
    }

    /// Waits for the first request.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for LateConnection<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.asked.notify_one();
        self.app.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.app.server_options()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.app.h2_options()
    }
}
