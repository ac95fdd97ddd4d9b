//! Which parts of a response head are forwarded (RFC 9110, 9112, 9113): its framing is made unambiguous or
//! refused, and hop-by-hop fields are removed.

pub mod coalesce;
pub mod deadline;
pub mod fallback;
pub mod progress;
pub mod proxy_status;
pub mod redact;
pub mod redirect;
pub mod streams;
pub mod url_rewrite;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, response::Parts};
use smallvec::SmallVec;

/// What matters of the request that the response is for.
#[derive(Clone, Copy, Debug)]
pub struct RequestTraits {
    /// It requested an upgrade to WebSocket, which was forwarded to the upstream.
    pub websocket: bool,
    /// Its client can receive trailers: it speaks HTTP/2.
    pub trailers: bool,
    /// How many interim responses preceded this one.
    pub interim: u32,
}

/// More interim responses (1xx) than this are a flood.
const INTERIM_MAX: u32 = 16;
/// No legitimate `Connection` has more names than this.
const NOMINATED_MAX: usize = 32;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");

/// Meant for the next hop, which we are (RFC 9110 7.6.1, 11.7).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    PROXY_AUTHENTICATION_INFO,
    header::TE,
    header::UPGRADE,
];

/// Normalizes a response head so that it can be read in one way only.
///
/// # Errors
/// Why the response is not forwarded, as the end of "the response of upstream `x` is refused:
/// ...".
pub fn settle(parts: &mut Parts, asked: RequestTraits) -> Result<(), &'static str> {
    let status = parts.status;
    if status.is_informational() {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            switched(&parts.headers, asked)?;
        } else if asked.interim >= INTERIM_MAX {
            return Err("more than 16 interim responses (1xx)");
        }
    }
    framing(parts)?;
    hop_by_hop(&mut parts.headers, status)?;
    if !(asked.trailers && parts.version == Version::HTTP_2) {
        // They are not forwarded.
        parts.headers.remove(header::TRAILER);
    }
    // The next hop gets our version, not the upstream's.
    if parts.version < Version::HTTP_11 {
        parts.version = Version::HTTP_11;
    }
    Ok(())
}

/// Whether the upstream switched to the requested protocol.
fn switched(headers: &HeaderMap, asked: RequestTraits) -> Result<(), &'static str> {
    if !asked.websocket {
        return Err("it switches protocols (101), which the request did not ask for");
    }
    let mut names = headers.get_all(header::UPGRADE).iter();
    match (names.next(), names.next()) {
        (Some(name), None) if name.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket") => {
            Ok(())
        }
        _ => Err("it switches to a protocol (101) other than `websocket`"),
    }
}

/// Checks that it has one length, or chunks, or neither.
fn framing(parts: &mut Parts) -> Result<(), &'static str> {
    let (status, headers) = (parts.status, &mut parts.headers);
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next().map(HeaderValue::as_bytes);
    let identity = coding.is_some_and(|coding| coding.eq_ignore_ascii_case(b"identity"));
    let known = coding.is_none_or(|coding| identity || coding.eq_ignore_ascii_case(b"chunked"));
    if !known || codings.next().is_some() {
        return Err("its Transfer-Encoding is not `chunked`");
    }
    let chunked = coding.is_some() && !identity;
    if identity {
        // A length next to it was discarded when the head was read: only the end of the connection ends the
        // body.
        if parts.version > Version::HTTP_10 && !closes(headers) {
            return Err("its Transfer-Encoding is `identity`, and its connection stays open");
        }
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
    }
    let length = length(headers)?;
    let no_content = status.is_informational() || status == StatusCode::NO_CONTENT;
    if no_content || chunked {
        headers.remove(header::CONTENT_LENGTH);
    } else if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    if no_content || status == StatusCode::NOT_MODIFIED {
        headers.remove(header::TRANSFER_ENCODING);
    }
    Ok(())
}

/// Whether the connection closes after the response.
fn closes(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// The normalized length, if it is not one plain number: a repeated equal value counts once (RFC 9110 8.6).
fn length(headers: &HeaderMap) -> Result<Option<HeaderValue>, &'static str> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let plain = |text: &[u8]| (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let second = lines.next();
    if second.is_none() && plain(first.as_bytes()) {
        return Ok(None);
    }
    let all = [Some(first), second].into_iter().flatten().chain(lines);
    let mut numbers = all.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let one = numbers.next().unwrap_or_default().trim_ascii();
    if !plain(one) {
        return Err("its Content-Length is not a plain number");
    }
    let same = |other: &[u8]| {
        let zeros = |text: &[u8]| text.iter().position(|b| *b != b'0').unwrap_or(text.len());
        let other = other.trim_ascii();
        plain(other) && one[zeros(one)..] == other[zeros(other)..]
    };
    if !numbers.all(same) {
        return Err("its Content-Lengths differ");
    }
    Ok(HeaderValue::from_bytes(one).ok())
}

/// Removes hop-by-hop fields: the known ones, and those that `Connection` names.
fn hop_by_hop(headers: &mut HeaderMap, status: StatusCode) -> Result<(), &'static str> {
    let mut nominated = SmallVec::<[HeaderName; 4]>::new();
    for line in headers.get_all(header::CONNECTION) {
        for name in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let known = [&b""[..], b"close", b"keep-alive", b"upgrade"];
            if known.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                continue;
            }
            if nominated.len() == NOMINATED_MAX {
                return Err("its Connection names more than 32 headers");
            }
            let name = HeaderName::from_bytes(name).map_err(|_| "its Connection is malformed")?;
            // It must not remove the framing.
            if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
                nominated.push(name);
            }
        }
    }
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(())
}

