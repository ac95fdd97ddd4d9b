//! The proxy's readers of heads and chunks, as they stand there.
//!
//! Read from its files and not through its crate: they need nothing of Pingora, which would take minutes
//! to build for fuzzing, and nothing has to be made public for it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "the proxy uses the rest")]

#[path = "../../proxy/src/data_plane/listener/authority.rs"]
mod authority;
#[path = "../../proxy/src/data_plane/listener/chunked.rs"]
mod chunked;
#[path = "../../proxy/src/data_plane/listener/request_head.rs"]
mod request_head;
#[path = "../../proxy/src/data_plane/listener/trailers.rs"]
mod trailers;

pub mod bodies;
pub mod heads;
