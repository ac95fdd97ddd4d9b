//! Redacts a response as its parts arrive, whatever its media type.
//!
//! What a client may parse as JSON is parsed here first: what cannot be parsed is not forwarded. Clients
//! ignore the media type: `fetch().json()` parses JSON in `text/plain` and `text/html` alike.

use bytes::Bytes;

use super::{NotJson, redact};

/// How much of a response is buffered to be parsed: a whole JSON text, or one line of several. Anything
/// longer is refused.
pub const BUFFER_MAX: usize = 8 << 20;

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// How a response is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As one JSON text.
    Json,
    /// A JSON text on each line.
    Lines,
    /// Events, with a JSON text in their data (`text/event-stream`).
    Events,
    /// By its first character: JSON, or something that cannot be parsed as JSON.
    Sniffed,
}

impl Kind {
    /// The kind of a response with this `Content-Type`; `None` if no client parses it as JSON.
    pub fn of(content_type: Option<&str>) -> Option<Self> {
        let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let kind = kind.trim().to_ascii_lowercase();
        let media = ["image/", "audio/", "video/", "font/"];
        Some(match &*kind {
            "application/json" | "text/json" | "application/x-json" | "text/x-json" => Self::Json,
            kind if kind.ends_with("+json") => Self::Json,
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
            | "application/json-lines"
            | "application/json-seq"
            | "application/stream+json" => Self::Lines,
            "text/event-stream" => Self::Events,
            // An SVG is text.
            kind if media.iter().any(|media| kind.starts_with(media)) && !kind.contains("svg") => {
                return None;
            }
            _ => Self::Sniffed,
        })
    }
}

/// The redactor of one response.
#[derive(Debug)]
pub struct Redactor {
    reads: Reads,
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    As(Kind),
    /// Only white space so far.
    Nothing,
    /// It begins like JSON, and may be lines of it.
    Likely,
    /// It is not JSON.
    Passes,
}

impl Redactor {
    /// A redactor for a response of this kind.
    pub fn new(kind: Kind) -> Self {
        let reads = if kind == Kind::Sniffed { Reads::Nothing } else { Reads::As(kind) };
        Self { reads, held: Vec::new() }
    }

    /// Takes the next part; returns what may be forwarded.
    ///
    /// # Errors
    /// [`NotJson`] if it should be JSON and cannot be parsed, or is too long.
    pub fn part(&mut self, part: Bytes, ends: bool, names: &[String]) -> Result<Bytes, NotJson> {
        if self.reads == Reads::Passes {
            return Ok(part);
        }
        self.held.extend_from_slice(&part);
        if self.reads == Reads::Nothing {
            self.reads = sniffed(&self.held);
        }
        let left = match self.reads {
            Reads::Passes => std::mem::take(&mut self.held),
            Reads::As(Kind::Lines) => self.lines(ends, |line, out| json_line(line, names, out))?,
            Reads::As(Kind::Events) => {
                self.lines(ends, |line, out| event_line(line, names, out))?
            }
            _ if ends => self.whole(names)?,
            _ => Vec::new(),
        };
        if self.held.len() > BUFFER_MAX {
            return Err(NotJson);
        }
        Ok(left.into())
    }

    fn whole(&mut self, names: &[String]) -> Result<Vec<u8>, NotJson> {
        let held = std::mem::take(&mut self.held);
        // A response to HEAD has no body, and neither have some others.
        if held.len() > BUFFER_MAX {
            return Err(NotJson);
        }
        if held.iter().all(u8::is_ascii_whitespace) {
            return Ok(held);
        }
        match redact(&held, names) {
            Ok(kept) => Ok(kept.into_owned()),
            Err(NotJson) if self.reads == Reads::Likely => {
                self.held = held;
                self.lines(true, |line, out| json_line(line, names, out))
            }
            Err(NotJson) => Err(NotJson),
        }
    }

    /// Takes the complete lines.
    fn lines(
        &mut self,
        ends: bool,
        mut line: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), NotJson>,
    ) -> Result<Vec<u8>, NotJson> {
        let is_end = |b: &u8| matches!(b, b'\n' | b'\r');
        let whole = match self.held.iter().rposition(is_end) {
            _ if ends => self.held.len(),
            Some(last) => last + 1,
            None => return Ok(Vec::new()),
        };
        let mut out = Vec::with_capacity(whole);
        for one in self.held[..whole].split_inclusive(is_end) {
            let end = one.iter().rposition(|b| !is_end(b)).map_or(0, |last| last + 1);
            line(&one[..end], &mut out)?;
            out.extend_from_slice(&one[end..]);
        }
        self.held.drain(..whole);
        Ok(out)
    }
}

/// How to parse a response with this beginning.
fn sniffed(held: &[u8]) -> Reads {
    if MARK.starts_with(held) {
        return Reads::Nothing;
    }
    let text = held.strip_prefix(MARK).unwrap_or(held);
    match text.iter().find(|b| !b.is_ascii_whitespace()) {
        None => Reads::Nothing,
        // In an encoding other than UTF-8, a JSON text begins with such bytes.
        Some(0 | 0xfe | 0xff) => Reads::As(Kind::Json),
        Some(b'{' | b'[') => Reads::Likely,
        Some(_) => Reads::Passes,
    }
}

