//! The binary `stagedoor`: the only crate that does anything.

pub mod admin;
pub mod answer;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod control;
pub mod credentials;
pub mod dial;
mod failure;
mod fetch;
pub mod flights;
pub mod forward;
pub mod front;
mod heads;
pub mod jwks;
pub mod live;
pub mod metrics;
pub mod reload;
mod request;
pub mod restart;
pub mod reverse;
pub mod seen;
pub mod serve;
pub mod stop;
pub mod tls;
pub mod upgrade;
pub mod upstreams;
