//! Follows files from their end: over new segments, compressed ones, and lines that are completed later.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use super::source::Reading;
use proxy::observability::audit::read::{Line, Lines, is_compressed};

/// Reads each line of some files once, however often it polls.
pub(super) struct Follower {
    /// By name without the compression suffix: a compressed file continues at the same byte.
    seen: HashMap<PathBuf, Seen>,
    pub(super) reading: Reading,
}

/// Where to begin.
#[derive(Debug, PartialEq)]
pub(super) struct Start {
    pub(super) file: PathBuf,
    pub(super) byte: u64,
}

/// How far a file was read.
#[derive(Default)]
struct Seen {
    /// Where the next line begins.
    byte: u64,
    /// Lines that end before this are skipped.
    after: u64,
    /// The file at the last poll, and its length then.
    polled: Option<(PathBuf, u64)>,
    /// Stays open, so that a poll does not read everything from the beginning.
    open: Option<Lines>,
    is_torn: bool,
}

/// The action for each line.
pub(super) type Each<'a> = dyn FnMut(&mut Reading, &[u8]) -> io::Result<()> + 'a;

impl Follower {
    /// Begins at the current end of these files. Unchanged files are not opened.
    pub(super) fn new(files: &[PathBuf]) -> Self {
        let seen = |file: &PathBuf| {
            let length = file.metadata().map_or(0, |data| data.len());
            let after = if is_compressed(file) { u64::MAX } else { length };
            (name(file), Seen { after, polled: Some((file.clone(), length)), ..Seen::default() })
        };
        Self { seen: files.iter().map(seen).collect(), reading: Reading::default() }
    }

    /// Goes back, and reads this file and later ones from there.
    pub(super) fn back(&mut self, files: &[PathBuf], start: &Start) {
        let from = files.iter().skip_while(|file| **file != start.file);
        for file in from {
            let byte = if *file == start.file { start.byte } else { 0 };
            self.seen.insert(name(file), Seen { byte, after: byte, ..Seen::default() });
        }
    }

    /// Reads what is new since the last poll.
    ///
    /// # Errors
    /// If the output is closed.
    pub(super) fn poll(&mut self, files: &[PathBuf], each: &mut Each<'_>) -> io::Result<()> {
        for (index, file) in files.iter().enumerate() {
            let seen = self.seen.entry(name(file)).or_default();
            seen.poll(file, &mut self.reading, each)?;
            // Only the newest is written to, but for a process that drains.
            if index + 1 < files.len() {
                seen.open = None;
            }
        }
        Ok(())
    }

    /// Stops waiting for incomplete lines.
    pub(super) fn end(&mut self) {
        self.reading.not_records += self.seen.values().filter(|seen| seen.is_torn).count() as u64;
    }
}

impl Seen {
    fn poll(&mut self, file: &Path, reading: &mut Reading, each: &mut Each<'_>) -> io::Result<()> {
        // A missing file was pruned, or is being compressed.
        let Ok(length) = file.metadata().map(|data| data.len()) else { return Ok(()) };
        match &self.polled {
            Some((path, polled)) if path == file && *polled == length => return Ok(()),
            Some((path, _)) if path == file => {}
            _ => self.open = None,
        }
        self.polled = Some((file.to_owned(), length));
        if !is_compressed(file) && length < self.byte {
            reading.problem(format!(
                "`{}` is shorter than before; continuing at its end",
                file.display()
            ));
            *self =
                Self { byte: length, after: length, polled: self.polled.take(), ..Self::default() };
        }
        match self.open(file) {
            Ok(lines) => self.rest(file, lines, reading, each),
            Err(error) => {
                reading.unreadable(file, &error);
                Ok(())
            }
        }
    }

    fn open(&mut self, file: &Path) -> io::Result<Lines> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let mut lines = Lines::open(file)?;
        lines.skip(self.byte)?;
        Ok(lines)
    }

    fn rest(
        &mut self,
        file: &Path,
        mut lines: Lines,
        reading: &mut Reading,
        each: &mut Each<'_>,
    ) -> io::Result<()> {
        self.is_torn = false;
        loop {
            match lines.next_line() {
                Ok(None) => {
                    self.open = Some(lines);
                    return Ok(());
                }
                // It is read again when there is more of it.
                Ok(Some(Line::Torn(_))) => {
                    self.is_torn = true;
                    return Ok(());
                }
                Ok(Some(Line::TooLong)) => {
                    reading.not_records += 1;
                    self.byte = lines.byte;
                }
                Ok(Some(Line::Whole(line))) => {
                    self.byte += line.len() as u64 + 1;
                    if self.byte > self.after {
                        each(reading, line)?;
                    }
                }
                Err(error) => {
                    reading.unreadable(file, &error);
                    return Ok(());
                }
            }
        }
    }
}

