//! CORS headers, so that pages on other origins may read our responses (Fetch, CORS protocol).

use config::Cors;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// The response headers that a page may read besides the safelisted ones.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "retry-after, x-request-id, ratelimit, ratelimit-policy, x-ratelimit-limit, \
     x-ratelimit-remaining, x-ratelimit-reset, proxy-status, www-authenticate, grpc-status, \
     grpc-message, grpc-status-details-bin",
);
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Allows the page to read our response, if its origin is one of the listener's.
pub(crate) fn allow(headers: &mut HeaderMap, cors: &Cors, asked: &HeaderMap) {
    vary(headers, "Origin");
    let Some(origin) = origin(cors, asked) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if cors.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
}

/// The same for an upstream's response without CORS headers of its own. One that varies by origin has
/// considered this origin and refused it.
pub(crate) fn allow_of_upstream(headers: &mut HeaderMap, cors: &Cors, asked: &HeaderMap) {
    let speaks = headers.keys().any(|name| name.as_str().starts_with("access-control-"));
    if !speaks && !varies_by_origin(headers) && !asks_first(asked) {
        allow(headers, cors, asked);
    }
}

/// The headers of the response to a refused preflight: the page may send its request, so that it can read
/// the denial. `None` if it is not a preflight, or from another origin.
pub(crate) fn preflight(cors: &Cors, method: &Method, asked: &HeaderMap) -> Option<HeaderMap> {
    if *method != Method::OPTIONS || !asks_first(asked) {
        return None;
    }
    origin(cors, asked)?;
    let wanted = only(asked, &header::ACCESS_CONTROL_REQUEST_METHOD).filter(|v| is_list(v))?;
    let mut headers = HeaderMap::new();
    allow(&mut headers, cors, asked);
    headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
    if let Some(names) = only(asked, &header::ACCESS_CONTROL_REQUEST_HEADERS)
        && is_list(names)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    // The next preflight may be for the upstream.
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("0"));
    vary(&mut headers, "Access-Control-Request-Method, Access-Control-Request-Headers");
    Some(headers)
}

fn asks_first(asked: &HeaderMap) -> bool {
    asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The page's origin, if it is one of the listener's.
fn origin<'a>(cors: &Cors, asked: &'a HeaderMap) -> Option<&'a HeaderValue> {
    only(asked, &header::ORIGIN).filter(|origin| cors.allows(origin.as_bytes()))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether it contains only tokens (RFC 9110 5.6.2), so that it can be echoed.
fn is_list(value: &HeaderValue) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(b);
    value.len() <= 4096 && value.as_bytes().iter().all(plain)
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let mut names = lines.flat_map(|line| line.split(',')).map(str::trim);
    names.any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
}

fn vary(headers: &mut HeaderMap, by: &'static str) {
    headers.append(header::VARY, HeaderValue::from_static(by));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors() -> Cors {
        let origins = vec!["https://app.example".parse().unwrap()];
        Cors { origins, credentials: true }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        lines.iter().map(pair).for_each(|(name, value)| _ = headers.append(name, value));
        headers
    }

    #[test]
    fn only_the_listeners_origins_may_read_and_responses_vary_by_origin() {
        let allowed = |asked: &[(&'static str, &'static str)]| {
            let mut answer = HeaderMap::new();
            allow(&mut answer, &cors(), &headers(asked));
            assert_eq!(answer[header::VARY], "Origin");
            answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(allowed(&[("origin", "https://app.example")]).unwrap(), "https://app.example");
        assert_eq!(allowed(&[]), None);
        assert_eq!(allowed(&[("origin", "null")]), None);
        assert_eq!(allowed(&[("origin", "https://app.example.evil.example")]), None);
        let twice = [("origin", "https://app.example"), ("origin", "https://app.example")];
        assert_eq!(allowed(&twice), None);
    }

    #[test]
    fn cookies_are_for_those_who_may_have_them() {
        let asked = headers(&[("origin", "https://app.example")]);
        let mut answer = HeaderMap::new();
        allow(&mut answer, &Cors { credentials: false, ..cors() }, &asked);
        assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
    }

    #[test]
    fn an_upstreams_cors_headers_stay() {
        let asked = headers(&[("origin", "https://app.example")]);
        let check = |said: &[(&'static str, &'static str)], ours: bool| {
            let mut answer = headers(said);
            let before = answer.clone();
            allow_of_upstream(&mut answer, &cors(), &asked);
            let allowed = answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(allowed.is_some_and(|origin| origin == "https://app.example"), ours);
            assert_eq!(answer == before, !ours, "{said:?}");
        };
        check(&[], true);
        check(&[("vary", "accept-encoding")], true);
        check(&[("access-control-allow-origin", "https://other.example")], false);
        check(&[("access-control-allow-credentials", "false")], false);
        check(&[("vary", "accept-encoding, origin")], false);
        check(&[("vary", "accept-encoding"), ("vary", "Origin")], false);
        check(&[("vary", "*")], false);
    }

    #[test]
    fn a_refused_preflight_lets_the_page_send_its_request() {
        let asked = [
            ("origin", "https://app.example"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let of = |method: Method, asked: &[(&'static str, &'static str)]| {
            preflight(&cors(), &method, &headers(asked))
        };
        let answer = of(Method::OPTIONS, &asked).unwrap();
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_METHODS], "PUT");
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization,content-type");
        assert_eq!(answer[header::ACCESS_CONTROL_MAX_AGE], "0");
        assert!(of(Method::GET, &asked).is_none());
        assert!(of(Method::OPTIONS, &asked[..1]).is_none());
        assert!(of(Method::OPTIONS, &asked[1..]).is_none());
        let evil = [("origin", "https://evil.example"), asked[1]];
        assert!(of(Method::OPTIONS, &evil).is_none());
        let odd = [asked[0], ("access-control-request-method", "PUT\t<b>")];
        assert!(of(Method::OPTIONS, &odd).is_none());
    }
}
