//! Where Stagedoor listens. Most of it a reload cannot change.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Cors, Duration, Located, Name, Size};

/// An address Stagedoor listens on. A reload changes its certificates and CA, `trusted_proxies`, `workspace`,
/// `cors` and `limits.body_max`; any other change takes effect at the next start, and the reload says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// What it does.
    pub kind: ListenerKind,
    /// IP address and port, for example `0.0.0.0:8443`, `[::]:8443` or `127.0.0.1:7008`.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// Serve TLS. Without it the listener speaks plain HTTP/1.1 and should be on loopback.
    #[serde(default)]
    pub tls: Option<Located<Tls>>,
    /// Proxies in front of this listener, by address range. `X-Forwarded-For` and `X-Forwarded-Proto` are
    /// trusted only when they come from one of these; otherwise they are replaced.
    #[serde(default, deserialize_with = "crate::cidr::networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Load balancers in front that pass TCP connections through and begin each with a PROXY protocol header
    /// (version 1 or 2), before TLS. The header then gives the client's address, which `trusted_proxies`,
    /// limits and records use. A connection from any other address, or without a header, is refused. Default:
    /// no header is expected, and a connection with one gets 400.
    #[serde(default)]
    pub proxy_protocol: Option<Located<ProxyProtocol>>,
    /// Every request on this listener is for this workspace, for a sidecar that serves one. The caller must
    /// still be a member; on a forward listener every client that reaches it is.
    #[serde(default)]
    pub workspace: Option<Located<Name>>,
    /// For `kind: forward`: every call on this listener is made by this plugin.
    #[serde(default)]
    pub plugin: Option<Name>,
    /// For `kind: forward`: calls that the rules refuse pass and are recorded with `would_deny`. This covers
    /// names and private addresses; loopback, link-local and metadata addresses stay refused.
    #[serde(default)]
    pub report_only: bool,
    /// For `kind: reverse`: pages on other origins that may read its denials. Without it browsers hide them:
    /// the page sees a network error and nothing more.
    #[serde(default)]
    pub cors: Option<Located<Cors>>,
    /// Limits on sizes, counts and times. Listeners of kind `admin` and `status` have them too, except
    /// `body_max`: a switch has at most 16 KiB, and nothing else there takes a body. When no connection is
    /// left, probes are refused as well: keep other clients out with a network policy.
    #[serde(default)]
    pub limits: Limits,
}

/// Who begins connections with a PROXY protocol header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// The load balancers, by address range. Default: those of `trusted_proxies`.
    #[schemars(with = "Vec<String>")]
    #[serde(deserialize_with = "crate::cidr::networks")]
    pub from: Vec<IpNet>,
}

impl Listener {
    /// Who may say whose a connection is, if anybody must.
    pub fn balancers(&self) -> Option<&[IpNet]> {
        let from = &self.proxy_protocol.as_ref()?.from;
        Some(if from.is_empty() { &self.trusted_proxies } else { from })
    }
}

/// What a listener does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerKind {
    /// Takes requests and forwards those that a route lets through.
    Reverse,
    /// Takes Backstage's outbound calls and lets through those that `egress` allows: CONNECT tunnels, and
    /// `http://` requests in absolute form.
    Forward,
    /// Health, metrics, state, reload and switches, for operators. Keep it on loopback.
    Admin,
    /// `/livez`, `/readyz` and `/metrics`, and nothing else: for clients on other machines, such as the
    /// kubelet and Prometheus.
    Status,
}

impl ListenerKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reverse => "reverse",
            Self::Forward => "forward",
            Self::Admin => "admin",
            Self::Status => "status",
        }
    }
}

/// The TLS side of a listener. TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates, chosen by the server name that the client sends (SNI). The first serves clients that
    /// send none or an unknown one. Files are watched: new connections use a changed pair immediately; if the
    /// new pair is broken, the old one stays in use and the log says which file is broken and why.
    pub certificates: Vec<Located<Certificate>>,
    /// PEM file of CAs. Clients may then present a certificate from them.
    #[serde(default)]
    pub client_ca: Option<Located<PathBuf>>,
    /// Whether clients must present a certificate from `client_ca`.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
    /// Offer HTTP/2.
    #[serde(default = "yes")]
    pub http2: bool,
}

/// A certificate and its key, as cert-manager lays them out: `tls.crt` and `tls.key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file: the certificate first, then its chain.
    pub cert: PathBuf,
    /// PEM file: the private key (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub key: PathBuf,
}

/// Whether clients must present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// A client may present one; if it does, it must be valid.
    #[default]
    Optional,
    /// A client must present one.
    Required,
}

/// Limits on what one client may use. A client that exceeds one is cut off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Concurrent connections on this listener. More get 503 `connections_exhausted`.
    pub connections_max: u32,
    /// Concurrent connections from one client address. 0 means no such limit.
    pub connections_per_client_max: u32,
    /// TLS handshakes in progress. More are closed and recorded as `handshakes_exhausted`. They also count as
    /// connections.
    pub handshakes_max: u32,
    /// TLS handshakes in progress from one client address. 0 means no such limit, for a listener behind a
    /// load balancer that hides its clients' addresses.
    pub handshakes_per_client_max: u32,
    /// Bytes of request line and headers together. More get 431 `head_too_large`. Backstage
    /// itself takes tokens of up to 32 KiB.
    pub head_max: Size,
    /// Header lines in a request.
    pub headers_max: u32,
    /// Bytes in a request body. More get 413 `body_too_large`. A route may set its own limit.
    pub body_max: Size,
    /// Time from the first byte of a head to its last (for HTTP/2, to its first frame). A TLS handshake has
    /// the same time, counted from when the connection was accepted; after that it is recorded as
    /// `handshake_timeout`.
    pub head_timeout: Duration,
    /// How long a client may send nothing within a request body. Then 408 `body_timeout`.
    pub body_timeout: Duration,
    /// How long a client may read nothing of a response that is ready for it. Then it is cut off and recorded
    /// as `client_slow`.
    pub write_timeout: Duration,
    /// The minimum average rate of a body, in bytes a second, after its first 10s. A request body that is
    /// slower gets 408 `body_slow`; a client that reads a response more slowly is cut off and recorded as
    /// `client_slow`. Only time spent waiting for the client counts, and a slow client is never a failure of
    /// the upstream. `0` means no minimum. Streams have none.
    pub rate_min: Size,
    /// How long a kept-alive connection may be idle between requests.
    pub keepalive_timeout: Duration,
    /// Requests on one connection before it is closed, so that load spreads after a scale-out.
    pub keepalive_requests_max: u32,
    /// Concurrent HTTP/2 streams on one connection.
    pub streams_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_client_max: 0,
            handshakes_max: 1_000,
            handshakes_per_client_max: 200,
            head_max: Size::kibibytes(64),
            headers_max: 100,
            body_max: Size::mebibytes(10),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            rate_min: crate::RATE_MIN,
            keepalive_timeout: Duration::from_secs(60),
            keepalive_requests_max: 10_000,
            streams_max: 100,
        }
    }
}

fn yes() -> bool {
    true
}
