//! The limits of a listener for operators and probes that the listener itself does not enforce.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};

use super::Admin;

/// Serves operators and probes within the listener's timeouts.
pub struct Bounded {
    /// The service.
    pub admin: Arc<Admin>,
    /// The longest silence within a body, and how long an unwanted body is still read.
    pub body_timeout: Duration,
    /// How long one write may stall.
    pub write_timeout: Duration,
    /// For HTTP/2.
    pub h2: H2Options,
    /// Options for HTTP/2.
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
