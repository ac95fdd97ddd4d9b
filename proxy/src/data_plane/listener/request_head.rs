//! Checks the head of an HTTP/1 request before anything else reads it (RFC 9112).
//!
//! What two servers could read differently is refused here, so that every upstream sees the request that we
//! decided.

use bytes::BytesMut;
use filters::head::is_websocket;

use super::authority;

/// Why a head never became a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRefusal {
    /// Not HTTP, or broken HTTP.
    Malformed(&'static str),
    /// Its length can be read in two ways.
    FramingAmbiguous(&'static str),
    /// The part of its body that was received with it is malformed.
    BodyMalformed(&'static str),
    /// Too many bytes or lines.
    TooLarge,
    /// Not complete in time.
    Timeout,
    /// A reverse listener is no tunnel.
    ConnectRefused,
    /// The peer is not a load balancer that may send the PROXY protocol.
    ProxyHeaderRefused,
    /// A connection does not begin with a header of the PROXY protocol.
    ProxyHeaderMissing,
    /// That header is broken.
    ProxyHeaderMalformed(&'static str),
    /// The connection limit is reached.
    ConnectionsExhausted,
    /// The TLS handshake was not complete in time.
    HandshakeTimeout,
    /// Too many TLS handshakes that are not complete.
    HandshakesExhausted,
}

impl HeadRefusal {
    /// The status, the stable code and the sentence.
    pub fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Malformed(why) => (400, "head_malformed", why),
            Self::FramingAmbiguous(why) => (400, "framing_ambiguous", why),
            Self::BodyMalformed(why) => (400, "body_malformed", why),
            Self::TooLarge => (431, "head_too_large", "the head is too large"),
            Self::Timeout => (408, "head_timeout", "the head did not arrive in time"),
            Self::ConnectRefused => {
                (400, "connect_refused", "this listener is not a forward proxy")
            }
            Self::ProxyHeaderRefused => {
                (403, "proxy_header_refused", "this listener accepts only its load balancers")
            }
            Self::ProxyHeaderMissing => {
                (400, "proxy_header_missing", "the connection has no PROXY protocol header")
            }
            Self::ProxyHeaderMalformed(why) => (400, "proxy_header_malformed", why),
            Self::ConnectionsExhausted => {
                (503, "connections_exhausted", "too many concurrent connections")
            }
            Self::HandshakeTimeout => {
                (408, "handshake_timeout", "the TLS handshake did not complete in time")
            }
            Self::HandshakesExhausted => {
                (503, "handshakes_exhausted", "too many TLS handshakes in progress")
            }
        }
    }
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes; 0 if the head declares no body.
    Length(u64),
    /// Chunked.
    Chunked,
    /// None, and if the upstream agrees, the connection is upgraded.
    Upgrade,
    /// None, and what follows belongs to a tunnel.
    Tunnel,
}

/// The target form that a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Paths (RFC 9112 3.2.1), also in URLs.
    Origin,
    /// Tunnels, and URLs (RFC 9112 3.2.2, 3.2.3).
    Proxy,
}

/// A whole head that was checked.
pub struct Head(BytesMut);

impl Head {
    pub(super) fn new(bytes: BytesMut) -> Self {
        Self(bytes)
    }

    /// The request target, as received.
    pub fn target(&self) -> &[u8] {
        self.0[..].split(|b| *b == b' ').nth(1).unwrap_or_default()
    }

