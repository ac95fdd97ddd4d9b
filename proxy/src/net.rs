//! How this process reaches others: names to addresses, the parent proxy, and requests of its own.

pub mod allowance;
pub mod dial;
pub mod fetch;
pub mod parent;
