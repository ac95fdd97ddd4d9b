//! A head that we take is the head that httparse reads: to the same end, with the same method, target,
//! version and headers, and its body is framed as those headers say. `http` reads its target, too.

use bytes::BytesMut;
use httparse::{EMPTY_HEADER, Request, Status};

use super::{
    authority,
    request_head::{self, Body, Form, Head},
};

const HEADERS_MAX: usize = 100;

pub fn check(bytes: &[u8]) {
    for form in [Form::Origin, Form::Proxy] {
        if let Ok(Some(end)) = request_head::end(bytes, 0) {
            in_pieces(bytes, end);
            whole(&bytes[..end], form);
        }
    }
}

/// It ends at the same byte, however it comes.
fn in_pieces(bytes: &[u8], end: usize) {
    for cut in 0..end {
        assert_eq!(request_head::end(&bytes[..cut], 0), Ok(None), "complete after {cut} of {end}");
        // As the front goes on: it has looked at all that had come.
        assert_eq!(request_head::end(bytes, cut), Ok(Some(end)), "another end after {cut}");
    }
}

fn whole(text: &[u8], form: Form) {
    let Ok(body) = request_head::check(text, HEADERS_MAX, form) else { return };
    let Ok(settled) = authority::settled(text, form) else { return };
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut theirs = Request::new(&mut headers);
    assert_eq!(theirs.parse(text), Ok(Status::Complete(text.len())));

    let ours = Head::new(BytesMut::from(text));
    let target = theirs.path.expect("a target");
    assert_eq!(ours.target(), target.as_bytes());
    is_read(target);
    for header in &*theirs.headers {
        let values = |name: &str| -> Vec<&[u8]> {
            let same = theirs.headers.iter().filter(|other| other.name.eq_ignore_ascii_case(name));
            same.map(|header| header.value.trim_ascii()).collect()
        };
        assert_eq!(ours.values(header.name).collect::<Vec<_>>(), values(header.name));
    }
    framing(body, &theirs);
    if let Some(settled) = settled {
        in_settled_form(&settled, body, form);
    }
}

/// Pingora hands the path to `http`, without a fragment; what it would not read, it would refuse by itself and
/// nobody would put on record.
fn is_read(target: &str) {
    let whole = target.split('#').next().unwrap_or_default();
    let path = match whole.split_once("://") {
        Some((_, rest)) if !whole.starts_with('/') => {
            rest.find(['/', '?']).map_or("", |at| &rest[at..])
        }
        _ => whole,
    };
    if path.starts_with(['/', '?']) || path == "*" {
        http::Uri::builder().path_and_query(path).build().expect("a path to what reads it next");
    }
}

/// RFC 9112 6.3, from the headers that httparse read.
fn framing(body: Body, head: &Request<'_, '_>) {
    let all = |name: &str| -> Vec<&[u8]> {
        let same = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        same.map(|header| header.value.trim_ascii()).collect()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    assert!(all("host").len() == 1 || (head.version == Some(0) && all("host").is_empty()));
    let length = match lengths[..] {
        [] => 0,
        [one] => str::from_utf8(one).unwrap().parse::<u64>().expect("a plain number"),
        _ => panic!("{} lengths", lengths.len()),
    };
    match body {
        Body::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && head.version == Some(1));
            assert!(codings[0].eq_ignore_ascii_case(b"chunked"));
        }
        Body::Length(ours) => assert!(ours == length && codings.is_empty()),
        Body::Upgrade => assert!(length == 0 && codings.is_empty() && !all("upgrade").is_empty()),
        Body::Tunnel => {
            assert!(length == 0 && codings.is_empty() && head.method == Some("CONNECT"))
        }
    }
}

/// What we pass on in the place of a head is a head of the same body, with the one host that its target
/// named, and nothing is left to settle.
fn in_settled_form(text: &[u8], body: Body, form: Form) {
    assert_eq!(request_head::end(text, 0), Ok(Some(text.len())));
    assert_eq!(request_head::check(text, HEADERS_MAX + 1, form), Ok(body));
    assert_eq!(authority::settled(text, form), Ok(None));
    assert_eq!(Head::new(BytesMut::from(text)).values("host").count(), 1);
}
