//! Removes hop-by-hop headers of a request: those that `Connection` names (RFC 9110 7.6.1).
//!
//! Before the decision, so that upstreams get the request that was decided. And not by Pingora, which
//! rejects a client that names headers that we set.

use http::{HeaderName, header};
use pingora::http::RequestHeader;

/// No legitimate client names more.
const NAMED_MAX: usize = 100;
/// Without these the end of a request, or its host, would be unknown.
const PRESERVED: [HeaderName; 3] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Removes the headers that `Connection` names, except those that `is_reserved`: they identify the caller,
/// and no client may have them removed.
pub(crate) fn end(head: &mut RequestHeader, is_reserved: impl Fn(&HeaderName) -> bool) {
    if tokens(head).all(|token| word(token).is_some()) {
        return;
    }
    let left: Vec<&str> = tokens(head).filter_map(word).collect();
    let left = left.join(", ");
    let names = tokens(head).filter(|token| word(token).is_none()).take(NAMED_MAX);
    let names = names.filter_map(|token| HeaderName::from_bytes(token).ok());
    let named: Vec<HeaderName> =
        names.filter(|name| !PRESERVED.contains(name) && !is_reserved(name)).collect();
    for name in &named {
        head.remove_header(name);
    }
    head.remove_header(&header::CONNECTION);
    if !left.is_empty() {
        head.insert_header(header::CONNECTION, left).expect("words are plain");
    }
}

fn tokens(head: &RequestHeader) -> impl Iterator<Item = &[u8]> {
    let lines = head.headers.get_all(header::CONNECTION).iter();
    let tokens = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    tokens.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// A token about the connection itself.
fn word(token: &[u8]) -> Option<&'static str> {
    ["close", "keep-alive", "upgrade"]
        .into_iter()
        .find(|word| token.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(connection: &[&str], left: &[(&str, &str)]) {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for line in connection {
            head.append_header("Connection", *line).unwrap();
        }
        for name in ["Host", "Content-Length", "X-Mine", "X-Ours"] {
            head.append_header(name, "1").unwrap();
        }
        end(&mut head, |name| *name == "x-ours");
        let text = |v: &http::HeaderValue| v.to_str().unwrap().to_owned();
        let mut told: Vec<_> = head.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
        told.sort();
        let always = [("content-length", "1"), ("host", "1"), ("x-ours", "1")];
        let mut expected: Vec<_> =
            left.iter().chain(&always).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        expected.sort();
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_named_ends_here_and_what_is_ours_cannot_be_named() {
        let mine = ("x-mine", "1");
        check(&[], &[mine]);
        check(&["Close"], &[mine, ("connection", "Close")]);
        check(&["keep-alive, Upgrade"], &[mine, ("connection", "keep-alive, Upgrade")]);
        check(&["close, x-mine"], &[("connection", "close")]);
        check(&["X-MINE,,", "Close"], &[("connection", "close")]);
        check(&["x-mine"], &[]);
        check(&["Host, x-ours, content-length, :path, \"x-mine\""], &[mine]);
        let many = vec!["a"; 500].join(",");
        check(&[&many, "x-mine"], &[mine]);
    }
}
