//! From a client's connection to the record of its exchange.
//!
//! In reading order: [`listener`] reads a head, [`reverse`] and [`forward`] pass it through `filters`, the
//! rest are their parts.

pub mod forward;
pub mod gateway;
pub mod listener;
pub mod reverse;

pub mod coalescing;
pub mod denial_response;
mod detached;
mod error_mapping;
mod hop_by_hop;
mod http2;
pub mod long_lived;
mod rate_limit_headers;
pub mod recorder;
pub(crate) mod request;
pub mod shared_address;
pub mod stale_fallback;
