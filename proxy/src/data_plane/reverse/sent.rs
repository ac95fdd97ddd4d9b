//! A request that is sent to its upstream: what was proved about it, and what is sent along.

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

/// A request that is sent to its upstream.
pub(super) struct Sent {
    pub(super) gateway: Arc<Gateway>,
    /// What was proved about it.
    pub(super) request: Judged,
    /// How its head is edited.
    pub(super) edits: Edits,
    /// The breaker's permit and the pacing delay.
    pub(super) dispatched: Dispatched,
    /// The upstream, of the same config as the policy.
    pub(super) upstream: Arc<Upstream>,
    /// The credential that the upstream gets, if any.
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

/// Pingora continues with a request that was not admitted. It never does; if it did, the client would get
/// `internal`, and other requests would not be affected.
pub(super) fn unsent() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a request goes on that was not sent")
}
