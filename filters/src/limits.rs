//! How much, how often, and how many at the same time.

pub mod idempotency;
pub mod leases;
pub mod pace;
pub mod rate_limit;
pub mod request_body;
pub mod tunnels;
