//! What replicas share, by way of a store: limits, idempotency keys, and operators' switches.

pub mod store;
pub mod switches;
