//! What is to be shipped: whole lines from the segments, in order, from a cursor on.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use filters::audit::chain::Sealed;

use super::cursor::Cursor;
use crate::audit::read::{Line, Lines, is_compressed, segments, stem};

/// A batch is not longer, unless one record is.
const BYTES_MAX: usize = 1 << 20;

/// The lines from a place on.
pub(super) struct Source {
    folder: PathBuf,
    at: Cursor,
    open: Option<Lines>,
    /// A segment that was read again because its lines did not follow each other.
    doubted: Option<String>,
    /// Segments that were gone before they were read.
    lost: u64,
    buffered: Vec<Record>,
}

/// A line, and the place after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Without its line feed.
    pub(super) line: Vec<u8>,
    pub(super) end: Cursor,
}

/// What reading one segment came to.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// As many as were asked for.
    Full,
    /// To the end of what is written.
    ToTheEnd,
    /// To a line that does not follow the one before.
    Apart,
}

impl Source {
    pub(super) fn new(folder: &Path, at: Cursor) -> Self {
        let (open, doubted, buffered) = Default::default();
        Self { folder: folder.to_owned(), at, open, doubted, lost: 0, buffered }
    }

    /// The place after the last line that was read.
    pub(super) fn at(&self) -> &Cursor {
        &self.at
    }

    /// Segments that were gone before they were read.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Reads from there again.
    pub(super) fn rewind(&mut self, to: &Cursor) {
        self.at = to.clone();
        self.open = None;
    }

    /// The next lines, at most so many; none if all that is written was read.
    pub(super) fn read(&mut self, max: usize) -> io::Result<Vec<Record>> {
        // What was read before an error is not read again.
        let mut records = std::mem::take(&mut self.buffered);
        if let Err(error) = self.fill(&mut records, max) {
            self.buffered = records;
            self.open = None;
            return Err(error);
        }
        Ok(records)
    }

    fn fill(&mut self, records: &mut Vec<Record>, max: usize) -> io::Result<()> {
        loop {
            let all = segments(&self.folder)?;
            let Some(path) = self.find(&all)? else { return Ok(()) };
            // Looked at before the end is seen: what is closed after that may have grown before.
            let closed = is_closed(&path, &all);
            match self.lines(&path, records, max) {
                Ok(Came::Full) => return Ok(()),
                Ok(Came::ToTheEnd) => {
                    let own = stem(&path).map(str::to_owned);
                    let next = all.iter().filter_map(|path| stem(path));
                    let next =
                        next.filter(|next| own.as_deref().is_some_and(|own| *next > own)).min();
                    let Some(next) = next.filter(|_| closed) else { return Ok(()) };
                    self.at = Cursor { segment: next.to_owned(), byte: 0, ..self.at.clone() };
                }
                Ok(Came::Apart) => {
                    tracing::warn!(
                        segment = self.at.segment,
                        byte = self.at.byte,
                        "a line does not follow the one before: the segment is shipped again"
                    );
                    self.doubted = Some(self.at.segment.clone());
                    self.at = Cursor::before(&self.at.segment);
                    self.open = None;
                }
                // It was compressed, or removed, just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.open = None,
                Err(error) => return Err(error),
            }
        }
    }

    /// The segment to read. If it is gone, the next newer one.
    fn find(&mut self, all: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        let is_ours = |path: &&PathBuf| stem(path) == Some(&*self.at.segment);
        if let Some(path) = all.iter().find(is_ours) {
            return Ok(Some(path.clone()));
        }
        let newer = |path: &&PathBuf| stem(path).is_some_and(|stem| *stem > *self.at.segment);
        let Some(path) = all.iter().find(newer) else { return Ok(None) };
        self.open = None;
        let next = Cursor::before(stem(path).unwrap_or_default());
        if self.at.chain.is_none() || previous(path)? != self.at.chain {
            self.lost += 1;
            tracing::error!(
                segment = self.at.segment,
                byte = self.at.byte,
                next = next.segment,
                "a segment is gone before it was shipped: its records are missing there"
            );
        }
        self.at = next;
        Ok(Some(path.clone()))
    }

