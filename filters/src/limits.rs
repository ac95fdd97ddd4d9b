//! How much, how often, and how much at once.

pub mod idempotency;
pub mod leases;
pub mod pace;
pub mod rate_limit;
pub mod request_body;
pub mod tunnels;