    /// The values of a header, as received.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = Lines(&self.0[..self.0.len() - 2]).skip(1).filter_map(Result::ok);
        lines.filter_map(move |line| {
            let (own, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            own.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }
}

/// Where a head ends, if `bytes` contain all of it: after the first empty line. The bytes before `from` have
/// been checked.
///
/// # Errors
/// If it cannot become a head, whatever follows.
pub(super) fn end(bytes: &[u8], from: usize) -> Result<Option<usize>, HeadRefusal> {
    use HeadRefusal::Malformed;
    // Half of an empty line before it.
    if bytes == b"\r" {
        return Ok(None);
    }
    // Such as TLS on a listener without it.
    if bytes.first().is_some_and(|b| !is_token(*b)) {
        return Err(Malformed("this does not begin like HTTP"));
    }
    for at in memchr::memchr_iter(b'\n', &bytes[from..]) {
        let before = &bytes[..from + at];
        if before.last() != Some(&b'\r') {
            return Err(Malformed("a line does not end with CR LF"));
        }
        if before.ends_with(b"\r\n\r") {
            return Ok(Some(before.len() + 1));
        }
    }
    Ok(None)
}

/// Checks a whole head, including its empty line; returns how the body is delimited.
///
/// # Errors
/// Why the head is refused.
pub(super) fn check(head: &[u8], headers_max: usize, form: Form) -> Result<Body, HeadRefusal> {
    let body = &head[..head.len() - 2];
    let mut lines = Lines(body);
    let line = lines.next().ok_or(HeadRefusal::Malformed("no request line"))??;
    let version = request_line(line, form)?;
    let mut seen = Seen::default();
    let mut count = 0;
    for line in lines {
        count += 1;
        if count > headers_max {
            return Err(HeadRefusal::TooLarge);
        }
        header(line?, &mut seen)?;
    }
    let body = seen.judge(version)?;
    if !line.starts_with(b"CONNECT ") {
        return Ok(body);
    }
    match body {
        Body::Length(0) | Body::Upgrade => Ok(Body::Tunnel),
        // Where would the body end, and the tunnel begin (RFC 9110 9.3.6)?
        _ => Err(HeadRefusal::FramingAmbiguous("a CONNECT has a body")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// Lines that end with CR LF and contain neither elsewhere.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], HeadRefusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let broken = Some(Err(HeadRefusal::Malformed("a line does not end with CR LF")));
        let Some(at) = memchr::memchr2(b'\r', b'\n', self.0) else { return broken };
        let (line, rest) = self.0.split_at(at);
        let Some(rest) = rest.strip_prefix(b"\r\n") else { return broken };
        self.0 = rest;
        Some(Ok(line))
    }
}

fn request_line(line: &[u8], form: Form) -> Result<Version, HeadRefusal> {
    use HeadRefusal::Malformed;
    if line == b"PRI * HTTP/2.0" {
        return Err(Malformed("HTTP/2 without TLS is not supported here"));
    }
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed("the request line is not `METHOD target HTTP/1.1`"));
    };
    if method.is_empty() || method.len() > 32 || !method.iter().all(|b| is_token(*b)) {
        return Err(Malformed("the method is not a token"));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(Malformed("the version is not HTTP/1.1")),
    };
    if method == b"CONNECT" && form == Form::Origin {
        return Err(HeadRefusal::ConnectRefused);
    }
    if target.is_empty() {
        return Err(Malformed("there is no target"));
    }
    let visible = none(target, |b| b <= b' ' || b == 0x7f);
    if !visible {
        return Err(Malformed("the target has a character that no target may have"));
    }
    if str::from_utf8(target).is_err() || !is_uri(target) {
        return Err(Malformed("the target has a character that must be percent-encoded"));
    }
    let path = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
    match form {
        Form::Origin if !path && !authority::is_url(target) => {
            Err(Malformed("the target is not a path"))
        }
        // The client takes us for the server itself.
        Form::Proxy if path => Err(Malformed("this listener is a forward proxy")),
        _ => Ok(version),
    }
}

/// Whether Pingora can parse the target: otherwise it would respond by itself, without a record.
fn is_uri(target: &[u8]) -> bool {
    if none(target, |b| matches!(b, b'<' | b'>' | b'`' | b'"')) {
        return true;
    }
    let query = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(query);
    none(path, |b| matches!(b, b'<' | b'>' | b'`'))
        && none(query, |b| matches!(b, b'<' | b'>' | b'"'))
}

#[derive(Default)]
struct Seen {
    hosts: usize,
    lengths: usize,
    length: u64,
    codings: usize,
    websocket: bool,
}

fn header(line: &[u8], seen: &mut Seen) -> Result<(), HeadRefusal> {
    use HeadRefusal::{FramingAmbiguous, Malformed};
    if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        return Err(Malformed("a header is folded over two lines"));
    }
    let colon = memchr::memchr(b':', line).ok_or(Malformed("a header has no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(Malformed("a header's name is not a token"));
    }
    if !none(value, |b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(Malformed("a header's value has a control character"));
    }
    let value = value.trim_ascii();
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => {
            seen.hosts += 1;
            if !authority::is_authority(value) {
                return Err(Malformed("the host is invalid"));
            }
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            seen.lengths += 1;
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            // Eighteen digits cannot overflow.
            if !digits || value.len() > 18 {
                return Err(FramingAmbiguous("Content-Length is not a plain number"));
            }
            let number = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
            seen.length = value.iter().fold(0, number);
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            seen.codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FramingAmbiguous("Transfer-Encoding is not `chunked`"));
            }
        }
        // Pingora forwards no other upgrade.
        7 if name.eq_ignore_ascii_case(b"upgrade") => {
            seen.websocket |= value.split(|b| *b == b',').any(is_websocket);
        }
        _ => {}
    }
    Ok(())
}

