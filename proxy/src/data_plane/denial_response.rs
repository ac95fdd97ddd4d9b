//! A denial as a response, in the format that its client understands.

pub(crate) mod cors;
mod json;
mod page;
mod problem;
mod reader;
mod rendered;
mod rpc;

use bytes::Bytes;
use config::{Cors, ErrorFormat};
use filters::{Denial, Exchange, exchange::Shared, proxy_status};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::{
    Result, http::ResponseHeader, protocols::http::ServerSession as HttpSession, proxy::Session,
};

pub(crate) use self::{problem::Problem, reader::Reader, rendered::Rendered};
use crate::{
    clock,
    data_plane::{coalescing::StoredResponse, rate_limit_headers},
    head_edit,
    request_id::{RequestId, X_REQUEST_ID},
};

/// Writes a denial. The connection stays usable if the request's body has been read or there is none.
///
/// # Errors
/// If the client has disconnected.
pub(crate) async fn write(
    session: &mut Session,
    exchange: &Exchange,
    denial: &Denial,
    request_id: &RequestId,
    cors: Option<&Cors>,
) -> Result<()> {
    let head = session.req_header();
    let (method, asked) = (&head.method, &head.headers);
    if let Some(headers) = cors.and_then(|cors| cors::preflight(cors, method, asked)) {
        return permit_preflight(session, headers, request_id).await;
    }
    let query = head.raw_path().split(|b| *b == b'?').nth(1);
    let options = exchange.route.as_ref().map(|route| &route.options);
    let format = options.and_then(|options| options.errors).unwrap_or_default();
    let reader = Reader::of(method, query, asked, format);
    let of_http = matches!(reader, Reader::Person | Reader::Connect | Reader::Program(_));
    let mut written = write_for(session, exchange, denial, denial.status(), reader, request_id);
    if let Some(challenge) = denial.challenge().filter(|_| of_http) {
        let challenge = HeaderValue::from_static(challenge);
        written.headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(cors) = cors {
        cors::allow(&mut written.headers, cors, &session.req_header().headers);
    }
    send(session, written).await
}

/// The same for a forward proxy, which has its own status for missing credentials (407).
///
/// # Errors
/// If the client has disconnected.
pub(crate) async fn write_proxy(
    session: &mut Session,
    exchange: &Exchange,
    denial: &Denial,
    status: StatusCode,
    request_id: &RequestId,
) -> Result<()> {
    let reader = Reader::Program(ErrorFormat::Problem);
    let mut written = write_for(session, exchange, denial, status, reader, request_id);
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let challenge = HeaderValue::from_static(PROXY_CHALLENGE);
        written.headers.insert(header::PROXY_AUTHENTICATE, challenge);
    }
    send(session, written).await
}

fn write_for(
    session: &Session,
    exchange: &Exchange,
    denial: &Denial,
    status: StatusCode,
    reader: Reader,
    request_id: &RequestId,
) -> Rendered {
    let head = session.req_header();
    // The response to HEAD has the length of the one to GET, which would name its method.
    let method = if head.method == Method::HEAD { "GET" } else { head.method.as_str() };
    let asked = (method, head.uri.path());
    let now = clock::now().unix;
    let said = Problem::of(denial, status, exchange, request_id.as_str(), asked, now);
    let mut written = Rendered::new(reader, &said);
    rate_limit_headers::told(&mut written.headers, exchange.quota.as_ref(), Some(denial));
    written.headers.insert(proxy_status::PROXY_STATUS, proxy_status::of(denial));
    written
}

async fn send(session: &mut Session, written: Rendered) -> Result<()> {
    let Rendered { status, headers, body } = written;
    let asked = session.req_header();
    let nothing = asked.method == Method::HEAD || body.is_empty();
    // A gRPC client treats a head that ends the stream as trailers, which have no content length.
    let framed = !body.is_empty() || asked.version != Version::HTTP_2;
    let mut head = ResponseHeader::build(status, None)?;
    head_edit::edit_response(&mut head, |parts| {
        parts.headers = headers;
        if framed {
            parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
    });
    let downstream = session.as_downstream_mut();
    downstream.set_write_timeout(Some(std::time::Duration::from_secs(10)));
    match downstream {
        // Pingora's session would leave the stream open, and then it would not be a trailers-only response.
        HttpSession::H2(stream) if nothing => stream.write_response_header(Box::new(head), true),
        HttpSession::Custom(stream) if nothing => {
            stream.write_response_header(Box::new(head), true).await
        }
        _ if nothing => session.write_response_header(Box::new(head), true).await,
        _ => {
            session.write_response_header(Box::new(head), false).await?;
            session.write_response_body(Some(body), true).await
        }
    }
}

/// Permits a refused preflight, so that the page can read the denial.
async fn permit_preflight(
    session: &mut Session,
    headers: HeaderMap,
    request_id: &RequestId,
) -> Result<()> {
    let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, None)?;
    head_edit::edit_response(&mut head, |parts| {
        parts.headers = headers;
        parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        parts.headers.insert(X_REQUEST_ID, request_id.header());
    });
    session.write_response_header(Box::new(head), true).await
}

/// As `Retry-After` has it: whole seconds, at least one.
fn seconds(wait: std::time::Duration) -> u64 {
    ceil(wait).max(1)
}

/// Writes a response of our own in JSON, for one caller only.
///
/// # Errors
/// If the client has disconnected.
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

/// Writes the response to another, identical request.
///
/// # Errors
/// If the client has disconnected.
pub(crate) async fn write_shared(
    session: &mut Session,
    exchange: &Exchange,
    (shared, how): (&StoredResponse, Shared),
    request_id: &RequestId,
    cors: Option<&Cors>,
) -> Result<()> {
    let mut head = ResponseHeader::build(shared.status, None)?;
    let asked = &session.req_header().headers;
    head_edit::edit_response(&mut head, |parts| {
        let headers = &mut parts.headers;
        headers.clone_from(&shared.headers);
        // RFC 9211.
        let (age, left) = (shared.age().as_secs(), shared.left().as_secs());
        let status = match how {
            Shared::Hit => format!("stagedoor; hit; ttl={left}"),
            Shared::Fallback => format!("stagedoor; hit; ttl={left}; detail=fallback"),
            Shared::Collapsed => "stagedoor; fwd=miss; collapsed".to_owned(),
        };
        if how != Shared::Collapsed {
            // It may have had an age when it was received (RFC 9111 4.2.3).
            let came = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.parse().ok());
            headers.insert(header::AGE, age.saturating_add(came.unwrap_or(0_u64)).into());
        }
        headers.insert(CACHE_STATUS, status.parse().expect("a cache status is plain"));
        if !matches!(shared.status.as_u16(), 204 | 304) {
            headers.insert(header::CONTENT_LENGTH, shared.body.len().into());
        }
        headers.insert(X_REQUEST_ID, request_id.header());
        if shared.status != StatusCode::TOO_MANY_REQUESTS {
            rate_limit_headers::told(headers, exchange.quota.as_ref(), None);
        }
        if let Some(cors) = cors {
            cors::allow_of_upstream(headers, cors, asked);
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

/// The challenge of a forward proxy (RFC 9110 11.7.1).
pub(crate) const PROXY_CHALLENGE: &str = "Basic realm=\"stagedoor\"";

fn ceil(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
