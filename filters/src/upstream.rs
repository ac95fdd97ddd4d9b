//! Which upstream may be asked, at which of its addresses, and whether again.

pub mod balance;
pub mod breaker;
pub mod health;
pub mod outcome;
mod rendezvous;
pub mod retry;
