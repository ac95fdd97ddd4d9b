//! Whether a request may be sent to an upstream, to which of its addresses, and whether it is retried.

pub mod balance;
pub mod breaker;
pub mod health;
pub mod outcome;
mod rendezvous;
pub mod retry;
