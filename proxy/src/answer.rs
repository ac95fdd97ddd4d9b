//! A denial as an answer, in the form that the route's clients read.

use bytes::Bytes;
use config::{Detail, ErrorFormat};
use filters::{Denial, Exchange, exchange::Shared};
use http::{HeaderName, StatusCode, header};
use pingora::{Result, http::ResponseHeader, proxy::Session};
use serde_json::{Value, json};

use crate::{
    flights::Answer,
    heads, limits,
    request::{RequestId, X_REQUEST_ID},
};

/// Writes a denial. The connection stays usable where the request's body has been read or there is
/// none.
///
/// # Errors
/// If the client is gone.
pub(crate) async fn write(
    session: &mut Session,
    exchange: &Exchange,
    denial: &Denial,
    request_id: &RequestId,
) -> Result<()> {
    write_as(session, exchange, denial, denial.status(), denial.challenge(), request_id).await
}

/// The same for a forward proxy, which asks who is calling with a status of its own.
pub(crate) async fn write_proxy(
    session: &mut Session,
    exchange: &Exchange,
    denial: &Denial,
    status: StatusCode,
    request_id: &RequestId,
) -> Result<()> {
    write_as(session, exchange, denial, status, None, request_id).await
}

async fn write_as(
    session: &mut Session,
    exchange: &Exchange,
    denial: &Denial,
    status: StatusCode,
    challenge: Option<&'static str>,
    request_id: &RequestId,
) -> Result<()> {
    let (kind, body) = body(session, exchange, denial, status, request_id.as_str());
    let body = Bytes::from(body.to_string());
    let mut head = ResponseHeader::build(status, Some(12))?;
    head.insert_header(header::CONTENT_TYPE, kind)?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header(X_REQUEST_ID, request_id.header())?;
    head.insert_header("proxy-status", format!("stagedoor; error=\"{}\"", denial.code()))?;
    if let Some(challenge) = challenge {
        head.insert_header(header::WWW_AUTHENTICATE, challenge)?;
    }
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        head.insert_header(header::PROXY_AUTHENTICATE, PROXY_CHALLENGE)?;
    }
    if let Some(retry_after) = denial.retry_after() {
        head.insert_header(header::RETRY_AFTER, retry_after.as_secs_f64().ceil().max(1.0) as u64)?;
    }
    heads::edit_response(&mut head, |parts| {
        limits::told(&mut parts.headers, exchange.standing.as_ref(), Some(denial));
    });
    session.as_downstream_mut().set_write_timeout(Some(std::time::Duration::from_secs(10)));
    let nothing = http::Method::HEAD == session.req_header().method;
    session.write_response_header(Box::new(head), nothing).await?;
    if !nothing {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Writes an answer of our own in JSON, for one caller and nobody else.
///
/// # Errors
/// If the client is gone.
pub(crate) async fn write_json(
    session: &mut Session,
    body: &str,
    request_id: &RequestId,
) -> Result<()> {
    let mut head = ResponseHeader::build(StatusCode::OK, Some(4))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header(X_REQUEST_ID, request_id.header())?;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(Bytes::copy_from_slice(body.as_bytes())), true).await
}

/// Writes the answer to another request that was the same.
///
/// # Errors
/// If the client is gone.
pub(crate) async fn write_shared(
    session: &mut Session,
    exchange: &Exchange,
    shared: &Answer,
    request_id: &RequestId,
) -> Result<()> {
    let mut head = ResponseHeader::build(shared.status, None)?;
    heads::edit_response(&mut head, |parts| {
        let headers = &mut parts.headers;
        headers.clone_from(&shared.headers);
        // RFC 9211.
        let (age, left) = (shared.age().as_secs(), shared.left().as_secs());
        let status = match exchange.shared {
            Some(Shared::Hit) => format!("stagedoor; hit; ttl={left}"),
            Some(Shared::Fallback) => format!("stagedoor; hit; ttl={left}; detail=fallback"),
            _ => "stagedoor; fwd=miss; collapsed".to_owned(),
        };
        if exchange.shared != Some(Shared::Collapsed) {
            // It may have been old when it came (RFC 9111 4.2.3).
            let came = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.parse().ok());
            headers.insert(header::AGE, age.saturating_add(came.unwrap_or(0_u64)).into());
        }
        headers.insert(CACHE_STATUS, status.parse().expect("a cache status is plain"));
        if !matches!(shared.status.as_u16(), 204 | 304) {
            headers.insert(header::CONTENT_LENGTH, shared.body.len().into());
        }
        headers.insert(X_REQUEST_ID, request_id.header());
        if shared.status != StatusCode::TOO_MANY_REQUESTS {
            limits::told(headers, exchange.standing.as_ref(), None);
        }
    });
    let nothing = shared.body.is_empty();
    session.write_response_header(Box::new(head), nothing).await?;
    if !nothing {
        session.write_response_body(Some(shared.body.clone()), true).await?;
    }
    Ok(())
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// How a caller may say who it is to a forward proxy (RFC 9110 11.7.1).
pub(crate) const PROXY_CHALLENGE: &str = "Basic realm=\"stagedoor\"";

fn body(
    session: &Session,
    exchange: &Exchange,
    denial: &Denial,
    status: StatusCode,
    request_id: &str,
) -> (&'static str, Value) {
    let options = exchange.route.as_ref().map(|route| &route.options);
    let format = options.and_then(|options| options.errors).unwrap_or_default();
    let detail = options.and_then(|options| options.detail).unwrap_or_default();
    let code = denial.code();
    let sentence = match detail {
        Detail::Full => denial.to_string(),
        Detail::Code => status.canonical_reason().unwrap_or("denied").to_owned(),
    };
    let rule = exchange.route.as_ref().filter(|_| detail == Detail::Full);
    let rule = rule.map(|route| json!({"route": route.name.as_str(), "place": &*route.place}));
    match format {
        ErrorFormat::Problem => {
            let mut body = json!({
                "type": "about:blank",
                "title": sentence,
                "status": status.as_u16(),
                "code": code,
                "request_id": request_id,
            });
            if let Some(rule) = rule {
                body["rule"] = rule;
            }
            ("application/problem+json", body)
        }
        ErrorFormat::Backstage => {
            let head = session.req_header();
            let body = json!({
                "error": {
                    "name": error_name(status.as_u16()),
                    "message": format!("{sentence} ({code})"),
                    "code": code,
                },
                "request": {"method": head.method.as_str(), "url": head.uri.path()},
                "response": {"statusCode": status.as_u16()},
                "request_id": request_id,
            });
            ("application/json", body)
        }
        ErrorFormat::String => {
            let body = json!({
                "error": format!("{sentence} ({code})"),
                "code": code,
                "request_id": request_id,
            });
            ("application/json", body)
        }
    }
}

/// The names that Backstage's clients turn into exceptions.
fn error_name(status: u16) -> &'static str {
    match status {
        400 | 408 | 413 | 421 | 431 => "InputError",
        401 => "AuthenticationError",
        403 => "NotAllowedError",
        409 => "ConflictError",
        _ => "ServiceUnavailableError",
    }
}
