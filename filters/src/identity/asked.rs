//! Where a request may carry a token.

use http::{HeaderMap, header};

use super::{ClientCertificate, Proof, Refusal};
use crate::{Denial, denial::TokenFault};

/// What of a request says who is calling. Not for printing: it holds tokens.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Whether the route takes Backstage's cookie.
    pub cookie_allowed: bool,
    /// Whether the client asks for an upgrade.
    pub upgrade: bool,
    /// The verified client certificate, if any.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Asked<'a> {
    /// The token in `Authorization`, if it has one.
    pub(crate) fn bearer(&self) -> Result<Option<&'a str>, Refusal> {
        in_authorization(self.headers)
    }

    /// The token and where it stood. The first place that has one counts.
    pub(crate) fn token(&self) -> Result<Option<(&'a str, Proof)>, Refusal> {
        let bearer = in_authorization(self.headers)?;
        let spoken = if self.upgrade { in_protocols(self.headers)? } else { None };
        match (bearer, spoken) {
            // Backstage's signals take the one, other upstreams the other.
            (Some(bearer), Some(spoken)) if bearer != spoken => return Err(ambiguous()),
            (Some(bearer), _) => return Ok(Some((bearer, Proof::Token))),
            (None, Some(spoken)) => return Ok(Some((spoken, Proof::WebSocketProtocol))),
            (None, None) => {}
        }
        if !self.cookie_allowed {
            return Ok(None);
        }
        Ok(in_cookies(self.headers)?.map(|token| (token, Proof::Cookie)))
    }
}

fn ambiguous() -> Refusal {
    Refusal::plain(Denial::AuthorizationAmbiguous)
}

fn in_authorization(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(ambiguous());
    }
    let malformed = TokenFault::Malformed { why: "the header is not `Bearer <token>`" };
    let text = line.as_bytes();
    let end = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let (scheme, rest) = text.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        // Another scheme is none of ours, and what it says is not looked at.
        return Err(Refusal::plain(Denial::CallerMissing));
    }
    let token = rest.get(1..).unwrap_or_default();
    if token.is_empty() || memchr::memchr3(b' ', b',', b'\t', token).is_some() {
        return Err(malformed.into());
    }
    Ok(Some(std::str::from_utf8(token).map_err(|_| malformed)?))
}

/// The value that looks like a JWT; others beside it are protocols.
fn in_protocols(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    only(protocols(headers).filter(|value| is_token(value)))
}

/// Takes the tokens out of the protocols that a WebSocket asks for.
pub(crate) fn without_tokens(headers: &mut HeaderMap) {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    if !headers.contains_key(&name) || !protocols(headers).any(is_token) {
        return;
    }
    let kept: Vec<&str> = protocols(headers).filter(|value| !is_token(value)).collect();
    let kept = kept.join(", ");
    headers.remove(&name);
    if !kept.is_empty() {
        headers.insert(name, kept.parse().expect("it was in a header"));
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

/// Backstage's cookie. Read byte by byte: what else is in the line must not hide it from us, as it
/// would not from Backstage.
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
