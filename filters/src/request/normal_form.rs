//! The one normal form of a path. What could be read in two ways is refused.
//!
//! Routes are matched on the normal form and upstreams get the normal form, so that no upstream can read a
//! path differently from how it was matched (RFC 3986 6.2.2).

mod foreign;

use std::{borrow::Cow, sync::Arc};

use smallvec::SmallVec;

use crate::Denial;

/// A path in normal form: begins with `/`, unreserved characters unescaped, escapes in capitals,
/// no empty or dot segments, no escaped slash unless it says so. A clone is the same text, not a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath {
    text: Arc<str>,
    changed: bool,
    encoded_slash: bool,
    foreign: Option<&'static str>,
}

impl NormalPath {
    /// The normal form of `path` (without query), as in the request line.
    ///
    /// # Errors
    /// [`Denial::PathAmbiguous`] for a path that some server could read in another way: an escaped backslash
    /// or NUL, a dot segment in any spelling, an empty segment, a path parameter (`;`), an escaped percent
    /// sign (except in double escapes as in the names of Jenkins' branches), bytes that are not ASCII.
    /// Characters that browsers send unescaped although RFC 3986 requires an escape are escaped.
    pub fn of(path: &[u8]) -> Result<Self, Denial> {
        let refuse = |why| Err(Denial::PathAmbiguous { why });
        if path.first() != Some(&b'/') {
            return refuse("it does not begin with a slash");
        }
        let mut normal: SmallVec<[u8; 256]> = SmallVec::with_capacity(path.len());
        let mut encoded_slash = false;
        let mut is_ascii = true;
        let mut rest = path;
        while let [byte, after @ ..] = rest {
            rest = after;
            match byte {
                b'%' => {
                    let Some(byte) = escaped(after) else {
                        return refuse("a percent sign is not followed by two hex digits");
                    };
                    rest = &after[2..];
                    match byte {
                        b'/' => {
                            encoded_slash = true;
                            normal.extend_from_slice(b"%2F");
                        }
                        b'\\' => return refuse("an escaped backslash"),
                        b'%' => {
                            let inner = &after[2..];
                            if !may_be_escaped_twice(inner) {
                                return refuse("an escaped percent sign");
                            }
                            rest = &inner[2..];
                            encoded_slash = true;
                            // As received: after one decoding they are text.
                            normal.extend_from_slice(b"%25");
                            normal.extend_from_slice(&inner[..2]);
                        }
                        b';' => return refuse("an escaped semicolon"),
                        0..=0x1f | 0x7f => return refuse("an escaped control character"),
                        b if is_unreserved(b) => normal.push(b),
                        b => {
                            is_ascii &= b.is_ascii();
                            normal.extend_from_slice(&[b'%', hex(b >> 4), hex(b & 15)]);
                        }
                    }
                }
                b'\\' => return refuse("a backslash"),
                b';' => return refuse("a semicolon"),
                b if is_unreserved(*b) || b"/!$&'()*+,=:@".contains(b) => normal.push(*b),
                b if b"\"<>[]^`{|}".contains(b) => {
                    normal.extend_from_slice(&[b'%', hex(*b >> 4), hex(*b & 15)]);
                }
                _ => return refuse("a character that a path cannot have"),
            }
        }
        let Ok(text) = std::str::from_utf8(&normal) else {
            return refuse("a character that a path cannot have");
        };
        for segment in segments_with_last(text) {
            match segment {
                (".", _) | ("..", _) => return refuse("a dot segment"),
                ("", false) => return refuse("an empty segment"),
                _ => {}
            }
            // `..%2F` is a dot segment to a server that decodes the slash first.
            if encoded_slash {
                let once = segment.0.replace("%252F", "%2F").replace("%252f", "%2F");
                if once.split("%2F").any(|part| matches!(part, "." | ".." | "")) {
                    return refuse("a dot segment beside an escaped slash");
                }
            }
        }
        let changed = text.as_bytes() != path;
        let foreign = if is_ascii { None } else { foreign::fault(text) };
        Ok(Self { text: text.into(), changed, encoded_slash, foreign })
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the path was received in another form.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Whether a segment has an escaped slash or a double escape: only some routes accept that.
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// Why some servers may read it differently; only some routes accept that.
    pub fn foreign(&self) -> Option<&'static str> {
        self.foreign
    }