impl Seen {
    fn judge(&self, version: Version) -> Result<Body, HeadRefusal> {
        use HeadRefusal::{FramingAmbiguous, Malformed};
        if self.lengths > 1 {
            return Err(FramingAmbiguous("Content-Length is repeated"));
        }
        if self.codings > 1 {
            return Err(FramingAmbiguous("Transfer-Encoding is repeated"));
        }
        if self.codings > 0 && self.lengths > 0 {
            return Err(FramingAmbiguous("both Content-Length and Transfer-Encoding"));
        }
        if self.codings > 0 && version == Version::Http10 {
            return Err(FramingAmbiguous("HTTP/1.0 does not have Transfer-Encoding"));
        }
        if self.hosts > 1 || (self.hosts == 0 && version == Version::Http11) {
            return Err(Malformed("there is not exactly one Host"));
        }
        let body = if self.codings > 0 { Body::Chunked } else { Body::Length(self.length) };
        match body {
            _ if !self.websocket || version == Version::Http10 => Ok(body),
            Body::Length(0) => Ok(Body::Upgrade),
            // Where would the body end, and the other protocol begin?
            _ => Err(FramingAmbiguous("an upgrade has a body")),
        }
    }
}

/// Whether no byte is of a kind. No early exit, so that the compiler compares many bytes at a time.
fn none(bytes: &[u8], kind: impl Fn(u8) -> bool) -> bool {
    !bytes.iter().fold(false, |found, b| found | kind(*b))
}

