//! Reads what to ship: complete lines from the segments, in order, from a cursor on.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use filters::audit::chain::Sealed;

use super::cursor::{Cursor, Mark};
use crate::observability::audit::read::{Line, Lines, is_compressed, segments, stem};

/// A batch is not longer, unless one record is.
const BYTES_MAX: usize = 1 << 20;

/// The lines from a place on.
pub(super) struct Source {
    folder: PathBuf,
    at: Cursor,
    /// A segment that is being read.
    lines: Option<(String, Lines)>,
    /// The segments at the last listing.
    known: Option<BTreeSet<String>>,
    /// Late ones, created after one with a newer name.
    late: BTreeSet<String>,
    /// Those that were read again because their lines did not follow each other.
    doubted: BTreeSet<String>,
    /// Segments that were removed before they were read.
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

/// The result of reading one segment.
#[derive(Debug, PartialEq, Eq)]
enum ReadResult {
    /// As many lines as requested.
    Full,
    /// To the current end; more may follow.
    AtEnd,
    /// To the end of what ever will be.
    Through,
}

impl Source {
    pub(super) fn new(folder: &Path, at: Cursor) -> Self {
        let (lines, known, late, doubted, lost, buffered) = Default::default();
        Self { folder: folder.to_owned(), at, lines, known, late, doubted, lost, buffered }
    }

    /// The position after the last line that was read.
    pub(super) fn at(&self) -> &Cursor {
        &self.at
    }

    /// Segments that were removed before they were read.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Reads from there again.
    pub(super) fn rewind(&mut self, to: &Cursor) {
        self.at = to.clone();
        self.lines = None;
        for late in self.late.range(..to.segment.clone()) {
            self.at.open.entry(late.clone()).or_default();
        }
    }

    /// The next lines, at most `max`; empty if everything was read.
    pub(super) fn read(&mut self, max: usize) -> io::Result<Vec<Record>> {
        // Lines read before an error are not read again.
        let mut records = std::mem::take(&mut self.buffered);
        let mut tries = 0..3;
        loop {
            let Err(error) = self.fill(&mut records, max) else { return Ok(records) };
            self.lines = None;
            // It was compressed, or removed, just now.
            if error.kind() != io::ErrorKind::NotFound || tries.next().is_none() {
                self.buffered = records;
                return Err(error);
            }
        }
    }

    fn fill(&mut self, records: &mut Vec<Record>, max: usize) -> io::Result<()> {
        loop {
            let all = segments(&self.folder)?;
            self.notice(&all);
            for segment in self.at.open.keys().cloned().collect::<Vec<_>>() {
                match self.segment(&segment, &all, records, max)? {
                    ReadResult::Full => return Ok(()),
                    ReadResult::AtEnd => {}
                    ReadResult::Through => _ = self.at.open.remove(&segment),
                }
            }
            if !self.find(&all)? {
                return Ok(());
            }
            let segment = self.at.segment.clone();
            let came = self.segment(&segment, &all, records, max)?;
            let next = all.iter().filter_map(|path| stem(path)).find(|next| **next > *segment);
            let (Some(next), false) = (next, came == ReadResult::Full) else { return Ok(()) };
            if came == ReadResult::AtEnd {
                self.at.open.insert(segment, self.at.mark.clone());
            }
            self.at.segment = next.to_owned();
            self.at.mark.byte = 0;
        }
    }

    /// Two processes that begin a segment concurrently may do so in another order than their names.
    fn notice(&mut self, all: &[PathBuf]) {
        let stems: BTreeSet<String> =
            all.iter().filter_map(|path| stem(path)).map(str::to_owned).collect();
        if let Some(known) = &self.known {
            for late in stems.difference(known).filter(|stem| **stem < self.at.segment) {
                self.at.open.entry(late.clone()).or_default();
                self.late.insert(late.clone());
            }
        }
        self.known = Some(stems);
    }

