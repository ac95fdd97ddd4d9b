//! The head of an HTTP/1 request, looked at before anything else reads it (RFC 9112).
//!
//! What two servers could read differently is refused here, so that whoever stands behind us sees
//! the request that we decided about.

/// Why a head never became a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRefusal {
    /// Not HTTP, or broken HTTP.
    Malformed(&'static str),
    /// Its length can be read in two ways.
    FramingAmbiguous(&'static str),
    /// Too many bytes or lines.
    TooLarge,
    /// Not complete in time.
    Timeout,
    /// A reverse listener is no tunnel.
    ConnectRefused,
    /// No place left for another connection.
    ConnectionsExhausted,
}

impl HeadRefusal {
    /// The status, the stable code and the sentence.
    pub fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Malformed(why) => (400, "head_malformed", why),
            Self::FramingAmbiguous(why) => (400, "framing_ambiguous", why),
            Self::TooLarge => (431, "head_too_large", "the head is too large"),
            Self::Timeout => (408, "head_timeout", "the head did not come in time"),
            Self::ConnectRefused => (400, "connect_refused", "this listener is no forward proxy"),
            Self::ConnectionsExhausted => {
                (503, "connections_exhausted", "too many connections at once")
            }
        }
    }
}

/// Where a head ends, if `bytes` hold all of it: after the first empty line.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    // A part of the empty line may have come before.
    let from = from.saturating_sub(3);
    let at = memchr::memmem::find(&bytes[from..], b"\r\n\r\n")?;
    Some(from + at + 4)
}

/// Checks a whole head, its empty line included.
pub(super) fn check(head: &[u8], headers_max: usize) -> Result<(), HeadRefusal> {
    let body = &head[..head.len() - 2];
    let mut lines = Lines(body);
    let version = request_line(lines.next().ok_or(HeadRefusal::Malformed("no request line"))??)?;
    let mut seen = Seen::default();
    let mut count = 0;
    for line in lines {
        count += 1;
        if count > headers_max {
            return Err(HeadRefusal::TooLarge);
        }
        header(line?, &mut seen)?;
    }
    seen.judge(version)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// Lines that end with CR LF and hold neither of the two elsewhere.
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

fn request_line(line: &[u8]) -> Result<Version, HeadRefusal> {
    use HeadRefusal::Malformed;
    if line == b"PRI * HTTP/2.0" {
        return Err(Malformed("HTTP/2 without TLS is not spoken here"));
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
    if method == b"CONNECT" {
        return Err(HeadRefusal::ConnectRefused);
    }
    let visible = target.iter().all(|b| (b'!'..=b'~').contains(b) || *b >= 0x80);
    let form = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
    if !visible || !form {
        return Err(Malformed("the target is not a path"));
    }
    Ok(version)
}

#[derive(Default)]
struct Seen {
    hosts: usize,
    lengths: usize,
    codings: usize,
    chunked: bool,
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
    if value.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
        return Err(Malformed("a header's value has a control character"));
    }
    let value = value.trim_ascii();
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => {
            seen.hosts += 1;
            let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(b);
            if value.is_empty() || !value.iter().all(plain) {
                return Err(Malformed("the host is not one"));
            }
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            seen.lengths += 1;
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            if !digits || value.len() > 18 {
                return Err(FramingAmbiguous("Content-Length is not a plain number"));
            }
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            seen.codings += 1;
            seen.chunked = value.eq_ignore_ascii_case(b"chunked");
            if !seen.chunked {
                return Err(FramingAmbiguous("Transfer-Encoding is not `chunked`"));
            }
        }
        _ => {}
    }
    Ok(())
}

impl Seen {
    fn judge(&self, version: Version) -> Result<(), HeadRefusal> {
        use HeadRefusal::{FramingAmbiguous, Malformed};
        if self.lengths > 1 {
            return Err(FramingAmbiguous("Content-Length stands twice"));
        }
        if self.codings > 1 {
            return Err(FramingAmbiguous("Transfer-Encoding stands twice"));
        }
        if self.codings > 0 && self.lengths > 0 {
            return Err(FramingAmbiguous("both Content-Length and Transfer-Encoding"));
        }
        if self.codings > 0 && version == Version::Http10 {
            return Err(FramingAmbiguous("HTTP/1.0 has no Transfer-Encoding"));
        }
        if self.hosts > 1 || (self.hosts == 0 && version == Version::Http11) {
            return Err(Malformed("there is not exactly one Host"));
        }
        Ok(())
    }
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(head: &str) -> Result<(), &'static str> {
        check(head.as_bytes(), 5).map_err(|refusal| refusal.row().1)
    }

    #[test]
    fn a_plain_head_passes() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a?b=c HTTP/1.1\r\nhost: a.example:8443\r\nAccept: */*\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
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
        check("GET http://a/ HTTP/1.1~Host: a~~", malformed);
        check("GET /\u{1} HTTP/1.1~Host: a~~", malformed);
        check("GET / HTTP/1.1~~", malformed);
        check("GET / HTTP/1.1~Host: a~Host: a~~", malformed);
        check("GET / HTTP/1.1~Host: a,b~~", malformed);
        check("GET / HTTP/1.1~Host: a/b~~", malformed);
        check("GET / HTTP/1.1~Host: a@b~~", malformed);
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
    fn the_end_is_found_wherever_the_bytes_were_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        for cut in 0..head.len() {
            let known = end(&head[..cut], 0);
            assert_eq!(known, (cut >= 27).then_some(27));
            assert_eq!(end(head, cut.min(26)), Some(27));
        }
    }
}