/// RFC 9110 5.6.2. A table, because it is used for every byte of every name.
pub(super) fn is_token(b: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut at = 0;
        while at < 128 {
            table[at] = (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(b)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(head: &str) -> Result<(), &'static str> {
        body(head).map(drop)
    }

    fn body(head: &str) -> Result<Body, &'static str> {
        check(head.as_bytes(), 5, Form::Origin).map_err(|refusal| refusal.row().1)
    }

    #[test]
    fn a_plain_head_passes() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a?b=c HTTP/1.1\r\nhost: a.example:8443\r\nAccept: */*\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:a\r\nX-Empty:\r\nX-Utf8: \u{e4}\r\n\r\n",
        ] {
            assert_eq!(code(head), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused() {
        let check = |head: &str, expected: &'static str| {
            let head = head.replace('~', "\r\n");
            assert_eq!(code(&head), Err(expected), "{head:?}");
        };
        let malformed = "head_malformed";
        check("GET /~~", malformed);
        check("GET  / HTTP/1.1~Host: a~~", malformed);
        check(" GET / HTTP/1.1~Host: a~~", malformed);
        check("GET / HTTP/1.1 ~Host: a~~", malformed);
        check("GET\t/ HTTP/1.1~Host: a~~", malformed);
        check("GET / HTTP/1.2~Host: a~~", malformed);
        check("GET / http/1.1~Host: a~~", malformed);
        check("GET / HTTP/2.0~Host: a~~", malformed);
        check("PRI * HTTP/2.0~~", malformed);
        check("G(T / HTTP/1.1~Host: a~~", malformed);
        check("GET a HTTP/1.1~Host: a~~", malformed);
        check("GET * HTTP/1.1~Host: a~~", malformed);
        check("GET ftp://a/ HTTP/1.1~Host: a~~", malformed);
        check("GET http:/a/ HTTP/1.1~Host: a~~", malformed);
        check("GET /\u{1} HTTP/1.1~Host: a~~", malformed);
        check("GET / HTTP/1.1~~", malformed);
        check("GET / HTTP/1.1~Host: a~Host: a~~", malformed);
        check("GET / HTTP/1.1~Host: a,b~~", malformed);
        check("GET / HTTP/1.1~Host: a/b~~", malformed);
        check("GET / HTTP/1.1~Host: a@b~~", malformed);
        check("GET / HTTP/1.1~Host: a:99999~~", malformed);
        check("GET / HTTP/1.1~Host: a:abc~~", malformed);
        check("GET / HTTP/1.1~Host: a:80:80~~", malformed);
        check("GET / HTTP/1.1~Host:~~", malformed);
        check("GET / HTTP/1.1~Host : a~~", malformed);
        check("GET / HTTP/1.1~Host: a~ folded~~", malformed);
        check("GET / HTTP/1.1~Host: a~\tfolded~~", malformed);
        check("GET / HTTP/1.1~Host: a~no colon~~", malformed);
        check("GET / HTTP/1.1~Host: a~: x~~", malformed);
        check("GET / HTTP/1.1~Host: a~X: a\u{0}b~~", malformed);
        check("GET / HTTP/1.1~Host: a~X: a\rb~~", malformed);
        check("GET / HTTP/1.1~Host: a~X: a\nY: b~~", malformed);
        check("GET / HTTP/1.1\nHost: a~~", malformed);
        check("GET / HTTP/1.1~Host: a~X\u{e4}: a~~", malformed);
        check("CONNECT a:443 HTTP/1.1~Host: a~~", "connect_refused");
        let framing = "framing_ambiguous";
        let post = |headers: &str| format!("POST / HTTP/1.1~Host: a~{headers}~~");
        check(&post("Content-Length: 5~Content-Length: 5"), framing);
        check(&post("Content-Length: 5~content-length: 6"), framing);
        check(&post("Content-Length: 5, 5"), framing);
        check(&post("Content-Length: +5"), framing);
        check(&post("Content-Length: -5"), framing);
        check(&post("Content-Length: 0x5"), framing);
        check(&post("Content-Length: 5 5"), framing);
        check(&post("Content-Length:"), framing);
        check(&post("Content-Length: 5;"), framing);
        check(&post("Content-Length: 99999999999999999999"), framing);
        check(&post("Transfer-Encoding: chunked~Content-Length: 5"), framing);
        check(&post("Transfer-Encoding: chunked~Transfer-Encoding: chunked"), framing);
        check(&post("Transfer-Encoding: gzip, chunked"), framing);
        check(&post("Transfer-Encoding: xchunked"), framing);
        check(&post("Transfer-Encoding: identity"), framing);
        check(&post("Transfer-Encoding: \"chunked\""), framing);
        check(&post("Transfer-Encoding:"), framing);
        check("POST / HTTP/1.0~Host: a~Transfer-Encoding: chunked~~", framing);
        check("GET / HTTP/1.1~Host: a~a: 1~b: 2~c: 3~d: 4~e: 5~~", "head_too_large");
    }

    #[test]
    fn a_head_determines_how_its_body_is_delimited() {
        let check = |headers: &str, expected: Result<Body, &'static str>| {
            let head = format!("POST / HTTP/1.1~Host: a~{headers}~").replace('~', "\r\n");
            assert_eq!(body(&head), expected, "{head:?}");
        };
        check("", Ok(Body::Length(0)));
        check("Content-Length: 007~", Ok(Body::Length(7)));
        check("Content-Length: 999999999999999999~", Ok(Body::Length(999_999_999_999_999_999)));
        check("Transfer-Encoding: chunked~", Ok(Body::Chunked));
        check("Upgrade: WebSocket~", Ok(Body::Upgrade));
        check("Upgrade: websocket~Content-Length: 0~", Ok(Body::Upgrade));
        check("Upgrade: websocket~Content-Length: 1~", Err("framing_ambiguous"));
        check("Upgrade: websocket~Transfer-Encoding: chunked~", Err("framing_ambiguous"));
        // Java's client offers this on every plain request.
        check("Upgrade: h2c~Content-Length: 1~", Ok(Body::Length(1)));
        check("Upgrade: h2c, WebSocket~", Ok(Body::Upgrade));
        assert_eq!(body("GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n"), Ok(Body::Length(0)));
    }

    #[test]
    fn a_forward_proxy_accepts_tunnels_and_urls() {
        let check = |head: &str, expected: Result<Body, &'static str>| {
            let head = head.replace('~', "\r\n");
            let body = check(head.as_bytes(), 5, Form::Proxy).map_err(|refusal| refusal.row().1);
            assert_eq!(body, expected, "{head:?}");
        };
        check("CONNECT a.example:443 HTTP/1.1~Host: a.example:443~~", Ok(Body::Tunnel));
        check("CONNECT a:443 HTTP/1.1~Host: a:443~Upgrade: websocket~~", Ok(Body::Tunnel));
        check("CONNECT a:443 HTTP/1.1~Host: a~Content-Length: 0~~", Ok(Body::Tunnel));
        check("CONNECT a:443 HTTP/1.1~Host: a~Content-Length: 1~~", Err("framing_ambiguous"));
        check(
            "CONNECT a:443 HTTP/1.1~Host: a~Transfer-Encoding: chunked~~",
            Err("framing_ambiguous"),
        );
        check("GET http://a.example/x HTTP/1.1~Host: a.example~~", Ok(Body::Length(0)));
        check("GET http://b.example HTTP/1.1~Host: a.example~~", Ok(Body::Length(0)));
        check("GET /x HTTP/1.1~Host: a~~", Err("head_malformed"));
        check("OPTIONS * HTTP/1.1~Host: a~~", Err("head_malformed"));
        check("GET  HTTP/1.1~Host: a~~", Err("head_malformed"));
    }

    #[test]
    fn a_target_is_one_to_pingora_too() {
        for byte in (0x21..0x7f).filter(|b| *b != b'#') {
            for target in [format!("/a{}b", byte as char), format!("/?a{}b", byte as char)] {
                let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
                let passes = check(head.as_bytes(), 5, Form::Origin).is_ok();
                let read = pingora::http::RequestHeader::build("GET", target.as_bytes(), None);
                assert_eq!(passes, read.is_ok(), "{target}");
            }
        }
        // What reads the head after us is httparse, to which a target is UTF-8.
        for (target, passes) in
            [(&b"/caf\xc3\xa9"[..], true), (b"/caf\xe9", false), (b"/?\xff", false)]
        {
            let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let ours = check(&head, 5, Form::Origin).is_ok();
            assert_eq!(ours, passes, "{}", target.escape_ascii());
        }
    }

    #[test]
    fn a_head_returns_its_target_and_its_values() {
        let head = "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nX: 1\r\nHOST:  b \r\nHosts: c\r\n\r\n";
        let head = Head::new(head.as_bytes().into());
        assert_eq!(head.target(), b"a:1");
        assert_eq!(head.values("host").collect::<Vec<_>>(), [&b"a:1"[..], b"b"]);
    }

    #[test]
    fn the_end_is_found_wherever_the_bytes_were_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n";
        for cut in 0..head.len() {
            assert_eq!(end(&head[..cut], 0), Ok((cut >= 27).then_some(27)));
            assert_eq!(end(head, cut.min(26)), Ok(Some(27)));
        }
    }

    #[test]
    fn what_cannot_become_a_head_is_not_waited_for() {
        for begun in
            ["\x16\x03\x01\x02", "\r\n", " GET", "\0", "GET / HTTP/1.1\n", "GET /\r\nA: b\n"]
        {
            assert!(end(begun.as_bytes(), 0).is_err(), "{begun:?}");
        }
    }
}
