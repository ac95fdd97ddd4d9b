//! Whether anything in the segments of a folder was changed, removed or inserted.
//!
//! The segments of one process follow each other. The first of a process continues a line of the previous
//! process, nearly always its last.

use std::collections::{HashMap, HashSet};

use super::{
    chain::{Link, Sealed},
    checkpoint::{Checkpoint, PublicKey},
};

/// Verifies segments, oldest first.
#[derive(Debug)]
pub struct Verifier {
    /// Lines that a segment continues, and that have not been reached yet.
    wanted: HashSet<Link>,
    /// The position of each process.
    runs: HashMap<String, At>,
    run: String,
    at: At,
    /// The keys whose checkpoints count. Without any, checkpoints are ordinary lines.
    keys: Vec<PublicKey>,
    /// When the last checkpoint of all said the next is due.
    due: u64,
    /// The name of the oldest segment after the last recorded pruning.
    oldest_left: Option<String>,
    /// Whether the last line is from a process that ended cleanly.
    ended: bool,
    /// What was found so far.
    pub counted: Counted,
}

/// The position of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    link: Link,
    /// Lines after the last checkpoint.
    unsigned: u64,
    /// When the next checkpoint is due, as the last said.
    due: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Segments.
    pub segments: u64,
    /// Lines, including the first of each segment.
    pub lines: u64,
    /// Intents of actions.
    pub intents: u64,
    /// Records that were lost, as the log itself says.
    pub lost: u64,
    /// Processes that were killed, as the log itself says: what they had not written yet is lost.
    pub killed: u64,
    /// Checkpoints with a signature by one of the keys.
    pub checkpoints: u64,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has no digest.
    NotSealed,
    /// Its digest does not match the previous line and its own bytes.
    NotNext,
    /// A segment does not begin with its first line.
    NoBeginning,
    /// An earlier segment of its process is missing, or ends too early.
    Missing,
    /// A checkpoint that none of the keys signed.
    NotSigned,
    /// A checkpoint was due before it.
    Overdue,
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
    #[serde(default)]
    cause: String,
    #[serde(default)]
    oldest: String,
}

impl Beginning {
    /// Parses a line, without its line feed.
    ///
    /// # Errors
    /// [`Fault::NoBeginning`].
    pub fn of(line: &[u8]) -> Result<Self, Fault> {
        let read: Read = serde_json::from_slice(line).map_err(|_| Fault::NoBeginning)?;
        let previous = Link::from_hex(read.previous.as_bytes());
        let previous = previous.filter(|_| read.kind == "segment").ok_or(Fault::NoBeginning)?;
        Ok(Self { run: read.run, previous })
    }

    /// Whether it is of the very first segment: nothing precedes it.
    pub fn is_the_first(&self) -> bool {
        self.previous == Link::START
    }
}

