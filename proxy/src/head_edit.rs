//! Edits request and response heads.
//!
//! Pingora's own edits preserve the spelling of every name in a second map, which costs more than the header
//! itself. Names are case-insensitive (RFC 9110 5.1), so a head that we edit loses the spelling.

use http::{request, response};
use pingora::http::{RequestHeader, ResponseHeader};

/// Edits a request's head.
pub(crate) fn edit_request<T>(
    head: &mut RequestHeader,
    edit: impl FnOnce(&mut request::Parts) -> T,
) -> T {
    let ends = head.send_end_stream();
    let uri = head.uri.path_and_query().map_or("/", |target| target.as_str());
    // A target that is not a URI is stored separately.
    let raw = (head.raw_path() != uri.as_bytes()).then(|| head.raw_path().to_vec());
    let nothing = http::Request::new(()).into_parts().0;
    let mut parts = request::Parts::from(std::mem::replace(head, nothing.into()));
    let before = parts.uri.clone();
    let result = edit(&mut parts);
    let same = parts.uri == before;
    *head = parts.into();
    if let Some(raw) = raw.filter(|_| same) {
        head.set_raw_path(&raw).expect("it was a target before");
    }
    if let Some(ends) = ends {
        head.set_send_end_stream(ends);
    }
    result
}

/// Edits a response head.
pub(crate) fn edit_response<T>(
    head: &mut ResponseHeader,
    edit: impl FnOnce(&mut response::Parts) -> T,
) -> T {
    let own = |reason: &&str| Some(*reason) != head.status.canonical_reason();
    let reason = head.get_reason_phrase().filter(own).map(str::to_owned);
    let nothing = http::Response::new(()).into_parts().0;
    let mut parts = response::Parts::from(std::mem::replace(head, nothing.into()));
    let result = edit(&mut parts);
    *head = parts.into();
    if reason.is_some() {
        head.set_reason_phrase(reason.as_deref()).expect("it was a reason before");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_edited_stays() {
        let mut head = RequestHeader::build("POST", b"/a?b=c", None).unwrap();
        head.set_version(http::Version::HTTP_2);
        head.set_send_end_stream(false);
        head.append_header("X-One", "1").unwrap();
        head.append_header("X-One", "2").unwrap();
        edit_request(&mut head, |parts| parts.headers.insert("x-two", "3".parse().unwrap()));
        assert_eq!((head.method.as_str(), head.raw_path()), ("POST", &b"/a?b=c"[..]));
        assert_eq!(head.send_end_stream(), Some(false));
        let values: Vec<_> = head.headers.values().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(values, ["1", "2", "3"]);

        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        head.set_raw_path(b"/a?\xff").unwrap();
        edit_request(&mut head, |_| ());
        assert_eq!(head.raw_path(), b"/a?\xff");
        edit_request(&mut head, |parts| parts.uri = "/b".parse().unwrap());
        assert_eq!(head.raw_path(), b"/b");

        let mut head = ResponseHeader::build(200, None).unwrap();
        head.set_reason_phrase(Some("Fine")).unwrap();
        edit_response(&mut head, |_| ());
        assert_eq!((head.status.as_u16(), head.get_reason_phrase()), (200, Some("Fine")));
    }
}
