//! What serves traffic, on Pingora. The command line around it is the crate `cli`.
//!
//! Nine modules. Each imports only from those above it, so that one can be read at a time:
//!
//! | module | what it does |
//! |---|---|
//! | [`net`] | outbound connections: name resolution, the parent proxy, requests of our own |
//! | [`observability`] | audit records and metrics |
//! | [`upstream`] | where requests go: addresses, their health, credentials for upstreams |
//! | [`identity`] | the keys that tokens are verified with |
//! | [`replicas`] | what replicas share: limits, idempotency keys, operators' switches |
//! | [`data_plane`] | a request's path, from its connection to its record |
//! | [`lifecycle`] | start, reload, drain, and background tasks |
//! | [`admin`] | the listener for operators |
//! | [`serve`] | the wiring |

pub mod clock;
mod head_edit;
mod progress;
mod request_id;
pub mod secret_file;

pub mod net;

pub mod observability;

pub mod upstream;

pub mod identity;

pub mod replicas;

pub mod data_plane;

pub mod lifecycle;

pub mod admin;

pub mod serve;
