//! The chain of records: each line holds a digest over the previous one and its own bytes, so that changing,
//! removing or inserting a line breaks every line after it.
//!
//! A line is a JSON object whose last member is `"chain"`: the SHA-256 of the previous line's digest (32
//! bytes) and of the line's own bytes up to the comma before that member, in hex. The first line of a
//! segment continues the last line of the previous segment; the very first continues 32 zero bytes.

use crate::types::{hex, sha256::Sha256};

/// The digest of a line and of all lines before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link([u8; 32]);

/// A parsed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The bytes that the digest covers.
    pub body: &'a [u8],
    /// The digest in the line.
    pub link: Link,
}

const MEMBER: &[u8] = b",\"chain\":\"";
const HEX: usize = 64;

impl Link {
    /// Before the first line of all.
    pub const START: Self = Self([0; 32]);

    /// The digest of the next line, which begins with these bytes.
    #[must_use]
    pub fn next(&self, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(&self.0);
        digest.update(body);
        Self(digest.finish())
    }

    /// Its bytes, for a signature.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From hex in lower case.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        hex::read(text).map(Self)
    }

    /// Seals a line that ends with `}` and a line feed: its digest becomes its last member.
    #[must_use]
    pub fn seal(&self, line: &[u8], out: &mut Vec<u8>) -> Self {
        let body = line.strip_suffix(b"}\n").expect("a record is an object on a line");
        let link = self.next(body);
        out.reserve(line.len() + MEMBER.len() + HEX + 3);
        out.extend_from_slice(body);
        out.extend_from_slice(MEMBER);
        hex::append(&link.0, out);
        out.extend_from_slice(b"\"}\n");
        link
    }
}

impl<'a> Sealed<'a> {
    /// Parses a line without its line feed. `None` if it has no digest where one must be.
    pub fn of(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_suffix(b"\"}")?;
        let (rest, hex) = rest.split_at_checked(rest.len().checked_sub(HEX)?)?;
        let body = rest.strip_suffix(MEMBER)?;
        Some(Self { body, link: Link::from_hex(hex)? })
    }

    /// Whether it follows a line with this digest.
    pub fn follows(&self, last: &Link) -> bool {
        last.next(self.body) == self.link
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::write(&self.0))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(lines: &[&str]) -> Vec<Vec<u8>> {
        let mut last = Link::START;
        let seal = |line: &&str| {
            let mut out = Vec::new();
            last = last.seal(format!("{line}\n").as_bytes(), &mut out);
            out
        };
        lines.iter().map(seal).collect()
    }

    /// Whether all lines follow each other from the first on.
    fn holds(lines: &[Vec<u8>]) -> bool {
        let mut last = Link::START;
        lines.iter().all(|line| {
            let line = Sealed::of(line.strip_suffix(b"\n").unwrap_or(line));
            line.is_some_and(|line| {
                let follows = line.follows(&last);
                last = line.link;
                follows
            })
        })
    }

    #[test]
    fn a_line_stays_json_and_holds_its_digest() {
        let lines = sealed(&[r#"{"id":"a"}"#, r#"{"id":"b"}"#]);
        let text = String::from_utf8(lines.concat()).unwrap();
        for line in text.lines() {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["chain"].as_str().map(str::len), Some(64), "{line}");
        }
        // To compute it by hand: printf '%064d' 0 | xxd -r -p; printf '{"id":"a"'; both through sha256sum.
        let first = Link::START.next(br#"{"id":"a""#);
        assert!(text.starts_with(&format!("{{\"id\":\"a\",\"chain\":\"{first}\"}}\n")));
        assert!(holds(&lines));
    }

    #[test]
    fn a_changed_removed_inserted_or_swapped_line_is_reported() {
        let lines = sealed(&[r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#, r#"{"n":4}"#]);
        let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat();
        assert!(!holds(&without(0)) && !holds(&without(1)));
        let mut swapped = lines.clone();
        swapped.swap(1, 2);
        assert!(!holds(&swapped));
        let twice = [&lines[..2], &lines[1..]].concat();
        assert!(!holds(&twice));
        let other = sealed(&[r#"{"n":9}"#]);
        assert!(!holds(&[&lines[..1], &other[..], &lines[1..]].concat()));
        // Cutting off the end goes unnoticed: checkpoints stored elsewhere are for that.
        assert!(holds(&lines[..2]));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_reported(at in 0usize..200, bit in 0u8..8) {
            let mut lines = sealed(&[r#"{"n":1}"#, r#"{"n":2}"#]);
            let line = &mut lines[0];
            let at = at % (line.len() - 1);
            line[at] ^= 1 << bit;
            prop_assert!(!holds(&lines));
        }

        #[test]
        fn no_input_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sealed::of(&line);
        }
    }
}
