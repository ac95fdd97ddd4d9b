//! Where a request may carry a token.

use http::{HeaderMap, HeaderName, header};

use super::{ClientCertificate, Proof, Refusal};
use crate::{Denial, denial::TokenFault};

/// The parts of a request that can authenticate its caller. Not for printing: it holds tokens.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The number of its listener in the policy.
    pub listener: usize,
    /// The headers in which the peer may present a token of its own; empty if it is not a trusted proxy.
    pub from_proxy: &'a [HeaderName],
    /// Whether the route accepts Backstage's cookie.
    pub cookie_allowed: bool,
    /// Whether the client requests an upgrade.
    pub upgrade: bool,
    /// The verified client certificate, if any.
    pub certificate: Option<&'a ClientCertificate>,
}

/// A token, and where it was found.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) text: &'a str,
    pub(crate) proof: Proof,
    /// The index of its header among those of trusted proxies, if it was in one.
    pub(crate) header: Option<usize>,
}

impl<'a> Presented<'a> {
    /// The token in `Authorization`, if it has one.
    pub(crate) fn bearer(&self) -> Result<Option<&'a str>, Refusal> {
        match in_authorization(self.headers)? {
            Authorization::Bearer(token) => Ok(Some(token)),
            Authorization::None => Ok(None),
            // Another scheme is not for us, and its content is not read.
            Authorization::Other => Err(Refusal::plain(Denial::CallerMissing)),
        }
    }

    /// Whether a trusted proxy presents a token.
    pub(crate) fn is_vouched_for(&self) -> bool {
        self.from_proxy.iter().any(|name| self.headers.contains_key(name))
    }

    /// The token and where it was found. The first place that has one counts: `Authorization`, the protocols
    /// of a WebSocket, Backstage's cookie, the header of a trusted proxy.
    pub(crate) fn token(&self) -> Result<Option<Found<'a>>, Refusal> {
        let found = |text, proof| Ok(Some(Found { text, proof, header: None }));
        let bearer = match in_authorization(self.headers)? {
            Authorization::Bearer(token) => Some(token),
            Authorization::Other if !self.is_vouched_for() => {
                return Err(Refusal::plain(Denial::CallerMissing));
            }
            Authorization::None | Authorization::Other => None,
        };
        let spoken = if self.upgrade { in_protocols(self.headers)? } else { None };
        match (bearer, spoken) {
            // Backstage's signals read the one, other upstreams the other.
            (Some(bearer), Some(spoken)) if bearer != spoken => return Err(ambiguous()),
            (Some(bearer), _) => return found(bearer, Proof::Token),
            (None, Some(spoken)) => return found(spoken, Proof::WebSocketProtocol),
            (None, None) => {}
        }
        if self.cookie_allowed
            && let Some(token) = in_cookies(self.headers)?
        {
            return found(token, Proof::Cookie);
        }
        self.of_proxy()
    }

    /// The token that a trusted proxy presents. Two count as none: one of them may be the client's.
    fn of_proxy(&self) -> Result<Option<Found<'a>>, Refusal> {
        let lines = self.from_proxy.iter().enumerate().flat_map(|(header, name)| {
            self.headers.get_all(name).iter().map(move |line| (header, line))
        });
        let Some((header, line)) = only(lines)? else { return Ok(None) };
        let malformed =
            TokenFault::Malformed { why: "the proxy's header does not hold exactly one token" };
        let text = line.to_str().map_err(|_| malformed.clone())?;
        if text.is_empty() || memchr::memchr3(b' ', b',', b'\t', text.as_bytes()).is_some() {
            return Err(malformed.into());
        }
        Ok(Some(Found { text, proof: Proof::ProxyHeader, header: Some(header) }))
    }
}

/// The content of `Authorization`.
enum Authorization<'a> {
    None,
    Bearer(&'a str),
    Other,
}

fn ambiguous() -> Refusal {
    Refusal::plain(Denial::AuthorizationAmbiguous)
}

fn in_authorization(headers: &HeaderMap) -> Result<Authorization<'_>, Refusal> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(Authorization::None) };
    if lines.next().is_some() {
        return Err(ambiguous());
    }
    let malformed = TokenFault::Malformed { why: "the header is not `Bearer <token>`" };
    let text = line.as_bytes();
    let end = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let (scheme, rest) = text.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(Authorization::Other);
    }
    // One space or more (RFC 9110 11.4), and no tab.
    let token = &rest[rest.iter().take_while(|b| **b == b' ').count()..];
    if token.is_empty() || memchr::memchr3(b' ', b',', b'\t', token).is_some() {
        return Err(malformed.into());
    }
    Ok(Authorization::Bearer(std::str::from_utf8(token).map_err(|_| malformed)?))
}

/// The value that looks like a JWT; the others are protocols.
fn in_protocols(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    only(protocols(headers).filter(|value| is_token(value)))
}

/// Removes tokens from the requested protocols of a WebSocket.
pub(crate) fn without_tokens(headers: &mut HeaderMap) {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    if !headers.contains_key(&name) || !protocols(headers).any(is_token) {
        return;
    }
    let kept: Vec<&str> = protocols(headers).filter(|value| !is_token(value)).collect();
    let kept = kept.join(", ");
    headers.remove(&name);
    // A part of a header is a valid header.
    if let Some(kept) = Some(kept).filter(|kept| !kept.is_empty()).and_then(|k| k.parse().ok()) {
        headers.insert(name, kept);
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let values = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    values.map(str::trim)
}

fn is_token(value: &str) -> bool {
    value.matches('.').count() == 2 && value.starts_with("ey")
}

/// Backstage's cookie. Parsed as bytes: nothing else in the line may hide it from us, because it would not
/// from Backstage.
fn in_cookies(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    let values = pairs.filter_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        (pair[..at].trim_ascii() == b"backstage-auth").then(|| pair[at + 1..].trim_ascii())
    });
    let Some(value) = only(values)? else { return Ok(None) };
    let why = "the cookie is not ASCII";
    Ok(Some(std::str::from_utf8(value).map_err(|_| TokenFault::Malformed { why })?))
}

fn only<T>(mut found: impl Iterator<Item = T>) -> Result<Option<T>, Refusal> {
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(ambiguous()),
        (found, _) => Ok(found),
    }
}