impl Verifier {
    /// `beginnings` are those of all segments, oldest first. What the first one continues may have been
    /// pruned long ago. `keys` sign checkpoints.
    pub fn new<'a>(beginnings: impl Iterator<Item = &'a Beginning>, keys: Vec<PublicKey>) -> Self {
        let mut previous = beginnings.map(|beginning| beginning.previous);
        let oldest = previous.next().unwrap_or(Link::START);
        let wanted = previous.filter(|link| ![Link::START, oldest].contains(link)).collect();
        Self {
            wanted,
            runs: HashMap::new(),
            run: String::new(),
            at: At { link: oldest, unsigned: 0, due: u64::MAX },
            keys,
            due: u64::MAX,
            oldest_left: None,
            ended: false,
            counted: Counted::default(),
        }
    }

    /// Continues with another segment.
    ///
    /// # Errors
    /// [`Fault::Missing`] if it does not follow the last of its process.
    pub fn begin(&mut self, beginning: &Beginning) -> Result<(), Fault> {
        self.runs.insert(std::mem::take(&mut self.run), self.at);
        if self.runs.get(&beginning.run).is_some_and(|last| last.link != beginning.previous) {
            return Err(Fault::Missing);
        }
        let goes_on = self.runs.iter_mut().find(|(_, at)| at.link == beginning.previous);
        self.at = match goes_on {
            // Its lines are covered by the next checkpoint of the process that continues from the last of
            // them.
            Some((_, at)) => std::mem::replace(at, At { unsigned: 0, ..*at }),
            None => At { link: beginning.previous, unsigned: 0, due: self.due },
        };
        self.run.clone_from(&beginning.run);
        self.counted.segments += 1;
        Ok(())
    }

    /// Takes the next line, without its line feed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let sealed = Sealed::of(line).ok_or(Fault::NotSealed)?;
        if !sealed.follows(&self.at.link) {
            return Err(Fault::NotNext);
        }
        self.signature(line, &sealed)?;
        self.at.link = sealed.link;
        self.counted.lines += 1;
        if !self.wanted.is_empty() {
            self.wanted.remove(&self.at.link);
        }
        self.ended = false;
        let begins = |kind: &str| {
            line.strip_prefix(b"{\"kind\":\"").is_some_and(|rest| rest.starts_with(kind.as_bytes()))
        };
        if begins("intent\"") {
            self.counted.intents += 1;
        } else if begins("gap\"") || begins("pruned\"") || begins("end\"") {
            self.about_the_log(line);
        }
        Ok(())
    }

    fn about_the_log(&mut self, line: &[u8]) {
        let Ok(read) = serde_json::from_slice::<Read>(line) else { return };
        match &*read.kind {
            "gap" => {
                self.counted.lost += read.lost;
                self.counted.killed += u64::from(read.cause == "killed");
            }
            "pruned" => self.oldest_left = Some(read.oldest),
            _ => self.ended = true,
        }
    }

    fn signature(&mut self, line: &[u8], sealed: &Sealed<'_>) -> Result<(), Fault> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let Some(checkpoint) = Checkpoint::of(line) else {
            self.at.unsigned += 1;
            return if self.at.unsigned > self.at.due { Err(Fault::Overdue) } else { Ok(()) };
        };
        let key = self.keys.iter().find(|key| key.id == checkpoint.key).ok_or(Fault::NotSigned)?;
        if !key.verifies(&self.at.link, sealed.body) {
            return Err(Fault::NotSigned);
        }
        self.due = checkpoint.due;
        self.at = At { unsigned: 0, due: checkpoint.due, ..self.at };
        self.counted.checkpoints += 1;
        Ok(())
    }

    /// Whether a pruning on record left this segment as the oldest.
    pub fn was_pruned_to(&self, segment: &str) -> bool {
        self.oldest_left.as_deref() == Some(segment)
    }

    /// Whether the last line says that its process wrote every record.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the last line has this digest.
    pub fn is_at(&self, link: &Link) -> bool {
        self.at.link == *link
    }

    /// The digest of the last line.
    pub fn last(&self) -> Link {
        self.at.link
    }

    /// How many lines no checkpoint covers.
    pub fn unsigned(&self) -> u64 {
        let others = self.runs.iter().filter(|(run, _)| **run != self.run);
        others.map(|(_, at)| at.unsigned).sum::<u64>() + self.at.unsigned
    }

    /// Whether the line that a segment continues is missing, once all segments were verified.
    pub fn is_missing_before(&self, beginning: &Beginning) -> bool {
        self.wanted.contains(&beginning.previous)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotSealed => "the line has no digest",
            Self::NotNext => "the line was changed, or lines before it were removed or inserted",
            Self::NoBeginning => "the segment does not begin like a segment",
            Self::Missing => "the line that this one continues is missing",
            Self::NotSigned => "the checkpoint is not signed with the key",
            Self::Overdue => "a checkpoint should have come before it",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Now, audit::checkpoint::Signer};

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
        verify_signed(segments, Vec::new()).map(|verifier| verifier.last())
    }

    fn verify_signed(segments: &[Vec<Vec<u8>>], keys: Vec<PublicKey>) -> Result<Verifier, Fault> {
        let beginnings: Vec<Beginning> = segments
            .iter()
            .map(|lines| Beginning::of(lines.first().map_or(b"", |line| line)))
            .collect::<Result<_, _>>()?;
        let mut verifier = Verifier::new(beginnings.iter(), keys);
        for (lines, beginning) in segments.iter().zip(&beginnings) {
            verifier.begin(beginning)?;
            lines.iter().try_for_each(|line| verifier.line(line))?;
        }
        match beginnings.iter().any(|beginning| verifier.is_missing_before(beginning)) {
            true => Err(Fault::Missing),
            false => Ok(verifier),
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
    fn missing_segments_are_reported() {
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

    /// Seals lines again, as someone who can write the folder might; a `None` is a checkpoint.
    fn written(signer: &Signer, lines: &[Option<&str>]) -> Vec<Vec<u8>> {
        let (mut all, last) = segment("a", Link::START, 0);
        let mut link = last;
        for (at, line) in lines.iter().enumerate() {
            let mut out = Vec::new();
            match line {
                Some(line) => out.extend_from_slice(format!("{line}\n").as_bytes()),
                None => signer.write(&mut out, Now::default(), &link, at as u64, 2),
            }
            let mut sealed = Vec::new();
            link = link.seal(&out, &mut sealed);
            sealed.pop();
            all.push(sealed);
        }
        all
    }

    #[test]
    fn a_chain_that_is_written_anew_does_not_hold_with_the_key() {
        let signer = |seed: u8| {
            let prefix =
                crate::types::hex::read::<16>(b"302e020100300506032b657004220420").unwrap();
            Signer::of_pkcs8(&[&prefix[..], &[seed; 32]].concat()).unwrap()
        };
        let (own, eve) = (signer(1), signer(2));
        let check = |signer: &Signer, lines: &[Option<&str>]| {
            let keys = vec![own.public_key().clone()];
            let verified = verify_signed(&[written(signer, lines)], keys);
            verified.map(|verifier| (verifier.counted.checkpoints, verifier.unsigned()))
        };
        let (a, b) = (Some(r#"{"n":1}"#), Some(r#"{"n":2}"#));
        assert_eq!(check(&own, &[None, a, b, None, a]), Ok((2, 1)));
        assert_eq!(check(&eve, &[None, a, b, None, a]), Err(Fault::NotSigned));
        assert_eq!(check(&own, &[None, a, b, a]), Err(Fault::Overdue), "checkpoints are left out");
        assert_eq!(check(&own, &[a, b, a]), Ok((0, 4)), "nothing is signed: the caller judges");

        // A line is changed, and all digests after it are made to fit; the signature is as it was.
        let mut lines = written(&own, &[None, a, None, b]);
        let (signed, _) = lines[3].split_at(lines[3].len() - 76);
        let mut link = Sealed::of(&lines[1]).unwrap().link;
        let texts = [br#"{"n":9}"#.to_vec(), [signed, b"}"].concat(), br#"{"n":2}"#.to_vec()];
        for (at, text) in texts.iter().enumerate() {
            let mut out = Vec::new();
            link = link.seal(&[text, &b"\n"[..]].concat(), &mut out);
            out.pop();
            lines[2 + at] = out;
        }
        assert!(verify(&[lines.clone()]).is_ok(), "without the key nothing tells");
        let keys = vec![own.public_key().clone()];
        assert_eq!(verify_signed(&[lines], keys).map(|_| ()), Err(Fault::NotSigned));
    }

    proptest! {
        #[test]
        fn any_change_to_a_line_is_reported(at in 0usize..4, what in 0usize..4, bit in 0usize..400) {
            let (mut lines, _) = segment("a", Link::START, 5);
            // Cutting off the last would go unnoticed, so something follows.
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
