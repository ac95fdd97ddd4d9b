//! Which format a client understands, by its request.

use config::ErrorFormat;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// Who reads a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person, in a browser.
    Person,
    /// A client of gRPC. Its media type goes with it, as with the others that want it back.
    Grpc(HeaderValue),
    /// A client of gRPC-Web, over bytes or over base64.
    GrpcWeb { media_type: HeaderValue, text: bool },
    /// A client of Connect that waits for one message.
    Connect,
    /// A client of Connect that waits for a stream.
    ConnectStream(HeaderValue),
    /// A program that reads JSON.
    Program(ErrorFormat),
}

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const CONNECT_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");

impl Reader {
    /// The reader of a response to this request. `format` is for programs.
    pub(crate) fn of(
        method: &Method,
        query: Option<&[u8]>,
        asked: &HeaderMap,
        format: ErrorFormat,
    ) -> Self {
        if let Some(client) = rpc(method, query, asked) {
            return client;
        }
        if wants_page(asked) { Self::Person } else { Self::Program(format) }
    }
}

/// A client of gRPC or a related protocol.
fn rpc(method: &Method, query: Option<&[u8]>, asked: &HeaderMap) -> Option<Reader> {
    if *method == Method::GET {
        let says = |part: &[u8]| part == b"connect=v1";
        return query?.split(|b| *b == b'&').any(says).then_some(Reader::Connect);
    }
    let (media_type, kind) = media_type(asked.get(header::CONTENT_TYPE)?)?;
    let has = |name: &str| {
        kind.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
    };
    if has("application/grpc") {
        return Some(Reader::Grpc(media_type));
    }
    if has("application/grpc-web") || has("application/grpc-web-text") {
        let text = has("application/grpc-web-text");
        return Some(Reader::GrpcWeb { media_type, text });
    }
    if kind.starts_with("application/connect+") {
        return Some(Reader::ConnectStream(media_type));
    }
    let unary = kind == "application/proto"
        || kind.starts_with("application/") && asked.contains_key(CONNECT_PROTOCOL_VERSION);
    unary.then_some(Reader::Connect)
}

/// A media type without its parameters, in lower case. `None` if it could not be sent back.
fn media_type(value: &HeaderValue) -> Option<(HeaderValue, String)> {
    let text = value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/+-._".contains(&b);
    let fits = text.len() <= 64 && text.bytes().all(plain);
    let value = HeaderValue::from_str(&text).ok().filter(|_| fits)?;
    Some((value, text))
}

/// Whether a page is preferred to JSON (RFC 9110 12.5.1), or equally acceptable in a navigation.
fn wants_page(asked: &HeaderMap) -> bool {
    let navigates = asked.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate");
    let accepts = asked.get_all(header::ACCEPT);
    let quality = |wanted: &[&str]| {
        let lines = accepts.iter().filter_map(|line| line.to_str().ok());
        let ranges = lines.flat_map(|line| line.split(',')).take(RANGES_MAX).filter_map(range);
        // The most exact range that matches decides.
        let fitting = ranges.filter_map(|(range, quality)| {
            let exact = wanted.iter().position(|wanted| range.eq_ignore_ascii_case(wanted))?;
            Some((wanted.len() - exact, quality))
        });
        fitting.max_by_key(|(exact, _)| *exact).map_or(0, |(_, quality)| quality)
    };
    if !asked.contains_key(header::ACCEPT) {
        return navigates;
    }
    let page = quality(&["text/html", "text/*", "*/*"]);
    let json = quality(&["application/json", "application/*", "*/*"]);
    let problem = quality(&["application/problem+json", "application/*", "*/*"]);
    let json = json.max(problem);
    page > json || navigates && page == json && page > 0
}

/// More than any browser sends.
const RANGES_MAX: usize = 64;

/// A media range, and how gladly it is read, in thousandths.
fn range(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';');
    let range = parts.next()?.trim();
    let quality = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()))
    });
    Some((range, quality.unwrap_or(1000)))
}

/// `0.8` is 800. Anything but a quality counts as 0.
fn thousandths(text: &str) -> u16 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    match whole {
        "1" if digits => 1000,
        "0" if digits => format!("{part:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn browsers_that_go_to_a_page_get_one_and_programs_their_json() {
        let check =
            |lines: &str, page: bool| assert_eq!(wants_page(&headers(lines)), page, "{lines}");
        let chrome = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";
        check(chrome, true);
        check(&format!("{chrome}\nsec-fetch-mode: navigate"), true);
        check("accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true);
        check("sec-fetch-mode: navigate", true);
        check("accept: */*\nsec-fetch-mode: navigate", true);
        check("accept: TEXT/HTML", true);
        check("accept: text/*, application/json;q=0.5", true);
        check("accept: application/json\naccept: text/html;q=0.1", false);
        // What fetch, curl and images send.
        check("", false);
        check("accept: */*", false);
        check("accept: */*\nsec-fetch-mode: cors", false);
        check("accept: image/avif,image/webp,*/*;q=0.8\nsec-fetch-mode: no-cors", false);
        check("accept: application/json, text/plain, */*", false);
        check("accept: text/html, application/json", false);
        check("accept: text/html;q=0.5, application/json;q=0.9", false);
        check("accept: text/html;q=0.5, application/problem+json;q=0.9", false);
        check("accept: text/html;q=0.9, */*;q=0.95", false);
        check("accept: text/html;q=0\nsec-fetch-mode: navigate", false);
        check("accept: application/json\nsec-fetch-mode: navigate", false);
        check("accept: text/html;q=abc", false);
        check("accept: text/html;q=2", false);
        check("accept: text/event-stream", false);
        check("accept: ,;=;q,,/", false);
    }

    #[test]
    fn clients_of_rpc_are_known_by_what_they_send() {
        let value = HeaderValue::from_static;
        let read = |method: Method, query: Option<&str>, lines: &str| {
            Reader::of(&method, query.map(str::as_bytes), &headers(lines), ErrorFormat::Backstage)
        };
        let post = |lines: &str| read(Method::POST, None, lines);
        let json = Reader::Program(ErrorFormat::Backstage);
        assert_eq!(post("content-type: application/grpc"), Reader::Grpc(value("application/grpc")));
        assert_eq!(
            post("content-type: Application/gRPC+proto; a=b"),
            Reader::Grpc(value("application/grpc+proto"))
        );
        assert_eq!(
            post("content-type: application/grpc-web+proto"),
            Reader::GrpcWeb { media_type: value("application/grpc-web+proto"), text: false }
        );
        assert_eq!(
            post("content-type: application/grpc-web-text"),
            Reader::GrpcWeb { media_type: value("application/grpc-web-text"), text: true }
        );
        assert_eq!(
            post("content-type: application/connect+json"),
            Reader::ConnectStream(value("application/connect+json"))
        );
        assert_eq!(post("content-type: application/proto"), Reader::Connect);
        let unary = "content-type: application/json\nconnect-protocol-version: 1";
        assert_eq!(post(unary), Reader::Connect);
        assert_eq!(read(Method::GET, Some("a=b&connect=v1"), ""), Reader::Connect);
        assert_eq!(read(Method::GET, Some("connect=v11"), ""), json);
        assert_eq!(post("content-type: application/json"), json);
        assert_eq!(post("content-type: application/grpcx"), json);
        assert_eq!(post("content-type: application/grpc-webx"), json);
        assert_eq!(post("content-type: application/grpc+<b>"), json);
        assert_eq!(post("content-type: text/html\naccept: text/html"), Reader::Person);
    }
}
