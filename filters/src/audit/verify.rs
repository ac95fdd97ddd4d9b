//! Whether anything in the segments of a folder was changed, removed or put between.
//!
//! The segments of one process follow each other. The first of a process goes on from what it found:
//! a line of the process before, which is nearly always its last.

use std::collections::{HashMap, HashSet};

use super::chain::{Link, Sealed};

/// Goes through segments, oldest first.
#[derive(Debug)]
pub struct Verifier {
    /// Lines that a segment goes on from, and that were not seen yet.
    wanted: HashSet<Link>,
    /// The last line of each process.
    last: HashMap<String, Link>,
    run: String,
    link: Link,
    /// What was found so far.
    pub counted: Counted,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Segments.
    pub segments: u64,
    /// Lines, the first of each segment too.
    pub lines: u64,
    /// Intents of actions.
    pub intents: u64,
    /// Records that were lost, as the log itself says.
    pub lost: u64,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has no digest.
    NotSealed,
    /// Its digest is not that of the line before and of what it says.
    NotNext,
    /// A segment does not begin as one.
    NoBeginning,
    /// A segment of its process that came before is not there, or ends too early.
    Missing,
}

/// The first line of a segment.
#[derive(Debug)]
pub struct Beginning {
    run: String,
    previous: Link,
}

#[derive(serde::Deserialize)]
struct Read {
    kind: String,
    #[serde(default)]
    run: String,
    #[serde(default)]
    previous: String,
    #[serde(default)]
    lost: u64,
}

impl Beginning {
    /// Reads a line, without its line feed.
    ///
    /// # Errors
    /// [`Fault::NoBeginning`].
    pub fn of(line: &[u8]) -> Result<Self, Fault> {
        let read: Read = serde_json::from_slice(line).map_err(|_| Fault::NoBeginning)?;
        let previous = Link::from_hex(read.previous.as_bytes());
        let previous = previous.filter(|_| read.kind == "segment").ok_or(Fault::NoBeginning)?;
        Ok(Self { run: read.run, previous })
    }
}