/// Removes from trailers the fields that must not be there (RFC 9110 6.5.1): a recipient might merge them
/// into the head, which was acted on long before.
pub fn settle_trailers(trailers: &mut HeaderMap, ours: impl Fn(&HeaderName) -> bool) {
    const NEVER: [HeaderName; 19] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_LOCATION,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::HOST,
        header::LINK,
        header::LOCATION,
        header::RANGE,
        header::REFRESH,
        header::RETRY_AFTER,
        header::SET_COOKIE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::WWW_AUTHENTICATE,
    ];
    let gone = |name: &&HeaderName| {
        NEVER.contains(name)
            || HOP_BY_HOP.contains(name)
            || name.as_str().starts_with("access-control-")
            || ours(name)
    };
    let gone: SmallVec<[HeaderName; 4]> = trailers.keys().filter(gone).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RequestTraits = RequestTraits { websocket: false, trailers: false, interim: 0 };

    fn parts(status: u16, lines: &[(&str, &str)]) -> Parts {
        let mut parts = http::Response::new(()).into_parts().0;
        parts.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            parts.headers.append(name, value.parse().unwrap());
        }
        parts
    }

    /// The settled head of a response, or why it is refused.
    fn left(
        status: u16,
        asked: RequestTraits,
        lines: &[(&str, &str)],
    ) -> Result<String, &'static str> {
        let mut parts = parts(status, lines);
        settle(&mut parts, asked)?;
        let lines = parts.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        Ok(lines.join("; "))
    }

    #[test]
    fn framing_is_made_right_or_refused() {
        let check = |status: u16, lines: &[(&str, &str)], expected: Result<&str, &'static str>| {
            let found = left(status, PLAIN, lines);
            assert_eq!(found.as_deref().map_err(|why| *why), expected, "{status} {lines:?}");
        };
        let (cl, te) = ("content-length", "transfer-encoding");
        check(200, &[(cl, "5")], Ok("content-length: 5"));
        check(200, &[(cl, "5"), (cl, "5")], Ok("content-length: 5"));
        check(200, &[(cl, "5, 5"), (cl, "05")], Ok("content-length: 5"));
        check(200, &[(cl, "5"), (cl, "6")], Err("its Content-Lengths differ"));
        check(200, &[(cl, "5, 6")], Err("its Content-Lengths differ"));
        check(200, &[(cl, "5,")], Err("its Content-Lengths differ"));
        for odd in ["+5", "-5", "5 5", "0x5", "", "five", "1000000000000000000000"] {
            check(200, &[(cl, odd)], Err("its Content-Length is not a plain number"));
        }
        check(200, &[(te, "chunked")], Ok("transfer-encoding: chunked"));
        check(200, &[(te, "Chunked"), (cl, "5")], Ok("transfer-encoding: Chunked"));
        check(200, &[(te, "identity"), ("connection", "x, Close"), (cl, "5")], Ok(""));
        let open = Err("its Transfer-Encoding is `identity`, and its connection stays open");
        check(200, &[(te, "identity")], open);
        let cow = Err("its Transfer-Encoding is not `chunked`");
        for odd in ["cow", "gzip, chunked", "chunked, chunked", "chunked, identity", "", "xchunked"]
        {
            check(200, &[(te, odd)], cow);
        }
        check(200, &[(te, "chunked"), (te, "chunked")], cow);
        check(200, &[(te, "identity"), (te, "chunked")], cow);
        check(204, &[(cl, "5"), (te, "chunked")], Ok(""));
        check(103, &[(cl, "5"), ("link", "</a>")], Ok("link: </a>"));
        check(304, &[(cl, "5")], Ok("content-length: 5"));
        check(304, &[(te, "chunked")], Ok(""));
    }

    #[test]
    fn what_was_for_us_goes() {
        let lines = [
            ("connection", "close, X-Mine"),
            ("connection", "upgrade,content-length"),
            ("x-mine", "a"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("content-length", "5"),
            ("etag", "a"),
        ];
        assert_eq!(left(200, PLAIN, &lines).unwrap(), "content-length: 5; etag: a");
        let many = "a,".repeat(40);
        assert!(left(200, PLAIN, &[("connection", &many)]).is_err());
        assert!(left(200, PLAIN, &[("connection", "a b")]).is_err());
    }

    #[test]
    fn an_upgrade_to_another_protocol_than_requested_is_refused() {
        let asked = RequestTraits { websocket: true, ..PLAIN };
        let lines = [("connection", "Upgrade"), ("upgrade", "WebSocket"), ("x", "a")];
        let left = |asked, lines: &[_]| left(101, asked, lines);
        assert_eq!(left(asked, &lines).unwrap(), "connection: Upgrade; upgrade: websocket; x: a");
        assert!(left(PLAIN, &lines).is_err());
        assert!(left(asked, &[("upgrade", "h2c")]).is_err());
        assert!(left(asked, &[("upgrade", "websocket, h2c")]).is_err());
        assert!(left(asked, &[]).is_err());
    }

    #[test]
    fn interim_responses_are_bounded() {
        assert!(left(103, RequestTraits { interim: 15, ..PLAIN }, &[]).is_ok());
        assert!(left(103, RequestTraits { interim: 16, ..PLAIN }, &[]).is_err());
    }

    #[test]
    fn trailers_cannot_set_framing_or_identity() {
        let names = ["grpc-status", "x-sum", "content-length", "set-cookie", "x-orbit-user-id"];
        let mut trailers: HeaderMap = names
            .map(|name| (HeaderName::from_static(name), "1".parse().unwrap()))
            .into_iter()
            .collect();
        settle_trailers(&mut trailers, |name| name.as_str().starts_with("x-orbit-"));
        let mut kept: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["grpc-status", "x-sum"]);
    }
}
