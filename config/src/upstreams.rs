//! Where requests go.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Balance, Breaker, Duration, Ejection, HealthCheck, Idempotency, Located, Name, Pace, Retries,
    Timeouts, Url,
};

/// Where requests go: DXCP, Backstage, a plugin backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Scheme, host and port, for example `https://dxcp.delivery.svc:8443`. A path, as in
    /// `https://github.corp.example/api/v3`, is put before that of each request. The name is looked up
    /// every 5 s, and may have several addresses, as that of a headless Service in Kubernetes: up to
    /// 256 of them are used.
    pub url: Located<Url>,
    /// Whether it is somebody else's, for example `https://api.github.com`. Its name must then lead
    /// to public addresses (or those of `egress.private`), and it learns nothing of the portal:
    /// cookies, the caller's token, our identity headers and `X-Forwarded-*` do not reach it, nor do
    /// its cookies reach the portal's clients. An answer of it that leads to an address of our own
    /// network is refused (502 `redirect_refused`).
    #[serde(default)]
    pub external: bool,
    /// How fast it may be asked, by all callers together. Requests beyond that wait for their turn
    /// instead of being refused. Default: as fast as they come.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// `delivery` for the control plane (DXCP): its answers are never stored, its actions never
    /// retried, its admin surface cannot be opened.
    #[serde(default)]
    pub authority: Authority,
    /// The entry of `credentials` that it is shown, instead of the client's `Authorization`.
    #[serde(default)]
    pub credential: Option<Located<Name>>,
    /// TLS towards it. The certificate is always verified, against the URL's host.
    #[serde(default)]
    pub tls: UpstreamTls,
    /// HTTP version. `auto` takes HTTP/2 where TLS offers it; `h2` also speaks it without TLS, as
    /// gRPC backends want it.
    #[serde(default)]
    pub http: HttpVersion,
    /// How long the parts of an exchange may take here, unless a route says otherwise.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How long an unused connection is kept. Node closes its side after 5 s, so stay below that
    /// unless the upstream's `keepAliveTimeout` is longer.
    #[serde(default = "four_seconds")]
    pub idle_timeout: Duration,
    /// When it is left alone for a while.
    #[serde(default)]
    pub breaker: Breaker,
    /// When one of its addresses is left alone for a while.
    #[serde(default)]
    pub ejection: Ejection,
    /// How its addresses are asked whether they are well. Default: they are not asked.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// Which of its addresses a request goes to.
    #[serde(default)]
    pub balance: Balance,
    /// Whether reads that failed are asked again.
    #[serde(default)]
    pub retries: Retries,
    /// Whose an `Idempotency-Key` is. Default: it reaches the upstream as it came.
    #[serde(default)]
    pub idempotency: Option<Idempotency>,
    /// The `Host` it sees: the client's (`true`) or that of `url` (`false`). Backstage wants the
    /// client's, APIs their own.
    #[serde(default)]
    pub preserve_host: bool,
}

/// What an upstream decides about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Authority {
    /// Nothing that Stagedoor must protect in a special way.
    #[default]
    None,
    /// Delivery: it alone decides what is deployed.
    Delivery,
}

/// TLS towards an upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// PEM file of CAs that may sign its certificate, instead of the system's.
    pub ca: Option<Located<PathBuf>>,
    /// PEM file of the certificate Stagedoor presents (with `client_key`).
    pub client_cert: Option<Located<PathBuf>>,
    /// PEM file of its key.
    pub client_key: Option<Located<PathBuf>>,
}

/// The HTTP version spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpVersion {
    /// HTTP/2 if TLS and ALPN agree on it, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    H1,
    /// HTTP/2 only, over plain TCP too.
    H2,
}

fn four_seconds() -> Duration {
    Duration::from_secs(4)
}
