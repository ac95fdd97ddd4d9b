//! What operators see of exchanges: audit records and metrics.

pub mod audit;
pub mod changes;
pub mod metrics;