    /// Reads lines of one segment.
    fn lines(&mut self, path: &Path, records: &mut Vec<Record>, max: usize) -> io::Result<Came> {
        let may_doubt = self.doubted.as_ref() != Some(&self.at.segment);
        let shrunk = !is_compressed(path) && fs::metadata(path)?.len() < self.at.byte;
        if shrunk && may_doubt {
            return Ok(Came::Apart);
        }
        let lines = match &mut self.open {
            Some(lines) => lines,
            open => open.insert(Lines::open_at(path, self.at.byte)?),
        };
        let mut bytes: usize = records.iter().map(|record| record.line.len()).sum();
        while records.len() < max && bytes < BYTES_MAX {
            let line = match lines.next()? {
                Some(Line::Whole(line)) => line.to_vec(),
                Some(Line::TooLong) => {
                    tracing::error!(
                        segment = self.at.segment,
                        byte = self.at.byte,
                        "a line that is too long for a record is not shipped"
                    );
                    self.at.byte = lines.byte;
                    continue;
                }
                // What is not whole is being written, or never will be.
                Some(Line::Torn(_)) | None => {
                    self.open = None;
                    return Ok(Came::ToTheEnd);
                }
            };
            let sealed = Sealed::of(&line);
            let follows = self.at.byte == 0
                || self.at.link().is_none_or(|last| sealed.is_some_and(|line| line.follows(&last)));
            if !follows && may_doubt {
                return Ok(Came::Apart);
            }
            if !follows {
                tracing::error!(
                    segment = self.at.segment,
                    byte = self.at.byte,
                    "a line does not follow the one before; see `stagedoor audit verify`"
                );
            }
            let chain = sealed.map(|line| line.link.to_string());
            self.at = Cursor { segment: self.at.segment.clone(), byte: lines.byte, chain };
            bytes += line.len();
            records.push(Record { line, end: self.at.clone() });
        }
        Ok(Came::Full)
    }
}

/// The digest that a segment goes on from.
fn previous(path: &Path) -> io::Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct First {
        previous: Option<String>,
    }
    let mut lines = Lines::open(path)?;
    let Some(Line::Whole(line)) = lines.next()? else { return Ok(None) };
    Ok(serde_json::from_slice::<First>(line).ok().and_then(|first| first.previous))
}

/// Whether nothing is written to a segment any more.
fn is_closed(path: &Path, all: &[PathBuf]) -> bool {
    if is_compressed(path) {
        return true;
    }
    let (Some(own), Some(process)) = (stem(path), process(path)) else { return true };
    let later = |path: &&PathBuf| stem(path).is_some_and(|stem| stem > own);
    let later_of_it = all.iter().filter(later).any(|path| self::process(path) == Some(process));
    later_of_it || (process != std::process::id() && !is_open_in(process, path))
}

/// The process that writes a segment, as its name says.
fn process(path: &Path) -> Option<u32> {
    stem(path)?.rsplit_once('-')?.1.parse().ok()
}

/// Whether a process has a file open. Another one may have its number by now.
fn is_open_in(process: u32, path: &Path) -> bool {
    let Ok(wanted) = path.canonicalize() else { return false };
    let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|at| at == wanted))
}

#[cfg(test)]
mod tests {
    use filters::audit::chain::Link;

    use super::*;

