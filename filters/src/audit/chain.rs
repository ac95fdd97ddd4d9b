//! The chain of records: each line holds a digest over the one before and its own bytes, so that none
//! can be changed, removed, or put between without all that follow telling.
//!
//! A line is a JSON object whose last member is `"chain"`: the SHA-256 of the previous line's digest
//! (32 bytes) and of the line's own bytes up to the comma before that member, in hex. The first line
//! of a segment continues the last of the segment before; the first of all continues 32 zero bytes.

use crate::types::{hex, sha256::Sha256};

/// The digest of a line and all before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link([u8; 32]);

/// A line taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// What the digest is about.
    pub body: &'a [u8],
    /// The digest that stands in it.
    pub link: Link,
}

const MEMBER: &[u8] = b",\"chain\":\"";
const HEX: usize = 64;

impl Link {
    /// Before the first line of all.
    pub const START: Self = Self([0; 32]);

    /// That of the next line, which begins with these bytes.
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
        out.extend_from_slice(hex::write(&link.0).as_bytes());
        out.extend_from_slice(b"\"}\n");
        link
    }
}

impl<'a> Sealed<'a> {
    /// Takes a line apart, without its line feed. `None` if it has no digest where one must be.
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
        // As anybody may compute it: printf '%064d' 0 | xxd -r -p; printf '{"id":"a"'; both through sha256sum.
        let first = Link::START.next(br#"{"id":"a""#);
        assert!(text.starts_with(&format!("{{\"id\":\"a\",\"chain\":\"{first}\"}}\n")));
        assert!(holds(&lines));
    }

    #[test]
    fn what_is_changed_removed_put_between_or_swapped_is_told() {
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
        // The end can be cut off unseen: that is what checkpoints kept elsewhere are for.
        assert!(holds(&lines[..2]));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_told(at in 0usize..200, bit in 0u8..8) {
            let mut lines = sealed(&[r#"{"n":1}"#, r#"{"n":2}"#]);
            let line = &mut lines[0];
            let at = at % (line.len() - 1);
            line[at] ^= 1 << bit;
            prop_assert!(!holds(&lines));
        }

        #[test]
        fn whatever_comes_nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sealed::of(&line);
        }
    }
}
