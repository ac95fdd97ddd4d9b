//! Every decision Stagedoor makes. No socket, no task, no file, no Pingora.
//!
//! In reading order: [`reverse`] is the way through, the rest are its steps.

pub mod reverse;

pub mod forward;

pub mod denial;
pub mod egress;
pub mod exchange;
pub mod policy;
pub mod state;
pub mod step;

pub mod access;
pub mod addresses;
pub mod allowlist;
pub mod answer;
pub mod api_key;
pub mod assertion;
pub mod balance;
pub mod base;
pub mod breaker;
pub mod certificate;
pub mod client;
pub mod client_hello;
pub mod coalesce;
pub mod credentials;
pub mod fallback;
pub mod graphql;
pub mod guard;
pub mod head;
pub mod header_name;
pub mod headers;
pub mod health;
pub mod hello_fault;
pub mod host;
pub mod idempotency;
pub mod identity;
mod json;
pub mod motion;
pub mod normal_form;
pub mod pace;
pub mod passwords;
pub mod plugins;
pub mod proxy_status;
pub mod query;
pub mod rate_limit;
pub mod redact;
pub mod redirect;
mod rendezvous;
pub mod retry;
pub mod routes;
pub mod streams;
pub mod switches;
pub mod target;
pub mod ticket;
pub mod tunnels;
pub mod workspaces;

pub mod audit;
pub mod explain;
pub mod hex;
pub mod label;
pub mod leases;
pub mod now;
pub mod replay;
pub mod secret;

pub use denial::Denial;
pub use exchange::{Admitted, Exchange};
pub use head::Head;
pub use label::Label;
pub use now::Now;
pub use policy::Policy;
pub use replay::Replay;
pub use reverse::decide;
pub use secret::Secret;
pub use state::State;
pub use step::Step;
