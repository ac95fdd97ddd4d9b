//! What comes of a request that passed.

use super::{dispatch::Dispatched, judged::Judged};
use crate::{checks::body::BodyAnswer, identity::headers::Edits, response::coalesce};

/// A request that is let through, and what is to be done with it.
pub struct Admitted {
    /// What was proved of it.
    pub request: Judged,
    /// How its head is changed on the way.
    pub edits: Edits,
    /// How it goes on.
    pub next: Next,
}

/// How a request that is let through goes on.
pub enum Next {
    /// It goes to its upstream.
    Dispatched(Dispatched),
    /// It may be one with others: if nobody else asks for the same, it has yet to be dispatched
    /// ([`dispatch`](super::dispatch::dispatch)).
    Coalesce(coalesce::Key),
    /// It is answered here.
    Answer(BodyAnswer),
}