    /// Refuses it if the upstream may read it differently than we do, unless the route accepts that.
    ///
    /// # Errors
    /// [`Denial::PathAmbiguous`].
    pub fn fits(&self, encoded_slashes: bool, any_bytes: bool) -> Result<(), Denial> {
        if self.has_encoded_slash() && !encoded_slashes {
            return Err(Denial::PathAmbiguous { why: "an escaped slash or a double escape" });
        }
        match self.foreign() {
            Some(why) if !any_bytes => Err(Denial::PathAmbiguous { why }),
            _ => Ok(()),
        }
    }

    /// The segments, without the empty one after a trailing slash.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        segments(&self.text)
    }
}

/// The segments of a path in normal form. A trailing slash counts as an empty last segment; the
/// root has none.
pub(crate) fn segments(path: &str) -> impl Iterator<Item = &str> {
    let inner = &path[1..];
    let count = if inner.is_empty() { 0 } else { usize::MAX };
    inner.split('/').take(count)
}

fn segments_with_last(path: &str) -> impl Iterator<Item = (&str, bool)> {
    let end = path.len();
    let mut at = 0;
    segments(path).map(move |segment| {
        at += 1 + segment.len();
        (segment, at == end)
    })
}

/// The percent-decoded form of one query or path component; invalid escapes stay.
pub(crate) fn decoded(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    let escaped_space = plus_is_space && text.contains('+');
    if !escaped_space && !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, escaped(after)) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn escaped(after: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(*after.first()?)? << 4 | digit(*after.get(1)?)?)
}

/// Whether this may follow an escaped percent sign: an escaped slash, or another character that must be
/// escaped in a path. Letters and dots are escaped twice only to hide them.
fn may_be_escaped_twice(after: &[u8]) -> bool {
    let hides = |b: u8| is_unreserved(b) || b.is_ascii_control() || b"\\%;".contains(&b);
    escaped(after).is_some_and(|byte| !hides(byte))
}

fn hex(nibble: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(nibble)]
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> Option<String> {
        NormalPath::of(path.as_bytes()).ok().map(|p| p.text.to_string())
    }

    #[test]
    fn a_path_has_one_normal_form() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(normal(path).as_deref(), expected, "{path}");
        };
        check("/", Some("/"));
        check("/v1/services", Some("/v1/services"));
        check("/v1/%61dmin", Some("/v1/admin"));
        check("/a%3ab", Some("/a%3Ab"));
        check("/a/", Some("/a/"));
        check("/a%20b", Some("/a%20b"));
        check("/a%2fb", Some("/a%2Fb"));
        check("/caf%C3%A9", Some("/caf%C3%A9"));
        check("", None);
        check("a", None);
        check("*", None);
        check("//a", None);
        check("/a//b", None);
        check("/a/../b", None);
        check("/a/%2e%2E/b", None);
        check("/a/.%2e", None);
        check("/a/..", None);
        check("/./a", None);
        check("/a/..%2fb", None);
        check("/a\\b", None);
        check("/a%5cb", None);
        check("/a%00", None);
        check("/a%2561", None);
        check("/job/folder%2ffeature%252fx/7", Some("/job/folder%2Ffeature%252fx/7"));
        check("/job/a%2520b%2523c%25e4", Some("/job/a%2520b%2523c%25e4"));
        check("/job/..%252fx", None);
        check("/job/%252e%252e%252fx", None);
        check("/job/a%2f%252fb", None);
        check("/job/a%252f", None);
        for hides in ["/a%25252f", "/a%255cb", "/a%253bb", "/a%2500", "/a%252e", "/a%25", "/a%252"]
        {
            check(hides, None);
        }
        check("/a%zz", None);
        check("/a%2", None);
        check("/a;b=c", None);
        check("/a%3bb", None);
        check("/caf\u{e9}", None);
        check("/a b", None);
        check("/a#b", None);
        check("/a|b[c]^d", Some("/a%7Cb%5Bc%5D%5Ed"));
        check("/a\"b<c>`{}", Some("/a%22b%3Cc%3E%60%7B%7D"));
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(path in "/[a-z%0-9A-F./;~|-]{0,24}") {
            if let Ok(first) = NormalPath::of(path.as_bytes()) {
                let again = NormalPath::of(first.as_str().as_bytes()).unwrap();
                prop_assert_eq!(again.as_str(), first.as_str());
                prop_assert!(!again.changed());
            }
        }

        #[test]
        fn no_input_panics(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = NormalPath::of(&path);
        }
    }
}
