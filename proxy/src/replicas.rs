//! What replicas share through a store: limits, idempotency keys, and operators' switches.

pub mod store;
pub mod switches;