impl Verifier {
    /// `beginnings` are those of all segments, oldest first. What the first goes on from may have
    /// been removed long ago, as old segments are.
    pub fn new<'a>(beginnings: impl Iterator<Item = &'a Beginning>) -> Self {
        let mut previous = beginnings.map(|beginning| beginning.previous);
        let oldest = previous.next().unwrap_or(Link::START);
        let wanted = previous.filter(|link| ![Link::START, oldest].contains(link)).collect();
        Self {
            wanted,
            last: HashMap::new(),
            run: String::new(),
            link: oldest,
            counted: Counted::default(),
        }
    }

    /// Goes on with another segment.
    ///
    /// # Errors
    /// [`Fault::Missing`] if it does not follow the last of its process.
    pub fn begin(&mut self, beginning: &Beginning) -> Result<(), Fault> {
        self.last.insert(std::mem::take(&mut self.run), self.link);
        if self.last.get(&beginning.run).is_some_and(|last| *last != beginning.previous) {
            return Err(Fault::Missing);
        }
        self.run.clone_from(&beginning.run);
        self.link = beginning.previous;
        self.counted.segments += 1;
        Ok(())
    }

    /// Takes the next line, without its line feed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let sealed = Sealed::of(line).ok_or(Fault::NotSealed)?;
        if !sealed.follows(&self.link) {
            return Err(Fault::NotNext);
        }
        self.link = sealed.link;
        self.counted.lines += 1;
        if !self.wanted.is_empty() {
            self.wanted.remove(&self.link);
        }
        if line.starts_with(b"{\"kind\":\"intent\"") {
            self.counted.intents += 1;
        } else if line.starts_with(b"{\"kind\":\"gap\"") {
            self.counted.lost += serde_json::from_slice::<Read>(line).map_or(0, |read| read.lost);
        }
        Ok(())
    }

    /// Whether the last line has this digest.
    pub fn is_at(&self, link: &Link) -> bool {
        self.link == *link
    }

    /// The digest of the last line.
    pub fn last(&self) -> Link {
        self.link
    }

    /// Whether nothing is there that a segment goes on from, once all were gone through.
    pub fn is_missing_before(&self, beginning: &Beginning) -> bool {
        self.wanted.contains(&beginning.previous)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotSealed => "the line has no digest",
            Self::NotNext => "the line was changed, or something before it was removed or put in",
            Self::NoBeginning => "the segment does not begin as one",
            Self::Missing => "something that this goes on from is not there",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Now;

    /// A segment of a process, and its last digest.
    fn segment(run: &str, previous: Link, records: usize) -> (Vec<Vec<u8>>, Link) {
        let (mut lines, mut link) = (Vec::new(), previous);
        let mut first = Vec::new();
        super::super::write_segment(&mut first, Now::default(), run, &previous);
        let rest = (0..records).map(|n| format!("{{\"n\":{n}}}\n").into_bytes());
        for line in std::iter::once(first).chain(rest) {
            let mut out = Vec::new();
            link = link.seal(&line, &mut out);
            out.pop();
            lines.push(out);
        }
        (lines, link)
    }

    fn verify(segments: &[Vec<Vec<u8>>]) -> Result<Link, Fault> {
        let beginnings: Vec<Beginning> = segments
            .iter()
            .map(|lines| Beginning::of(lines.first().map_or(b"", |line| line)))
            .collect::<Result<_, _>>()?;
        let mut verifier = Verifier::new(beginnings.iter());
        for (lines, beginning) in segments.iter().zip(&beginnings) {
            verifier.begin(beginning)?;
            lines.iter().try_for_each(|line| verifier.line(line))?;
        }
        match beginnings.iter().any(|beginning| verifier.is_missing_before(beginning)) {
            true => Err(Fault::Missing),
            false => Ok(verifier.last()),
        }
    }

    /// Two processes, of which the second took over before the first had ended.
    fn good() -> Vec<Vec<Vec<u8>>> {
        let (a1, link) = segment("a", Link::START, 3);
        let (a2, last) = segment("a", link, 3);
        let (b1, _) = segment("b", link, 2);
        let (c1, _) = segment("c", last, 2);
        vec![a1, a2, b1, c1]
    }

    #[test]
    fn what_processes_wrote_holds_also_where_one_took_over_and_where_old_segments_are_gone() {
        let all = good();
        assert!(verify(&all).is_ok());
        assert!(verify(&all[..1]).is_ok());
        assert!(verify(&all[1..2]).is_ok());
    }

    #[test]
    fn what_is_missing_is_told() {
        let all = good();
        let without = |at: usize| verify(&[&all[..at], &all[at + 1..]].concat());
        assert_eq!(without(1), Err(Fault::Missing), "the last segment of a process");
        let mut cut = all.clone();
        cut[1].pop();
        assert_eq!(verify(&cut), Err(Fault::Missing), "the end of a process");
        let mut headless = all.clone();
        headless[1].remove(0);
        assert_eq!(verify(&headless), Err(Fault::NoBeginning));
        let mut bare = all;
        bare[0][1] = b"{\"n\":0}".to_vec();
        assert_eq!(verify(&bare), Err(Fault::NotSealed));
    }

    proptest! {
        #[test]
        fn whatever_is_done_to_a_line_is_told(at in 0usize..4, what in 0usize..4, bit in 0usize..400) {
            let (mut lines, _) = segment("a", Link::START, 5);
            // The last may be cut off unseen, so something follows.
            match what {
                0 => {
                    let byte = bit % lines[at].len();
                    lines[at][byte] ^= 1;
                }
                1 => _ = lines.remove(at),
                2 => lines.swap(at, at + 1),
                _ => {
                    let again = lines[at].clone();
                    lines.insert(at, again);
                }
            }
            prop_assert!(verify(&[lines]).is_err());
        }
    }
}