    /// Finds the segment to read. If it was removed, the next newer one. `false` if there is none.
    fn find(&mut self, all: &[PathBuf]) -> io::Result<bool> {
        if all.iter().any(|path| stem(path) == Some(&*self.at.segment)) {
            return Ok(true);
        }
        let newer = |path: &&PathBuf| stem(path).is_some_and(|stem| *stem > *self.at.segment);
        let Some(path) = all.iter().find(newer) else { return Ok(false) };
        let last = &self.at.mark.chain;
        let next = stem(path).unwrap_or_default().to_owned();
        if last.is_none() || previous(path)? != *last {
            self.gone(&self.at.segment.clone());
        }
        self.at.segment = next;
        self.at.mark = Mark::default();
        Ok(true)
    }

    fn gone(&mut self, segment: &str) {
        self.lost += 1;
        tracing::error!(
            segment,
            "a segment was removed before it was shipped: the sink does not have its records"
        );
    }

    /// Reads lines of one segment.
    fn segment(
        &mut self,
        segment: &str,
        all: &[PathBuf],
        records: &mut Vec<Record>,
        max: usize,
    ) -> io::Result<ReadResult> {
        let Some(path) = all.iter().find(|path| stem(path) == Some(segment)) else {
            self.gone(segment);
            return Ok(ReadResult::Through);
        };
        // Checked before the end is reached: a segment that is closed later may still have grown.
        let end = if is_closed(path, all) { ReadResult::Through } else { ReadResult::AtEnd };
        let mut mark = self.mark(segment).clone();
        let shrunk = !is_compressed(path) && fs::metadata(path)?.len() < mark.byte;
        if shrunk && self.doubted.insert(segment.to_owned()) {
            mark = self.again(segment);
        }
        let mut bytes: usize = records.iter().map(|record| record.line.len()).sum();
        while records.len() < max && bytes < BYTES_MAX {
            let lines = match &mut self.lines {
                Some((of, lines)) if of == segment => lines,
                other => {
                    let lines = Lines::open_at(path, mark.byte)?;
                    &mut other.insert((segment.to_owned(), lines)).1
                }
            };
            let line = match lines.next_line()? {
                Some(Line::Whole(line)) => line.to_vec(),
                Some(Line::TooLong) => {
                    tracing::error!(
                        segment,
                        byte = mark.byte,
                        "a line too long for a record was not shipped"
                    );
                    mark = Mark { byte: lines.byte, chain: None };
                    self.mark(segment).clone_from(&mark);
                    continue;
                }
                // An incomplete line is being written, or never will be complete.
                Some(Line::Torn(_)) | None => {
                    self.lines = None;
                    return Ok(end);
                }
            };
            let byte = lines.byte;
            let sealed = Sealed::of(&line);
            let follows = mark.byte == 0
                || mark.link().is_none_or(|last| sealed.is_some_and(|line| line.follows(&last)));
            if !follows && self.doubted.insert(segment.to_owned()) {
                mark = self.again(segment);
                continue;
            }
            if !follows {
                tracing::error!(
                    segment,
                    byte = mark.byte,
                    "a line does not continue the one before it; see `stagedoor audit verify`"
                );
            }
            mark = Mark { byte, chain: sealed.map(|line| line.link.to_string()) };
            self.mark(segment).clone_from(&mark);
            bytes += line.len();
            records.push(Record { line, end: self.at.clone() });
        }
        Ok(ReadResult::Full)
    }

    /// Begins a segment again.
    fn again(&mut self, segment: &str) -> Mark {
        let mark = std::mem::take(self.mark(segment));
        tracing::warn!(
            segment,
            byte = mark.byte,
            "a line does not continue the one before it: the segment is shipped again"
        );
        self.lines = None;
        Mark::default()
    }

    fn mark(&mut self, segment: &str) -> &mut Mark {
        if self.at.segment == segment {
            return &mut self.at.mark;
        }
        self.at.open.entry(segment.to_owned()).or_default()
    }
}

/// The digest that a segment continues.
fn previous(path: &Path) -> io::Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct First {
        previous: Option<String>,
    }
    let mut lines = Lines::open(path)?;
    let Some(Line::Whole(line)) = lines.next_line()? else { return Ok(None) };
    Ok(serde_json::from_slice::<First>(line).ok().and_then(|first| first.previous))
}

