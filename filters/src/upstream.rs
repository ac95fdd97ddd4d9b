//! Which upstream may be asked, at which of its addresses, and whether again.

pub mod balance;
pub mod breaker;
pub mod health;
mod rendezvous;
pub mod retry;
