//! Checks that a request head can be read in one way only, where h2 does not.

use http::{HeaderMap, header};
use pingora::{
    http::RequestHeader,
    protocols::http::authority::{
        RawTargetAuthority, raw_target_authority, validate_request_authority,
    },
};

use crate::data_plane::listener::HeadRefusal::{self, FramingAmbiguous, Malformed};

const AUTHORITY: HeadRefusal =
    Malformed("`:authority` and Host do not name one host, without a user, together");
const LENGTH: HeadRefusal = FramingAmbiguous("Content-Length is not one plain number");

/// Refuses what another server might read differently.
pub(super) fn check(request: &RequestHeader) -> Result<(), HeadRefusal> {
    let target = request.raw_path();
    if target.iter().any(|b| matches!(b, b'\0' | b'\n' | b'\r' | b' ')) {
        return Err(Malformed("the target has a character that no target may have"));
    }
    if !is_one_length(&request.headers) {
        return Err(LENGTH);
    }
    let says_whom = request.uri.authority().is_some() || request.headers.contains_key(header::HOST);
    if !says_whom || validate_request_authority(request).is_err() {
        return Err(AUTHORITY);
    }
    let is_connect = request.method == http::Method::CONNECT;
    if !is_connect && !matches!(raw_target_authority(target), RawTargetAuthority::None) {
        return Err(AUTHORITY);
    }
    Ok(())
}

/// Whether the length, if there is one, is one number (RFC 9110 8.6).
fn is_one_length(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let number = |text: &[u8]| -> Option<u64> {
        let text = text.trim_ascii();
        let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()
    };
    match lengths.next().map(number) {
        None => !headers.contains_key(header::TRANSFER_ENCODING),
        Some(None) => false,
        Some(one) => {
            lengths.all(|other| number(other) == one)
                && !headers.contains_key(header::TRANSFER_ENCODING)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<(), HeadRefusal> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.version(http::Version::HTTP_2).body(()).unwrap();
        check(&request.into_parts().0.into())
    }

    #[test]
    fn a_request_says_in_one_way_whom_it_is_for() {
        let check = |uri: &str, headers: &[(&str, &str)], expected| {
            assert_eq!(of("GET", uri, headers), expected, "{uri} {headers:?}");
        };
        check("https://a.example/x", &[], Ok(()));
        check("https://a.example/x", &[("host", "a.example")], Ok(()));
        check("/x", &[("host", "a.example")], Ok(()));
        check("/x", &[], Err(AUTHORITY));
        check("https://a.example/x", &[("host", "b.example")], Err(AUTHORITY));
        check("/x", &[("host", "a"), ("host", "a")], Err(AUTHORITY));
        check("/x", &[("host", "me@a.example")], Err(AUTHORITY));
        check("https://me@a.example/x", &[], Err(AUTHORITY));
        check("https://a.example//b.example/x", &[], Ok(()));
    }

    #[test]
    fn a_length_is_one_number() {
        let check = |lengths: &[&str], expected| {
            let headers: Vec<_> =
                lengths.iter().map(|length| ("content-length", *length)).collect();
            assert_eq!(of("POST", "https://a/x", &headers), expected, "{lengths:?}");
        };
        check(&[], Ok(()));
        check(&["5"], Ok(()));
        check(&["5", "5"], Ok(()));
        check(&["5, 5"], Ok(()));
        check(&["5, 6"], Err(LENGTH));
        check(&["5", "6"], Err(LENGTH));
        check(&["+5"], Err(LENGTH));
        check(&[""], Err(LENGTH));
        check(&["99999999999999999999"], Err(LENGTH));
    }
}
