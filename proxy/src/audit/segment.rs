//! Segments: the files that records are kept in, one after the other.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use filters::audit::{self, chain::Link};
use rustix::fs::{FallocateFlags, fallocate};

use super::read::segments;
use crate::clock;

/// Where records go.
pub(super) enum Sink {
    Stdout { link: Link },
    Folder(Folder),
}

/// A folder of segments, as one process writes it.
pub(super) struct Folder {
    path: PathBuf,
    segment_max: u64,
    kept: u32,
    open: Option<Segment>,
    /// Who writes: segments of one process follow each other.
    run: String,
    /// The digest of the last line that was written.
    link: Link,
}

struct Segment {
    path: PathBuf,
    file: File,
    length: u64,
    reserved: u64,
}

/// Room that is reserved on the disk ahead of what is written, so that a full disk is known before
/// an action needs it.
pub(super) const RESERVE: u64 = 1 << 20;

impl Sink {
    /// Seals lines and writes them. What cannot be written whole is not written at all.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout { link } => {
                let (sealed, last) = sealed(lines, *link);
                let mut out = io::stdout().lock();
                out.write_all(&sealed)?;
                out.flush()?;
                *link = last;
                Ok(())
            }
            Self::Folder(folder) => folder.write(lines),
        }
    }

    /// Makes what was written durable, as far as it can be.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::Folder(Folder { open: Some(segment), .. }) => segment.file.sync_data(),
            Self::Folder(_) | Self::Stdout { .. } => Ok(()),
        }
    }

    /// Makes sure that there is a segment, and room in it. `false` if that cannot be told without
    /// writing.
    pub(super) fn reserve(&mut self) -> io::Result<bool> {
        match self {
            Self::Stdout { .. } => Ok(false),
            Self::Folder(folder) => folder.reserve(),
        }
    }
}

impl Folder {
    /// Goes on from `link`, which is the last in the folder.
    pub(super) fn new(written: &config::Audit, path: &Path, run: String, link: Link) -> Self {
        Self {
            path: path.to_owned(),
            segment_max: written.segment_max.bytes().max(RESERVE),
            kept: written.segments_kept,
            open: None,
            run,
            link,
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.segment()?;
        let (sealed, last) = sealed(lines, self.link);
        self.open.as_mut().expect("just made").append(&sealed)?;
        self.link = last;
        Ok(())
    }

    fn reserve(&mut self) -> io::Result<bool> {
        let full = |segment: &mut Segment| segment.length >= self.segment_max;
        if let Some(full) = self.open.take_if(full) {
            full.file.sync_data()?;
        }
        self.segment()?;
        let segment = self.open.as_mut().expect("just made");
        if segment.reserved < segment.length + RESERVE / 2 {
            let wanted = segment.length + RESERVE;
            match fallocate(&segment.file, FallocateFlags::KEEP_SIZE, 0, wanted) {
                Ok(()) => segment.reserved = wanted,
                // A file system that cannot reserve tells at the write.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    segment.reserved = u64::MAX;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(segment.reserved < u64::MAX)
    }

    /// Begins another segment if there is none, or if it was removed under us.
    fn segment(&mut self) -> io::Result<()> {
        self.open.take_if(|segment| !segment.is_there());
        if self.open.is_some() {
            return Ok(());
        }
        let mut segment = Segment::create(&self.path)?;
        let mut first = Vec::new();
        audit::write_segment(&mut first, clock::now(), &self.run, &self.link);
        let (sealed, last) = sealed(&first, self.link);
        if let Err(error) = segment.append(&sealed) {
            // A segment without its first line would be nobody's.
            let _ = fs::remove_file(&segment.path);
            return Err(error);
        }
        self.link = last;
        self.open = Some(segment);
        prune(&self.path, self.kept);
        Ok(())
    }
}

impl Segment {
    fn create(folder: &Path) -> io::Result<Self> {
        let now = clock::now().unix;
        let time = String::from_utf8_lossy(&audit::rfc3339(now)).replace([':', '.'], "");
        let path = folder.join(format!("audit-{time}-{}.jsonl", std::process::id()));
        let file = File::options().create_new(true).append(true).open(&path)?;
        // A file is durable only if its name is.
        File::open(folder)?.sync_all()?;
        Ok(Self { path, file, length: 0, reserved: 0 })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(lines) {
            // Half a line would spoil the next one.
            let _ = self.file.set_len(self.length);
            self.reserved = self.length;
            return Err(error);
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Whether the file can still be found, not removed under us.
    fn is_there(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().is_ok_and(|data| data.nlink() > 0)
    }
}

/// Removes the oldest segments beyond `kept`. 0 keeps all.
fn prune(folder: &Path, kept: u32) {
    let Ok(segments) = segments(folder) else { return };
    let surplus = if kept == 0 { 0 } else { segments.len().saturating_sub(kept as usize) };
    for path in &segments[..surplus] {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old audit segment");
        }
    }
}

/// Lines with their digests, and the last of these.
fn sealed(lines: &[u8], mut link: Link) -> (Vec<u8>, Link) {
    let mut out = Vec::with_capacity(lines.len() + lines.len() / 4);
    for line in lines.split_inclusive(|b| *b == b'\n') {
        link = link.seal(line, &mut out);
    }
    (out, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_removed_is_written_to_as_soon_as_it_is_back() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("audit");
        let kept = || {
            let files = segments(&path).unwrap();
            files.iter().map(|file| fs::read_to_string(file).unwrap()).collect::<String>()
        };
        fs::create_dir(&path).unwrap();
        let written = config::Audit::default();
        let mut folder = Folder::new(&written, &path, "run".to_owned(), Link::START);
        assert!(folder.reserve().is_ok());
        folder.write(b"{\"n\":1}\n").unwrap();
        assert!(kept().contains("\n{\"n\":1,\"chain\":"));
        let last = folder.link;

        fs::remove_dir_all(&path).unwrap();
        assert!(folder.write(b"{\"n\":2}\n").is_err());
        assert!(folder.reserve().is_err());
        assert_eq!(folder.link, last, "what was not written is not in the chain");
        fs::create_dir(&path).unwrap();
        folder.write(b"{\"n\":3}\n").unwrap();
        assert!(kept().starts_with("{\"kind\":\"segment\",\"version\":1,"));
        assert!(kept().contains(&format!("\"previous\":\"{last}\"")));
    }

    #[test]
    fn only_a_record_shows_whether_standard_output_takes_records() {
        assert!(!Sink::Stdout { link: Link::START }.reserve().unwrap());
    }
}
