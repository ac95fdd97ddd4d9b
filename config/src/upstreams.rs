//! Where requests go.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Balance, Breaker, Duration, HealthCheck, Idempotency, Located, Name, OutlierDetection, Pace,
    Retries, Timeouts, Url,
};

/// Where requests go: DXCP, Backstage, a plugin backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Scheme, host and port, for example `https://dxcp.delivery.svc:8443`. A path, as in
    /// `https://github.corp.example/api/v3`, is put before that of each request. The name is resolved every 5
    /// s and may have several addresses, like a headless Service in Kubernetes: up to 256 of them are used.
    pub url: Located<Url>,
    /// Whether it is outside your organization, for example `https://api.github.com`. Its name must then
    /// resolve to public addresses (or those of `egress.private`), and it learns nothing about the portal:
    /// cookies, the caller's token, our identity headers and `X-Forwarded-*` do not reach it, and its cookies
    /// do not reach the portal's clients. If it redirects to an address in our own network, the response is
    /// refused (502 `redirect_refused`).
    #[serde(default)]
    pub external: bool,
    /// How fast requests may go to it, from all callers together. Requests beyond that wait for their turn
    /// instead of being refused. Default: no pace.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// `delivery` for the control plane (DXCP): its responses are never stored, its actions are never
    /// retried, and its admin routes cannot be opened.
    #[serde(default)]
    pub authority: Authority,
    /// The entry of `credentials` to present to it, instead of the client's `Authorization`.
    #[serde(default)]
    pub credential: Option<Located<Name>>,
    /// TLS to it. The certificate is always verified, against the URL's host.
    #[serde(default)]
    pub tls: UpstreamTls,
    /// HTTP version. `auto` uses HTTP/2 where TLS offers it; `h2` also uses it without TLS, as gRPC backends
    /// need.
    #[serde(default)]
    pub http: HttpVersion,
    /// How long each part of an exchange may take here, unless a route says otherwise.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How long an idle connection is kept open. Node closes its side after 5 s, so stay below that unless
    /// the upstream's `keepAliveTimeout` is longer.
    #[serde(default = "four_seconds")]
    pub idle_timeout: Duration,
    /// The circuit breaker: when requests to it are stopped for a while.
    #[serde(default)]
    pub breaker: Breaker,
    /// When one of its addresses is taken out for a while.
    #[serde(default)]
    pub outlier_detection: OutlierDetection,
    /// How the health of its addresses is checked. Default: not at all.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// Which of its addresses a request goes to.
    #[serde(default)]
    pub balance: Balance,
    /// Whether failed reads are retried.
    #[serde(default)]
    pub retries: Retries,
    /// How `Idempotency-Key` is scoped. Default: it reaches the upstream unchanged.
    #[serde(default)]
    pub idempotency: Option<Idempotency>,
    /// The `Host` that it receives: the client's (`true`) or that of `url` (`false`). Backstage needs the
    /// client's, APIs their own.
    #[serde(default)]
    pub preserve_host: bool,
}

/// What an upstream decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Authority {
    /// Nothing that needs special protection.
    #[default]
    None,
    /// Delivery: it alone decides what is deployed.
    Delivery,
}

/// TLS to an upstream.
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
    /// HTTP/2 if ALPN negotiates it, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    H1,
    /// HTTP/2 only, also over plain TCP.
    H2,
}

fn four_seconds() -> Duration {
    Duration::from_secs(4)
}
