//! A request that goes to its upstream: what was proved of it, and what goes with it.

use std::sync::Arc;

use filters::{
    Now,
    breaker::Outcome,
    credentials::Credential,
    headers::Edits,
    reverse::{Dispatched, Judged},
};
use pingora::{Error, ErrorType};

use crate::{
    clock,
    data_plane::gateway::Gateway,
    observability::changes,
    progress,
    upstream::{Upstream, credentials::PresentedCredential},
};

/// A request that goes to its upstream.
pub(super) struct Sent {
    pub(super) gateway: Arc<Gateway>,
    /// What was proved of it.
    pub(super) request: Judged,
    /// How its head is changed on the way.
    pub(super) edits: Edits,
    /// Leave to ask the upstream.
    pub(super) dispatched: Dispatched,
    /// The upstream, of the same config as the policy.
    pub(super) upstream: Arc<Upstream>,
    /// What the upstream is shown, if anything.
    pub(super) shown: Option<(Arc<Credential>, PresentedCredential)>,
}

impl Sent {
    /// Reports to the breaker how the upstream did, once.
    pub(super) fn report(&mut self, outcome: Option<Outcome>, now: Now) {
        if let Some(moved) = self.dispatched.report(&self.request, outcome, now) {
            changes::breaker_moved(&self.gateway.audit, &moved);
        }
    }
}

impl Drop for Sent {
    /// Pingora's part of the exchange may have been dropped because its time was up.
    fn drop(&mut self) {
        if progress::is_upstream_late() {
            self.report(Some(Outcome::Silence), clock::now());
        }
    }
}

/// Pingora goes on with a request that was not sent. It never does; the client is told that something
/// went wrong here, and nobody else notices.
pub(super) fn unsent() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a request goes on that was not sent")
}