/// Whether a segment is closed.
fn is_closed(path: &Path, all: &[PathBuf]) -> bool {
    if is_compressed(path) {
        return true;
    }
    let (Some(own), Some(process)) = (stem(path), process(path)) else { return true };
    let later = |path: &&PathBuf| stem(path).is_some_and(|stem| stem > own);
    let later_of_it = all.iter().filter(later).any(|path| self::process(path) == Some(process));
    later_of_it || (process != std::process::id() && !is_open_in(process, path))
}

/// The process that writes a segment, by its name.
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

    /// A process that does not exist.
    const GONE: &str = "4194999";

    #[test]
    fn lines_are_read_in_order_over_segments_and_only_complete_ones() {
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
        assert_eq!(records[0].end.mark.chain, Some(link.to_string()));
        assert_eq!(source.lost(), 0);
    }

    #[test]
    fn two_processes_that_write_concurrently_are_both_read_to_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (mut link, mut one) = (Link::START, Link::START);
        // Its number must be known before the name of its open file.
        let script = "f=$0/audit-1-$$.jsonl; : > $f; exec tail -f $f";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let old = folder.path().join(format!("audit-1-{}.jsonl", child.id()));
        while !is_open_in(child.id(), &old)
            || fs::read(format!("/proc/{}/comm", child.id())).unwrap() != b"tail\n"
        {
            std::thread::yield_now();
        }
        fs::write(&old, sealed(&mut one, &[r#"{"n":1}"#])).unwrap();
        let new = folder.path().join(format!("audit-2-{}.jsonl", std::process::id()));
        fs::write(&new, sealed(&mut link, &[r#"{"n":3}"#])).unwrap();
        let mut source = Source::new(folder.path(), Cursor::before(stem(&old).unwrap()));
        assert_eq!(bodies(&source.read(9).unwrap()), [r#"{"n":1}"#, r#"{"n":3}"#]);
        assert_eq!(source.at().open.len(), 1, "the old one may grow");
        let append = |path: &Path, lines: &[u8]| {
            let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
            io::Write::write_all(&mut file, lines).unwrap();
        };
        // The old one grows, and continues in another segment, whose name is older than the next.
        append(&old, &sealed(&mut one, &[r#"{"n":2}"#]));
        assert_eq!(bodies(&source.read(9).unwrap()), [r#"{"n":2}"#]);
        let stored = source.at().clone();
        append(&new, &sealed(&mut link, &[r#"{"n":4}"#]));
        let late = folder.path().join(format!("audit-1b-{}.jsonl", child.id()));
        append(&late, &sealed(&mut one, &[r#"{"n":5}"#]));
        assert_eq!(bodies(&source.read(9).unwrap()), [r#"{"n":5}"#, r#"{"n":4}"#]);
        source.rewind(&stored);
        assert_eq!(bodies(&source.read(9).unwrap()), [r#"{"n":5}"#, r#"{"n":4}"#]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(source.read(9).unwrap(), []);
        assert!(source.at().open.is_empty());
        assert_eq!(source.lost(), 0);
    }

    #[test]
    fn a_removed_segment_is_skipped_and_reported_unless_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut link = Link::START;
        sealed(&mut link, &[r#"{"n":1}"#]);
        let last = link.to_string();
        let first = format!("{{\"kind\":\"segment\",\"previous\":\"{last}\"}}");
        let text = sealed(&mut link, &[&first]);
        fs::write(folder.path().join(format!("audit-3-{GONE}.jsonl")), text).unwrap();
        let of = |chain: String| Cursor {
            mark: Mark { byte: 80, chain: Some(chain) },
            ..Cursor::before("audit-1-7")
        };
        let mut source = Source::new(folder.path(), of(last));
        assert_eq!((source.read(9).unwrap().len(), source.lost()), (1, 0));
        let mut source = Source::new(folder.path(), of("00".repeat(32)));
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