fn name(file: &Path) -> PathBuf {
    if is_compressed(file) { file.with_extension("") } else { file.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
    };

    use super::*;
    use proxy::observability::audit::read::segments;

    struct Watched {
        folder: tempfile::TempDir,
        follower: Follower,
    }

    impl Watched {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("audit-1.jsonl"), text).unwrap();
            let follower = Follower::new(&segments(folder.path()).unwrap());
            Self { folder, follower }
        }

        fn append(&self, name: &str, text: &str) {
            let path = self.folder.path().join(name);
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn compress(&self, name: &str) {
            let path = self.folder.path().join(name);
            let packed = zstd::encode_all(&*fs::read(&path).unwrap(), 1).unwrap();
            fs::write(path.with_extension("jsonl.zst"), packed).unwrap();
            fs::remove_file(path).unwrap();
        }

        fn poll(&mut self) -> String {
            let mut all = Vec::new();
            let files = segments(self.folder.path()).unwrap();
            let mut each = |_: &mut Reading, line: &[u8]| {
                all.push(String::from_utf8_lossy(line).into_owned());
                Ok(())
            };
            self.follower.poll(&files, &mut each).unwrap();
            all.join(" ")
        }
    }

    #[test]
    fn each_line_is_printed_once_over_rotation_and_compression() {
        let mut watched = Watched::new("old\n");
        assert_eq!(watched.poll(), "");
        watched.append("audit-1.jsonl", "a\nb\n");
        assert_eq!(watched.poll(), "a b");
        assert_eq!(watched.poll(), "");
        watched.append("audit-1.jsonl", "c\n");
        watched.append("audit-2.jsonl", "d\n");
        assert_eq!(watched.poll(), "c d");
        // The process before drains still.
        watched.append("audit-1.jsonl", "e\n");
        watched.append("audit-2.jsonl", "f\n");
        assert_eq!(watched.poll(), "e f");
        // Compressed with a line that was not seen yet.
        watched.append("audit-1.jsonl", "g\n");
        watched.compress("audit-1.jsonl");
        assert_eq!(watched.poll(), "g");
        watched.compress("audit-2.jsonl");
        watched.append("audit-3.jsonl", "h\n");
        assert_eq!(watched.poll(), "h");
        fs::remove_file(watched.folder.path().join("audit-1.jsonl.zst")).unwrap();
        assert_eq!(watched.poll(), "");
        assert_eq!(watched.follower.reading, Reading::default());
    }

    #[test]
    fn a_torn_line_is_printed_when_it_is_complete_and_not_before() {
        let mut watched = Watched::new("old\nto");
        assert_eq!(watched.poll(), "");
        watched.append("audit-1.jsonl", "r");
        assert_eq!(watched.poll(), "");
        watched.append("audit-1.jsonl", "n\nnext\n");
        assert_eq!(watched.poll(), "torn next");
        watched.append("audit-1.jsonl", "ha");
        assert_eq!(watched.poll(), "");
        watched.compress("audit-1.jsonl");
        assert_eq!(watched.poll(), "");
        watched.follower.end();
        assert_eq!(watched.follower.reading.not_records, 1);
    }

    #[test]
    fn a_file_that_was_cut_is_followed_from_its_end() {
        let mut watched = Watched::new("");
        watched.append("audit-1.jsonl", "a\nbbbbbb\n");
        assert_eq!(watched.poll(), "a bbbbbb");
        File::options()
            .write(true)
            .open(watched.folder.path().join("audit-1.jsonl"))
            .unwrap()
            .set_len(2)
            .unwrap();
        assert_eq!(watched.poll(), "");
        watched.append("audit-1.jsonl", "c\n");
        assert_eq!(watched.poll(), "c");
    }
}
