//! A head with the host in its target (RFC 9112 3.2.2): that host counts, whatever `Host` is.
//!
//! So that every later reader sees the same host, it replaces `Host`, and a server gets a path as its
//! target.

use super::request_head::{Form, HeadRefusal};

/// The rewritten head, if it must change. `head` was checked.
///
/// # Errors
/// If the host in its target is invalid.
pub(super) fn settled(head: &[u8], form: Form) -> Result<Option<Vec<u8>>, HeadRefusal> {
    use HeadRefusal::Malformed;
    let end = memchr::memmem::find(head, b"\r\n").expect("a checked head has lines");
    let (line, lines) = (&head[..end], &head[end + 2..]);
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let Some(url) = Url::of(target).filter(|_| method != b"CONNECT") else { return Ok(None) };
    if form == Form::Proxy && host(lines).is_some_and(|host| host == url.authority) {
        return Ok(None);
    }
    if !is_authority(url.authority) {
        return Err(Malformed("the host in the URL is invalid"));
    }
    if form == Form::Origin && url.rest.contains(&b'#') {
        return Err(Malformed("the URL has a fragment"));
    }
    let mut settled = Vec::with_capacity(head.len() + url.authority.len() + 8);
    match (form, url.rest) {
        (Form::Proxy, _) => settled.extend_from_slice(line),
        (Form::Origin, rest) => {
            let before: &[u8] = match rest.first() {
                Some(b'/') => b"",
                None if method == b"OPTIONS" => b"*",
                _ => b"/",
            };
            settled.extend_from_slice(method);
            settled.push(b' ');
            settled.extend_from_slice(before);
            settled.extend_from_slice(rest);
            settled.push(b' ');
            settled.extend_from_slice(version);
        }
    }
    settled.extend_from_slice(b"\r\nHost: ");
    settled.extend_from_slice(url.authority);
    settled.extend_from_slice(b"\r\n");
    for line in split(lines).filter(|line| !is_host(line)) {
        settled.extend_from_slice(line);
    }
    Ok(Some(settled))
}

/// Whether a target is a URL of the web.
pub(super) fn is_url(target: &[u8]) -> bool {
    Url::of(target).is_some()
}

/// A parsed URL.
struct Url<'a> {
    authority: &'a [u8],
    /// From the path on.
    rest: &'a [u8],
}

impl<'a> Url<'a> {
    fn of(target: &'a [u8]) -> Option<Self> {
        if target.first() == Some(&b'/') {
            return None;
        }
        let after = |scheme: &[u8]| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let rest = after(b"http://").or_else(|| after(b"https://"))?;
        let end = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        Some(Self { authority, rest })
    }
}

/// Whether it is a host, with a port or without (RFC 9110 7.2). No user: two servers could each read
/// another host.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(b);
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|b| *b == b']') else { return false };
            let plain = |b: &u8| b.is_ascii_hexdigit() || b":.".contains(b);
            if end == 0 || !rest[..end].iter().all(plain) {
                return false;
            }
            (&b"ip"[..], &rest[end + 1..])
        }
        _ => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    !host.is_empty() && host.iter().all(plain) && filters::host::is_port(port)
}

/// Lines with their ends.
fn split(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split_inclusive(|b| *b == b'\n')
}

fn is_host(line: &[u8]) -> bool {
    line.split_at_checked(5).is_some_and(|(name, _)| name.eq_ignore_ascii_case(b"host:"))
}

fn host(lines: &[u8]) -> Option<&[u8]> {
    split(lines).find(|line| is_host(line)).map(|line| line[5..].trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_the_host() {
        let check = |form, head: &str, expected: Result<Option<&str>, &str>| {
            let lines = |text: &str| text.replace('~', "\r\n");
            let settled = settled(lines(head).as_bytes(), form);
            let settled = settled.map(|head| head.map(|head| String::from_utf8(head).unwrap()));
            let expected = expected.map(|head| head.map(lines));
            assert_eq!(settled.map_err(|refusal| refusal.row().2), expected, "{head}");
        };
        let (origin, proxy) = (Form::Origin, Form::Proxy);
        let none = "the host in the URL is invalid";
        check(origin, "GET /x HTTP/1.1~Host: a~~", Ok(None));
        check(origin, "GET /x?u=http://b/ HTTP/1.1~Host: a~~", Ok(None));
        check(origin, "OPTIONS * HTTP/1.1~Host: a~~", Ok(None));
        check(
            origin,
            "GET http://b:81/x?y HTTP/1.1~A: 1~Host: a~B: 2~~",
            Ok(Some("GET /x?y HTTP/1.1~Host: b:81~A: 1~B: 2~~")),
        );
        check(origin, "GET HTTPS://b HTTP/1.1~host:a~~", Ok(Some("GET / HTTP/1.1~Host: b~~")));
        check(origin, "GET http://b?y HTTP/1.0~~", Ok(Some("GET /?y HTTP/1.0~Host: b~~")));
        check(
            origin,
            "OPTIONS http://b HTTP/1.1~Host: b~~",
            Ok(Some("OPTIONS * HTTP/1.1~Host: b~~")),
        );
        check(origin, "GET http://b//c HTTP/1.1~Host: b~~", Ok(Some("GET //c HTTP/1.1~Host: b~~")));
        check(origin, "GET http://a@b/ HTTP/1.1~Host: b~~", Err(none));
        check(origin, "GET http://b:99999/ HTTP/1.1~Host: b~~", Err(none));
        check(origin, "GET http:///x HTTP/1.1~Host: b~~", Err(none));
        check(origin, "GET http://b\\@c/ HTTP/1.1~Host: b~~", Err(none));
        check(origin, "GET http://b/#c HTTP/1.1~Host: b~~", Err("the URL has a fragment"));
        check(proxy, "GET http://b/x HTTP/1.1~Host: b~~", Ok(None));
        check(proxy, "CONNECT b:443 HTTP/1.1~Host: a~~", Ok(None));
        check(proxy, "GET ftp://b/x HTTP/1.1~Host: a~~", Ok(None));
        check(
            proxy,
            "GET http://b:80/x HTTP/1.1~Host: b~A: 1~~",
            Ok(Some("GET http://b:80/x HTTP/1.1~Host: b:80~A: 1~~")),
        );
        check(proxy, "GET http://a@b/ HTTP/1.1~Host: b~~", Err(none));
    }

    #[test]
    fn a_host_may_have_a_port_that_is_one() {
        for good in
            ["a", "a.example", "a:80", "a:", "a:65535", "127.0.0.1:1", "[::1]", "[::1]:80", "a_b"]
        {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:99999",
            "a:65536",
            "a:123456",
            "a:abc",
            "a:-1",
            "a: 1",
            "a:80:80",
            "::1",
            "a b",
            "[::1",
            "[]",
            "[::1]x",
            "[::1%25lo]",
            "[a@b]",
            "a@b",
            "a/b",
            "a,b",
            "a:+80",
            "a:0x50",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
