//! Translates Pingora's session into the types that decisions use.

use std::net::{IpAddr, SocketAddr};

use filters::{Head, identity::ClientCertificate};
use http::{HeaderName, HeaderValue, header};
use pingora::{Error, http::RequestHeader, protocols::Digest, proxy::Session};

use crate::data_plane::listener::tls::HandshakeInfo;

/// Whether an I/O error of this kind is at the root of an error.
pub(crate) fn caused_by(error: &Error, kind: std::io::ErrorKind) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == kind)
}

/// The head that a decision is made from.
pub(crate) fn head<'a>(
    listener: usize,
    tls: bool,
    session: &Session,
    request: &'a RequestHeader,
    certificate: Option<&'a ClientCertificate>,
) -> Head<'a> {
    Head {
        listener,
        peer: peer(session),
        tls,
        certificate,
        method: &request.method,
        target: request.raw_path(),
        host: host(request),
        headers: &request.headers,
        body: None,
    }
}

/// The address that connected to us.
pub(crate) fn peer(session: &Session) -> IpAddr {
    let peer = session.client_addr().and_then(|addr| addr.as_inet());
    peer.map_or(IpAddr::from([0, 0, 0, 0]), SocketAddr::ip)
}

/// The host that a request is for, as received.
pub(crate) fn host(request: &RequestHeader) -> Option<&[u8]> {
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    authority.or_else(|| request.headers.get(header::HOST).map(HeaderValue::as_bytes))
}

/// The facts of the TLS handshake.
pub(crate) fn facts_of(digest: Option<&Digest>) -> Option<&HandshakeInfo> {
    digest?.ssl_digest.as_ref()?.extension.get::<HandshakeInfo>()
}

pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The control plane's id for what the request started.
pub(crate) fn control_id(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Began {
        id: String,
    }
    serde_json::from_slice::<Began>(body).ok().map(|began| began.id)
}
/// Bodies up to this size are sent in one piece, and are complete before the response.
const SMALL: u64 = 64 << 10;

/// Whether a request has a body that is long, or of unknown length.
pub(crate) fn has_large_body(session: &mut Session) -> bool {
    if session.as_downstream_mut().is_body_empty() {
        return false;
    }
    let length = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_none_or(|length| length > SMALL)
}
