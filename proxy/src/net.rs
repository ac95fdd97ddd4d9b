//! Outbound connections: name resolution, the parent proxy, and requests of our own.

pub mod allowance;
pub mod dial;
pub mod fetch;
pub mod parent;