fn json_line(line: &[u8], names: &[String], out: &mut Vec<u8>) -> Result<(), NotJson> {
    // Each text of a JSON text sequence (RFC 7464) begins with this.
    let text = line.strip_prefix(b"\x1e").unwrap_or(line);
    out.extend_from_slice(&line[..line.len() - text.len()]);
    if !text.iter().all(u8::is_ascii_whitespace) {
        out.extend_from_slice(&redact(text, names)?);
    }
    Ok(())
}

fn event_line(line: &[u8], names: &[String], out: &mut Vec<u8>) -> Result<(), NotJson> {
    // Clients ignore a byte order mark before the first line.
    let field = line.strip_prefix(MARK).unwrap_or(line);
    let text = field.strip_prefix(b"data:").map(<[u8]>::trim_ascii_start);
    let Some(text) = text.filter(|text| matches!(text.first(), Some(b'{' | b'['))) else {
        out.extend_from_slice(line);
        return Ok(());
    };
    out.extend_from_slice(&line[..line.len() - text.len()]);
    out.extend_from_slice(&redact(text, names)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is forwarded of a response in parts of this length.
    fn left(kind: &str, text: &str, length: usize) -> Result<String, NotJson> {
        let Some(kind) = Kind::of(Some(kind)) else { return Ok(text.to_owned()) };
        let mut redactor = Redactor::new(kind);
        let mut out = Vec::new();
        for part in text.as_bytes().chunks(length) {
            out.extend(redactor.part(
                Bytes::copy_from_slice(part),
                false,
                &["secret".to_owned()],
            )?);
        }
        out.extend(redactor.part(Bytes::new(), true, &["secret".to_owned()])?);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn json_is_redacted_whatever_its_media_type() {
        let check = |kind: &str, text: &str, expected: Option<&str>| {
            for length in [1, 7, 1000] {
                let left = left(kind, text, length);
                assert_eq!(left.ok().as_deref(), expected, "{kind} {text} by {length}");
            }
        };
        let (json, cut) = (r#"{"a":1,"secret":2}"#, Some(r#"{"a":1}"#));
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "text/json",
            "text/plain",
            "",
            "text/html",
            "application/problem+json",
            "application/octet-stream",
            "application/javascript",
            "image/svg+xml",
        ] {
            check(kind, json, cut);
            check(kind, &json[..10], None);
        }
        check("text/plain", "\u{feff}{\"secret\":2}", None);
        check("text/plain", "{\0\"\0s\0", None);
        check("text/plain", "ok", Some("ok"));
        check("text/html", "<p>{\"secret\":2}</p>", Some("<p>{\"secret\":2}</p>"));
        check("application/json", "", Some(""));
        check("text/plain", " \n", Some(" \n"));
        check("image/png", "{\"secret\":2}", Some("{\"secret\":2}"));
    }

    #[test]
    fn lines_and_events_are_redacted_as_they_arrive() {
        let lines = "{\"secret\":1,\"a\":2}\r\n\n[{\"secret\":1}]";
        for kind in ["application/x-ndjson", "application/jsonl", "text/plain"] {
            let all = left(kind, lines, 5).unwrap();
            assert_eq!(all, "{\"a\":2}\r\n\n[{}]", "{kind}");
        }
        assert_eq!(
            left("application/json-seq", "\u{1e}{\"secret\":1}\n", 3).unwrap(),
            "\u{1e}{}\n"
        );
        assert_eq!(left("application/x-ndjson", "{\"a\":1}\n{\"b\"\n", 5), Err(NotJson));
        let events = "event: a\ndata: {\"secret\":1}\rdata:[{\"secret\":1}]\n\ndata: plain\n\n";
        let kept = "event: a\ndata: {}\rdata:[{}]\n\ndata: plain\n\n";
        assert_eq!(left("text/event-stream", events, 4).unwrap(), kept);
        assert_eq!(left("text/event-stream", "data: {\ndata: \"secret\":1}\n\n", 4), Err(NotJson));
        // Clients ignore a byte order mark before the first event.
        for length in [1, 2, 4, 100] {
            let marked = left("text/event-stream", "\u{feff}data: {\"secret\":1}\n\n", length);
            assert_eq!(marked.unwrap(), "\u{feff}data: {}\n\n");
        }
        let mut redactor = Redactor::new(Kind::Lines);
        let first = redactor.part(Bytes::from_static(b"{\"a\":1}\n{\"b"), false, &[]).unwrap();
        assert_eq!(first, &b"{\"a\":1}\n"[..], "a line waits for the next");
    }

    #[test]
    fn what_is_too_long_to_be_read_does_not_pass() {
        let long = Bytes::from(vec![b'['; BUFFER_MAX + 1]);
        for kind in [Kind::Json, Kind::Lines, Kind::Sniffed] {
            assert_eq!(
                Redactor::new(kind).part(long.clone(), false, &[]),
                Err(NotJson),
                "{kind:?}"
            );
        }
        let plain = Bytes::from(vec![b'x'; BUFFER_MAX + 1]);
        assert!(Redactor::new(Kind::Sniffed).part(plain, false, &[]).is_ok());
    }

    proptest! {
        #[test]
        fn the_split_of_a_response_makes_no_difference(text in "[{}\\[\\]\":,a secret\n]{0,40}", length in 1usize..9) {
            for kind in ["application/json", "application/x-ndjson", "text/plain"] {
                let (whole, parts) = (left(kind, &text, 1000), left(kind, &text, length));
                prop_assert_eq!(whole.is_ok(), parts.is_ok());
                if let (Ok(whole), Ok(parts)) = (whole, parts) {
                    prop_assert_eq!(whole, parts);
                }
            }
        }
    }
}
