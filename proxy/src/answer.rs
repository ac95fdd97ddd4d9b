//! A denial as an answer, in the form that the route's clients read.

use bytes::Bytes;
use config::{Detail, ErrorFormat};
use filters::{Denial, Exchange, rate_limit::Standing};
use http::header;
use pingora::{Result, http::ResponseHeader, proxy::Session};
use serde_json::{Value, json};

/// Writes a denial. The connection stays usable where the request's body has been read or there is
/// none.
///
/// # Errors
/// If the client is gone.
pub async fn write(
    session: &mut Session,
    exchange: &Exchange,
    denial: &Denial,
    request_id: &str,
) -> Result<()> {
    let status = denial.status();
    let (kind, body) = body(session, exchange, denial, request_id);
    let body = Bytes::from(body.to_string());
    let mut head = ResponseHeader::build(status, Some(12))?;
    head.insert_header(header::CONTENT_TYPE, kind)?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header("x-request-id", request_id)?;
    head.insert_header("proxy-status", format!("stagedoor; error=\"{}\"", denial.code()))?;
    if let Some(challenge) = denial.challenge() {
        head.insert_header(header::WWW_AUTHENTICATE, challenge)?;
    }
    if let Some(retry_after) = denial.retry_after() {
        head.insert_header(header::RETRY_AFTER, retry_after.as_secs_f64().ceil().max(1.0) as u64)?;
    }
    limits(&mut head, exchange.standing.as_ref(), Some(denial))?;
    session.as_downstream_mut().set_write_timeout(Some(std::time::Duration::from_secs(10)));
    let nothing = http::Method::HEAD == session.req_header().method;
    session.write_response_header(Box::new(head), nothing).await?;
    if !nothing {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11), and the older
/// `X-RateLimit-*`.
///
/// # Errors
/// Never: the values are numbers.
pub fn limits(
    head: &mut ResponseHeader,
    standing: Option<&Standing>,
    denial: Option<&Denial>,
) -> Result<()> {
    if let Some(Denial::RateLimited { retry_after, .. }) = denial {
        head.insert_header("ratelimit", format!("\"rate\";r=0;t={}", ceil(*retry_after)))?;
        head.insert_header("x-ratelimit-remaining", "0")?;
        head.insert_header("x-ratelimit-reset", ceil(*retry_after))?;
    }
    let Some(standing) = standing else { return Ok(()) };
    let Standing { scope, quota, window, remaining, reset } = standing;
    let (window, reset) = (window.as_secs(), ceil(*reset));
    head.insert_header("ratelimit-policy", format!("\"{scope}\";q={quota};w={window}"))?;
    head.insert_header("ratelimit", format!("\"{scope}\";r={remaining};t={reset}"))?;
    head.insert_header("x-ratelimit-limit", *quota)?;
    head.insert_header("x-ratelimit-remaining", *remaining)?;
    head.insert_header("x-ratelimit-reset", reset)?;
    Ok(())
}

fn ceil(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn body(
    session: &Session,
    exchange: &Exchange,
    denial: &Denial,
    request_id: &str,
) -> (&'static str, Value) {
    let options = exchange.route.as_ref().map(|route| &route.options);
    let format = options.and_then(|options| options.errors).unwrap_or_default();
    let detail = options.and_then(|options| options.detail).unwrap_or_default();
    let (status, code) = (denial.status(), denial.code());
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
