//! The response to a head that never became a request.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use config::{Cors, ErrorFormat};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use pingora::http::RequestHeader;

use super::{HeadRefusal, Refusals, request_head::Form};
use crate::{
    clock,
    data_plane::denial_response::{Problem, Reader, Rendered, cors},
};

/// Refuses heads of one HTTP/2 connection, which stays open.
pub(crate) struct RefusalContext {
    refusals: Arc<dyn Refusals>,
    peer: IpAddr,
    form: Form,
}

impl RefusalContext {
    pub(super) fn new(refusals: &Arc<dyn Refusals>, peer: IpAddr, form: Form) -> Self {
        Self { refusals: Arc::clone(refusals), peer, form }
    }

    /// Records it; returns the response.
    pub(crate) fn refuse(&self, refusal: HeadRefusal, head: &RequestHeader) -> Response<Bytes> {
        let (method, target) = (&head.method, head.raw_path());
        let line = [method.as_str().as_bytes(), target, b"HTTP/2"].join(&b' ');
        let id = self.refusals.refused(refusal, self.peer, &line, true);
        let query = target.split(|b| *b == b'?').nth(1);
        let asked = ConnectRequest { method, query, headers: &head.headers };
        let cors = self.refusals.cors();
        let Rendered { status, headers, body } =
            written(refusal, &id, &asked, self.form, cors.as_deref());
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }
}

/// The parts of a request that determine the format of a response.
struct ConnectRequest<'a> {
    method: &'a Method,
    query: Option<&'a [u8]>,
    headers: &'a HeaderMap,
}

fn written(
    refusal: HeadRefusal,
    id: &str,
    asked: &ConnectRequest<'_>,
    form: Form,
    origins: Option<&Cors>,
) -> Rendered {
    let (status, code, sentence) = refusal.row();
    let status = StatusCode::from_u16(status).expect("the table has statuses");
    let reader = match form {
        Form::Origin => Reader::of(asked.method, asked.query, asked.headers, ErrorFormat::Problem),
        Form::Proxy => Reader::Program(ErrorFormat::Problem),
    };
    let said = Problem {
        status,
        code,
        sentence: sentence.into(),
        full: false,
        rule: None,
        request_id: id,
        retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        method: asked.method.as_str(),
        path: "",
        now: clock::now().unix,
    };
    let mut written = Rendered::new(reader, &said);
    if let Some(origins) = origins {
        cors::allow(&mut written.headers, origins, asked.headers);
    }
    written.headers.insert(header::CONTENT_LENGTH, written.body.len().into());
    written
}

/// The whole response over HTTP/1. `head` is what was received of the head.
pub(super) fn answer(
    refusal: HeadRefusal,
    id: &str,
    head: &[u8],
    form: Form,
    origins: Option<&Cors>,
) -> Vec<u8> {
    let (method, query, headers) = read(head);
    let asked = ConnectRequest { method: &method, query, headers: &headers };
    let Rendered { status, mut headers, body } = written(refusal, id, &asked, form, origins);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let reason = status.canonical_reason().unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        answer.extend_from_slice(&spelled(name));
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    if method != Method::HEAD {
        answer.extend_from_slice(&body);
    }
    answer
}

/// The usual spelling, such as `X-Request-Id`: names are case-insensitive, but people and patterns read
/// them.
fn spelled(name: &HeaderName) -> Vec<u8> {
    let mut spelled = name.as_str().as_bytes().to_owned();
    for word in spelled.split_mut(|b| *b == b'-') {
        if let Some(first) = word.first_mut() {
            first.make_ascii_uppercase();
        }
    }
    spelled
}

/// The headers that determine the format of the response.
static FORMAT_HEADERS: [HeaderName; 5] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::ORIGIN,
    HeaderName::from_static("connect-protocol-version"),
    HeaderName::from_static("sec-fetch-mode"),
];
/// A head may have been refused for having too many.
const LINES_MAX: usize = 200;

/// Reads what it can of a malformed or incomplete head. Only the format of the response depends on it.
fn read(head: &[u8]) -> (Method, Option<&[u8]>, HeaderMap) {
    let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).take(LINES_MAX);
    let mut words = lines.next().unwrap_or_default().split(|b| *b == b' ');
    let method = words.next().and_then(|word| Method::from_bytes(word).ok());
    let query = words.next().and_then(|target| target.split(|b| *b == b'?').nth(1));
    let mut asked = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let known = FORMAT_HEADERS
            .iter()
            .find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()));
        if let (Some(name), Ok(value)) = (known, HeaderValue::from_bytes(value)) {
            asked.append(name, value);
        }
    }
    (method.unwrap_or_default(), query, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: HeadRefusal = HeadRefusal::Malformed("there is not exactly one Host");

    fn told(head: &str, cors: Option<&Cors>) -> (String, String) {
        let answer = answer(BROKEN, "id-1", head.as_bytes(), Form::Origin, cors);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn the_format_is_chosen_by_what_could_be_read() {
        let (head, body) = told("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", None);
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("Content-Type: application/problem+json"), "{head}");
        assert!(head.contains("Connection: close"), "{head}");
        assert!(body.contains("\"title\":\"there is not exactly one Host\""), "{body}");
        let (head, body) = told("GET /<b> HTTP/1.1\r\nACCEPT: text/html\r\nX: <b>\r\n\r\n", None);
        assert!(head.contains("Content-Type: text/html; charset=utf-8"), "{head}");
        assert!(body.contains("id-1") && !body.contains("<b>"), "{body}");
        for cut in ["", "G", "GET", "GET /", "GET / HTTP/1.1\r\nAccept", "\0\r\n:\r\n: \r\n"] {
            assert!(told(cut, None).1.contains("id-1"), "{cut:?}");
        }
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let (head, body) = told("HEAD / HTTP/1.1\r\n\r\n", None);
        assert_eq!(body, "");
        assert!(head.contains("Content-Length: 1"), "{head}");
    }

    #[test]
    fn pages_elsewhere_see_it_too() {
        let origins = vec!["https://app.example".parse().unwrap()];
        let cors = Cors { origins, credentials: true };
        let from = |origin: &str| {
            told(&format!("GET / HTTP/1.1\r\nOrigin: {origin}\r\n\r\n"), Some(&cors)).0
        };
        assert!(from("https://app.example").contains("Allow-Origin: https://app.example\r\n"));
        assert!(!from("https://app.example.evil").contains("Allow-Origin"));
        assert!(!from("null").contains("Allow-Origin"));
    }
}
