//! The result of an allowed request.

use super::{dispatch::Dispatched, judged::Judged};
use crate::{checks::body::BodyAnswer, identity::headers::Edits, response::coalesce};

/// An allowed request, and what to do with it.
pub struct Admitted {
    /// What was proved of it.
    pub request: Judged,
    /// The edits to its head.
    pub edits: Edits,
    /// What comes next.
    pub next: Next,
}

/// What comes next for an allowed request.
pub enum Next {
    /// It was dispatched to its upstream.
    Dispatched(Dispatched),
    /// It may be coalesced with others: if no identical request is in flight, it must still be dispatched
    /// ([`dispatch`](super::dispatch::dispatch)).
    Coalesce(coalesce::Key),
    /// It is responded to here.
    Answer(BodyAnswer),
}
