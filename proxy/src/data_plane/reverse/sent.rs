//! A request that goes to its upstream: what was proved of it, and what goes with it.

use std::sync::Arc;

use filters::{
    credentials::Credential,
    headers::Edits,
    reverse::{Dispatched, Judged},
};
use pingora::{Error, ErrorType};

use crate::upstream::{Upstream, credentials::PresentedCredential};

/// A request that goes to its upstream.
pub(super) struct Sent {
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

/// Pingora goes on with a request that was not sent. It never does; the client is told that something
/// went wrong here, and nobody else notices.
pub(super) fn unsent() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a request goes on that was not sent")
}
