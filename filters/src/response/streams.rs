//! Which exchanges are streams, by the request and by the response.

use http::{HeaderMap, header};

use crate::response::progress::Kind;

/// Media types whose parts are useful one by one, so that there may be long pauses between them.
const STREAMS: [&str; 9] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/stream+json",
    "application/json-seq",
    "application/json-patch-stream",
    "multipart/x-mixed-replace",
];
/// RPCs that stream messages in one body, in both directions.
const CALLS: [&str; 2] = ["application/grpc", "application/connect+"];

/// Whether a request is gRPC itself, which needs HTTP/2.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let essence = essence(text(headers, header::CONTENT_TYPE));
    let begins = |with: &str| {
        essence.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with))
    };
    begins("application/grpc") && !begins("application/grpc-web")
}

/// The kind of stream that a request head announces.
pub fn asked(options: &config::RouteOptions, headers: &HeaderMap, query: Option<&[u8]>) -> Kind {
    if options.stream || is_call(text(headers, header::CONTENT_TYPE)) {
        return Kind::Both;
    }
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut accepts = accepts.flat_map(|value| value.split(','));
    let events = accepts.any(|range| essence(range).eq_ignore_ascii_case("text/event-stream"));
    if events || query.is_some_and(|query| wants(&options.stream_if, query)) {
        return Kind::Answer;
    }
    Kind::Plain
}

/// Whether a response is a stream.
pub fn is_stream(headers: &HeaderMap) -> bool {
    let content_type = text(headers, header::CONTENT_TYPE);
    let essence = essence(content_type);
    is_call(content_type)
        || STREAMS.iter().any(|stream| essence.eq_ignore_ascii_case(stream))
        // The watches of Kubernetes.
        || parameters(content_type).any(|parameter| parameter.eq_ignore_ascii_case("stream=watch"))
        // Logs.
        || (essence.eq_ignore_ascii_case("text/plain") && length(headers).is_none())
}

/// The length of a response body, if known.
pub fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn is_call(content_type: &str) -> bool {
    let essence = essence(content_type);
    CALLS
        .iter()
        .any(|call| essence.get(..call.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(call)))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A media type without its parameters (RFC 9110 8.3.1).
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn parameters(media_type: &str) -> impl Iterator<Item = &str> {
    media_type.split(';').skip(1).map(str::trim)
}

/// Whether a query sets one of these: as Kubernetes reads it, to anything but `false` or `0`.
fn wants(names: &[String], query: &[u8]) -> bool {
    let mut pairs = query.split(|b| *b == b'&');
    pairs.any(|pair| {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        names.iter().any(|wanted| wanted.as_bytes() == name)
            && !value.eq_ignore_ascii_case(b"false")
            && value != b"0"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_stream_is_known_by_its_type_in_any_case() {
        for stream in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "application/x-ndjson",
            "APPLICATION/NDJSON",
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf; stream=watch",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpc",
            "application/connect+proto",
            "application/connect+json",
            "multipart/x-mixed-replace; boundary=x",
            "text/plain",
        ] {
            assert!(is_stream(&head(&[("content-type", stream)])), "{stream}");
        }
        for plain in ["", "application/json", "text/html", "application/connect", "text/plainer"] {
            assert!(!is_stream(&head(&[("content-type", plain)])), "{plain}");
        }
        let told = head(&[("content-type", "text/plain"), ("content-length", "12")]);
        assert!(!is_stream(&told));
        assert!(!is_stream(&HeaderMap::new()));
    }

    #[test]
    fn a_query_requests_a_stream_where_its_route_says_so() {
        let names = ["watch".to_owned(), "follow".to_owned()];
        for query in ["watch=true", "a=b&follow=1", "watch", "watch="] {
            assert!(wants(&names, query.as_bytes()), "{query}");
        }
        for query in ["", "watch=false", "watch=0", "watch=False", "watched=true", "a=watch"] {
            assert!(!wants(&names, query.as_bytes()), "{query}");
        }
        assert!(!wants(&[], b"watch=true"));
    }
}