    /// Lines with their digests, and the last of these.
    fn sealed(link: &mut Link, lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            *link = link.seal(format!("{line}\n").as_bytes(), &mut out);
        }
        out
    }

    fn bodies(records: &[Record]) -> Vec<String> {
        let body = |record: &Record| {
            let body = Sealed::of(&record.line).unwrap().body;
            format!("{}}}", String::from_utf8_lossy(body))
        };
        records.iter().map(body).collect()
    }

    /// A process that is not there.
    const GONE: &str = "4194999";

    #[test]
    fn lines_come_in_order_over_segments_and_nothing_that_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut link = Link::START;
        let (first, second) =
            (sealed(&mut link, &[r#"{"n":1}"#, r#"{"n":2}"#]), sealed(&mut link, &[r#"{"n":3}"#]));
        let packed = zstd::encode_all(&first[..], 1).unwrap();
        fs::write(path(&format!("audit-1-{GONE}.jsonl.zst")), packed).unwrap();
        let open = path(&format!("audit-2-{}.jsonl", std::process::id()));
        fs::write(&open, [&second[..], b"{\"n\":"].concat()).unwrap();
        let mut source = Source::new(folder.path(), Cursor::before(&format!("audit-1-{GONE}")));
        assert_eq!(bodies(&source.read(1).unwrap()), [r#"{"n":1}"#]);
        assert_eq!(bodies(&source.read(9).unwrap()), [r#"{"n":2}"#, r#"{"n":3}"#]);
        assert_eq!(source.read(9).unwrap(), []);
        let more = sealed(&mut link, &[r#"{"n":4}"#]);
        fs::write(&open, [&second[..], &more[..]].concat()).unwrap();
        let records = source.read(9).unwrap();
        assert_eq!(bodies(&records), [r#"{"n":4}"#]);
        assert_eq!(records[0].end.chain, Some(link.to_string()));
        assert_eq!(source.lost(), 0);
    }

    #[test]
    fn a_segment_that_another_process_writes_is_read_to_its_end_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        // This test's own process stands for the one before, which still drains.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let old = folder.path().join(format!("audit-1-{}.jsonl", child.id()));
        let mut link = Link::START;
        fs::write(&old, sealed(&mut link, &[r#"{"n":1}"#])).unwrap();
        let new = folder.path().join(format!("audit-2-{}.jsonl", std::process::id()));
        fs::write(&new, sealed(&mut link, &[r#"{"n":3}"#])).unwrap();
        let all = segments(folder.path()).unwrap();
        assert!(is_closed(&old, &all), "it lives, and does not have it open");
        assert!(!is_closed(&new, &all));
        let held = fs::File::open(&new).unwrap();
        assert!(is_open_in(std::process::id(), &new));
        drop(held);
        assert!(!is_open_in(std::process::id(), &new));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_gone_is_passed_over_and_told_unless_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut link = Link::START;
        sealed(&mut link, &[r#"{"n":1}"#]);
        let last = link.to_string();
        let first = format!("{{\"kind\":\"segment\",\"previous\":\"{last}\"}}");
        let text = sealed(&mut link, &[&first]);
        fs::write(folder.path().join(format!("audit-3-{GONE}.jsonl")), text).unwrap();
        let at = Cursor { segment: "audit-1-7".to_owned(), byte: 80, chain: Some(last) };
        let mut source = Source::new(folder.path(), at.clone());
        assert_eq!((source.read(9).unwrap().len(), source.lost()), (1, 0));
        let at = Cursor { chain: Some("00".repeat(32)), ..at };
        let mut source = Source::new(folder.path(), at);
        assert_eq!((source.read(9).unwrap().len(), source.lost()), (1, 1));
    }

    #[test]
    fn lines_that_were_taken_back_and_written_anew_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("audit-1-{}.jsonl", std::process::id()));
        let mut link = Link::START;
        let first = sealed(&mut link, &[r#"{"n":1}"#]);
        let taken_back = sealed(&mut link.clone(), &[r#"{"n":2}"#, r#"{"n":"a longer one"}"#]);
        fs::write(&path, [&first[..], &taken_back[..]].concat()).unwrap();
        let mut source = Source::new(folder.path(), Cursor::before(stem(&path).unwrap()));
        assert_eq!(source.read(9).unwrap().len(), 3);
        let again = sealed(&mut link, &[r#"{"n":4}"#]);
        fs::write(&path, [&first[..], &again[..]].concat()).unwrap();
        assert_eq!(bodies(&source.read(9).unwrap()), [r#"{"n":1}"#, r#"{"n":4}"#]);
        assert_eq!(source.read(9).unwrap(), []);
    }
}
