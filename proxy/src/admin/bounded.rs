//! The limits of a listener for operators and probes, as far as its front does not keep them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};

use super::Admin;

/// Answers operators and probes, and waits for none of them longer than its listener says.
pub struct Bounded {
    /// What answers.
    pub admin: Arc<Admin>,
    /// Silence within a body, and how long one may still come that nobody asked for.
    pub body_timeout: Duration,
    /// How long one write may stand still.
    pub write_timeout: Duration,
    /// For HTTP/2.
    pub h2: H2Options,
    /// For HTTP/2 as well.
    pub options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for Bounded {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        session.set_read_timeout(Some(self.body_timeout));
        session.set_write_timeout(Some(self.write_timeout));
        session.set_total_drain_timeout(Some(self.body_timeout));
        self.admin.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }
}
