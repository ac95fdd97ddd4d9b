//! Every decision Stagedoor makes. No socket, no task, no file, no Pingora.
//!
//! In reading order: [`pipeline`] is the order of checks, the rest are the checks. No module imports one of
//! a paragraph above its own, and no modules import each other in a circle.

pub mod audit;

pub mod pipeline;

pub mod checks;
pub mod limits;
pub mod response;
pub mod upstream;

pub mod egress;
pub mod identity;
pub mod request;

pub mod denial;

pub mod types;

// So that paths in other crates stay short.
pub use audit::{explain, replay, replay::Replay};
pub use checks::{access, body, plugins, switches, workspaces};
pub use denial::{Denial, step::Step};
pub use egress::{addresses, allowlist, client_hello, guard, target};
pub use identity::{assertion, credentials, headers, passwords};
pub use limits::{idempotency, leases, pace, rate_limit, request_body, tunnels};
pub use pipeline::{
    exchange::{self, Exchange},
    forward,
    policy::{self, Policy},
    reverse::{self, Admitted, decide},
    routes,
    state::{self, State},
};
pub use request::{
    client,
    head::{self, Head},
    host, normal_form, query,
};
pub use response::{
    coalesce, deadline, fallback, progress, proxy_status, redact, redirect, streams, url_rewrite,
};
pub use types::{hex, label::Label, now::Now, secret::Secret};
pub use upstream::{balance, breaker, health, outcome, retry};
