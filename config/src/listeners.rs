//! Where Stagedoor listens. Most of it a reload cannot change.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Cors, Duration, Located, Name, Size};

/// An address Stagedoor listens on. A reload changes its certificates and CA, `trusted_proxies`,
/// `workspace`, `cors` and `limits.body_max`; whatever else changes takes effect at the next start, and the
/// reload says so.
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
    /// Proxies in front of this listener, by address range. Only from them `X-Forwarded-For` and
    /// `X-Forwarded-Proto` are believed; from anyone else they are replaced.
    #[serde(default, deserialize_with = "crate::cidr::networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Load balancers in front that pass connections on as they are, and begin each with a header of the
    /// PROXY protocol (version 1 or 2), before TLS too. Whose a connection is then says the header, and
    /// `trusted_proxies`, limits and records go by that. A connection from anybody else, or without a
    /// header, is refused. Default: none is expected, and one that comes is 400.
    #[serde(default)]
    pub proxy_protocol: Option<Located<ProxyProtocol>>,
    /// Every request on this listener is for this workspace, for a sidecar that serves one. The
    /// caller must still be a member of it; on a forward listener whoever reaches it is.
    #[serde(default)]
    pub workspace: Option<Located<Name>>,
    /// For `kind: forward`: every call on this listener is this plugin's.
    #[serde(default)]
    pub plugin: Option<Name>,
    /// For `kind: forward`: what the rules refuse passes and is recorded with `would_deny`. Names,
    /// and addresses of private networks; loopback, link-local and metadata addresses stay refused.
    #[serde(default)]
    pub report_only: bool,
    /// For `kind: reverse`: pages on other origins that may read its denials. Without it their browsers
    /// hide them: the page learns of an error of the network, and nothing more.
    #[serde(default)]
    pub cors: Option<Located<Cors>>,
    /// Sizes, counts and times that one client may use up. Listeners of kind `admin` and `status` have
    /// them too, but `body_max`: a switch has at most 16 KiB, and nothing else there takes a body. With
    /// no place left, probes are refused as well: keep strangers off by a network policy.
    #[serde(default)]
    pub limits: Limits,
}

/// Who begins connections with a header of the PROXY protocol.
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
    /// Takes requests and forwards those that pass along a route.
    Reverse,
    /// Takes calls of Backstage and lets those out that `egress` allows: CONNECT, and `http://` in
    /// absolute form.
    Forward,
    /// Health, metrics, state, reload and switches, for operators. Keep it on loopback.
    Admin,
    /// `/livez`, `/readyz` and `/metrics`, and nothing else: for whoever asks from another machine, as the
    /// kubelet and Prometheus do.
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
    /// Certificates, chosen by the name the client asks for (SNI). The first serves clients that
    /// ask for none or for an unknown one. Files are watched: a changed pair is used for new
    /// connections at once; a broken one keeps the old, and says which file and why.
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
    /// A client may present one; if it does it must be valid.
    #[default]
    Optional,
    /// No connection without one.
    Required,
}

/// Sizes, counts and times that one client may use up. Whoever exceeds one is cut off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once on this listener. More get 503 `connections_exhausted`.
    pub connections_max: u32,
    /// Connections at once from one client address. 0 means no such limit.
    pub connections_per_client_max: u32,
    /// TLS handshakes at once that are not complete. More are closed and recorded as
    /// `handshakes_exhausted`. They count among the connections, too.
    pub handshakes_max: u32,
    /// TLS handshakes at once from one client address. 0 means no such limit, for a listener behind a
    /// load balancer that hides its clients' addresses.
    pub handshakes_per_client_max: u32,
    /// Bytes of request line and headers together. More get 431 `head_too_large`. Backstage
    /// itself takes tokens of up to 32 KiB.
    pub head_max: Size,
    /// Header lines in a request.
    pub headers_max: u32,
    /// Bytes of a request body. More get 413 `body_too_large`. A route may set its own.
    pub body_max: Size,
    /// From the first byte of a head to its last (and, for HTTP/2, to its first frame). A TLS handshake
    /// has as long, from the moment the connection was accepted; then `handshake_timeout` is on record.
    pub head_timeout: Duration,
    /// Silence of a client within a request body. Then 408 `body_timeout`.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer that is there for it. Then it is cut off, on record
    /// as `client_slow`.
    pub write_timeout: Duration,
    /// Bytes a second at which a body must move, on average after its first 10s: a request's, else 408
    /// `body_slow`; and an answer's, else the client is cut off, on record as `client_slow`. Only waiting
    /// for the client counts. What it is slow with is never a failure of the upstream. `0` is no least
    /// rate. Streams have none.
    pub rate_min: Size,
    /// Silence between requests on a connection that is kept alive.
    pub keepalive_timeout: Duration,
    /// Requests on one connection, then it is closed, so that load spreads after a scale-out.
    pub keepalive_requests_max: u32,
    /// HTTP/2 streams at once on one connection.
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
