//! A request's head: the input of a decision.

use std::net::IpAddr;

use http::{HeaderMap, Method};

use crate::request::certificate::ClientCertificate;

/// The parts of a request that a decision reads.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The number of its listener in the policy.
    pub listener: usize,
    /// The address that connected to us.
    pub peer: IpAddr,
    /// Whether it was received over TLS.
    pub tls: bool,
    /// The client certificate that was verified, if any.
    pub certificate: Option<&'a ClientCertificate>,
    /// The method.
    pub method: &'a Method,
    /// Path and query, as received.
    pub target: &'a [u8],
    /// `Host` or `:authority`, as received.
    pub host: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, once it was read because a decision needed it.
    pub body: Option<&'a [u8]>,
}

impl<'a> Head<'a> {
    /// The path, as received.
    pub fn path(&self) -> &'a [u8] {
        self.target.split(|b| *b == b'?').next().unwrap_or_default()
    }

    /// The query without its question mark, as received.
    pub fn query(&self) -> Option<&'a [u8]> {
        let mark = self.target.iter().position(|b| *b == b'?')?;
        Some(&self.target[mark + 1..])
    }

    /// Whether the client requests an upgrade to WebSocket. Other upgrades are offers that a server may
    /// ignore (RFC 9110 7.8), and we do: clients make them with plain requests.
    pub fn is_upgrade(&self) -> bool {
        offers_websocket(self.headers)
    }
}

/// Whether WebSocket is among the protocols in `Upgrade`.
pub fn offers_websocket(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(http::header::UPGRADE).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).any(is_websocket)
}

/// Whether a protocol is WebSocket, in whatever version it may be.
pub fn is_websocket(protocol: &[u8]) -> bool {
    let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"websocket")
}
