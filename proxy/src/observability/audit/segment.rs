//! A segment: one file of records, that lines are appended to.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use filters::audit;
use rustix::fs::{FallocateFlags, fallocate};

use super::read::{segments, stem};
use crate::clock;

/// A segment that is being written.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    file: File,
    length: u64,
    /// The length of the lines that it begins with: more are records.
    header: u64,
    reserved: u64,
    began: Duration,
}

/// Space that is reserved on the disk in advance, so that a full disk is detected before an action needs it.
const RESERVE: u64 = 1 << 20;
/// The owner writes, and a group that ships records may read them.
pub(super) const MODE: u32 = 0o640;

impl Segment {
    /// Creates one with its first lines, if there is room for more.
    ///
    /// # Errors
    /// If it cannot be written. Then no file remains: a program that is restarted again and again on a full
    /// disk must not leave one each time.
    pub(super) fn create(folder: &Path, first: &[u8]) -> io::Result<Self> {
        let path = folder.join(format!("{}.jsonl", name(folder)?));
        let file = File::options().create_new(true).append(true).mode(MODE).open(&path)?;
        let began = clock::elapsed();
        let mut segment = Self { path, file, length: 0, header: 0, reserved: 0, began };
        // A file is durable only if its name is.
        let written = segment
            .reserve()
            .and_then(|_| segment.append(first))
            .and_then(|()| segment.sync())
            .and_then(|()| sync_folder(&segment.path));
        if let Err(error) = written {
            // A segment without its first line would belong to no process.
            let _ = fs::remove_file(&segment.path);
            return Err(error);
        }
        segment.header = segment.length;
        Ok(segment)
    }

    /// Appends lines, all or none.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(lines) {
            // Half a line would spoil the next one.
            let _ = self.file.set_len(self.length);
            self.reserved = self.length;
            return Err(error);
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// If it is not.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Ensures that there is room. `false` if only a write can show that.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn reserve(&mut self) -> io::Result<bool> {
        if self.reserved < self.length + RESERVE / 2 {
            let wanted = self.length + RESERVE;
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, wanted) {
                Ok(()) => self.reserved = wanted,
                // A file system that cannot reserve space reports it at the write.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    self.reserved = u64::MAX;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.reserved < u64::MAX)
    }

    /// Gives back the room that was reserved and not used.
    ///
    /// # Errors
    /// If it cannot.
    pub(super) fn trim(&mut self) -> io::Result<()> {
        self.reserved = self.length;
        self.file.set_len(self.length)
    }

    /// What was appended until now is the segment's header, and no record.
    pub(super) fn begun(&mut self) {
        self.header = self.length;
    }

    /// Whether anything was appended after its header.
    pub(super) fn has_more(&self) -> bool {
        self.length > self.header
    }

    /// How many more bytes fit.
    pub(super) fn room(&self, length_max: u64) -> usize {
        usize::try_from(length_max.saturating_sub(self.length)).unwrap_or(usize::MAX)
    }

    /// Whether it is to be closed. One without records stays.
    pub(super) fn is_full(&self, length_max: u64, age_max: Duration) -> bool {
        let age = clock::elapsed().saturating_sub(self.began);
        self.has_more() && (self.length >= length_max || age >= age_max)
    }

    /// Whether the file still exists under its name.
    pub(super) fn is_there(&self) -> bool {
        is_there(&self.file)
    }
}

/// Whether an open file has a name.
pub(super) fn is_there(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|data| data.nlink() > 0)
}

/// Makes the names in the folder of a file durable.
pub(super) fn sync_folder(of: &Path) -> io::Result<()> {
    File::open(of.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A name that sorts after all others, even if the clock was set back.
fn name(folder: &Path) -> io::Result<String> {
    let now = String::from_utf8_lossy(&audit::rfc3339(clock::now().unix)).replace([':', '.'], "");
    let all = segments(folder)?;
    let last = all.last().and_then(|path| after(stem(path)?));
    let time = last.map_or(now.clone(), |last| last.max(now));
    Ok(format!("audit-{time}-{}", std::process::id()))
}

/// The moment after that of a segment: `2026-11-24T115959000000Z` with one more microsecond. An invalid time
/// still sorts correctly.
fn after(stem: &str) -> Option<String> {
    let time = stem.strip_prefix("audit-")?.get(..24)?;
    let (date, rest) = time.split_once('T')?;
    let micros: u64 = rest.strip_suffix('Z')?.parse().ok()?;
    Some(format!("{date}T{:012}Z", micros + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_sorts_after_all_others_even_if_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = Segment::create(folder.path(), b"{}\n").unwrap().path;
        let ahead = folder.path().join("audit-2999-12-31T235959999999Z-1.jsonl.zst");
        fs::write(&ahead, "").unwrap();
        let second = Segment::create(folder.path(), b"{}\n").unwrap().path;
        let third = Segment::create(folder.path(), b"{}\n").unwrap().path;
        assert_eq!(segments(folder.path()).unwrap(), [first, ahead, second, third]);
    }
}
