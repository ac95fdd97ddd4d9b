//! Segments read back: which there are, and their lines, from a plain file or a compressed one.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::{Path, PathBuf},
};

/// A line that was written is shorter.
pub const LINE_MAX: usize = 1 << 20;
const BUFFER: usize = 256 << 10;

/// The segments in a folder, the oldest first.
///
/// # Errors
/// If it cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = folder.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut all: Vec<PathBuf> = entries.filter(|path| stem(path).is_some()).collect();
    // `.jsonl` sorts before `.jsonl.zst`. If both exist, compression was interrupted after the compressed
    // one was complete.
    all.sort();
    all.dedup_by(|next, last| stem(next) == stem(last));
    Ok(all)
}

/// The name of a segment without its extension; `None` if it is not a segment.
pub fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".zst").unwrap_or(name).strip_suffix(".jsonl")?;
    stem.starts_with("audit-").then_some(stem)
}

/// Whether a file is compressed, by its name.
pub fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

/// The lines of a file, one after the other.
pub struct Lines {
    from: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    /// The number of the next line, from 1.
    pub number: u64,
    /// Where the next line begins, in bytes that are not compressed.
    pub byte: u64,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A complete line, without its line feed.
    Whole(&'a [u8]),
    /// More than [`LINE_MAX`] bytes.
    TooLong,
    /// The last line without a line feed: it is being written, or incomplete.
    Torn(&'a [u8]),
}

impl Lines {
    /// Opens a file, compressed if its name ends with `.zst`. A segment that has been compressed since it
    /// was listed is found as well.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let packed = path.with_extension("jsonl.zst");
        let (path, file) = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && stem(path).is_some() => {
                (&*packed, File::open(&packed)?)
            }
            opened => (path, opened?),
        };
        let from: Box<dyn BufRead + Send> = if is_compressed(path) {
            Box::new(BufReader::with_capacity(BUFFER, zstd::Decoder::new(file)?))
        } else {
            Box::new(BufReader::with_capacity(BUFFER, file))
        };
        Ok(Self { from, buffer: Vec::new(), number: 1, byte: 0 })
    }

    /// Opens a file at a byte where a line begins; a plain file is not read up to there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open_at(path: &Path, byte: u64) -> io::Result<Self> {
        if is_compressed(path) {
            let mut lines = Self::open(path)?;
            lines.skip(byte)?;
            return Ok(lines);
        }
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(byte))?;
        let from = Box::new(BufReader::with_capacity(BUFFER, file));
        Ok(Self { from, buffer: Vec::new(), number: 1, byte })
    }

    /// Continues at a byte where a line begins. Lines are numbered from there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.byte += io::copy(&mut self.from.by_ref().take(bytes), &mut io::sink())?;
        Ok(())
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let mut read =
            self.from.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        if self.buffer.last() == Some(&b'\n') {
            self.number += 1;
            self.byte += read as u64;
            return Ok(Some(Line::Whole(&self.buffer[..read - 1])));
        }
        if read <= LINE_MAX {
            return Ok(Some(Line::Torn(&self.buffer)));
        }
        read += self.from.skip_until(b'\n')?;
        self.number += 1;
        self.byte += read as u64;
        Ok(Some(Line::TooLong))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(path: &Path) -> Vec<String> {
        let mut lines = Lines::open(path).unwrap();
        let mut all = Vec::new();
        loop {
            let (number, byte) = (lines.number, lines.byte);
            let Some(line) = lines.next_line().unwrap() else { return all };
            all.push(match line {
                Line::Whole(text) => format!("{number}@{byte} {}", String::from_utf8_lossy(text)),
                Line::TooLong => format!("{number}@{byte} too long"),
                Line::Torn(text) => {
                    all.push(format!("{number}@{byte} torn {}", String::from_utf8_lossy(text)));
                    return all;
                }
            });
        }
    }

    #[test]
    fn lines_have_numbers_and_positions_and_other_text_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("a\n\n{}\nlast\nto", "x".repeat(3 * LINE_MAX));
        let after = 3 + 3 * LINE_MAX + 1;
        let expected = [
            "1@0 a".to_owned(),
            "2@2 ".to_owned(),
            "3@3 too long".to_owned(),
            format!("4@{after} last"),
            format!("5@{} torn to", after + 5),
        ];
        let plain = folder.path().join("audit-1.jsonl");
        fs::write(&plain, &text).unwrap();
        assert_eq!(read(&plain), expected);
        let packed = folder.path().join("audit-1.jsonl.zst");
        fs::write(&packed, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
        assert_eq!(read(&packed), expected);

        let mut lines = Lines::open(&packed).unwrap();
        lines.skip(after as u64).unwrap();
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"last")));
    }

    #[test]
    fn a_segment_is_there_once_and_what_is_none_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "audit-2.jsonl",
            "audit-1.jsonl.zst",
            "audit-1.jsonl",
            "audit-3.jsonl.zst.part",
            "x.jsonl",
        ];
        names.iter().for_each(|name| fs::write(folder.path().join(name), "").unwrap());
        let found = segments(folder.path()).unwrap();
        let found: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(found, ["audit-1.jsonl", "audit-2.jsonl"]);
    }
}
