//! Compresses closed segments in the background.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc,
};

use super::segment;

/// Fast, and nearly as small as any: lines resemble each other.
const LEVEL: i32 = 3;

/// Takes segments to compress.
pub(super) struct Compress(mpsc::Sender<PathBuf>);

impl Compress {
    /// Begins with those that are closed already.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(closed: Vec<PathBuf>) -> io::Result<Self> {
        let (sender, segments) = mpsc::channel();
        let compress = Self(sender);
        closed.into_iter().for_each(|path| compress.add(path));
        std::thread::Builder::new().name("audit-zstd".to_owned()).spawn(move || {
            for path in segments {
                if let Err(error) = pack(&path)
                    // It was pruned meanwhile.
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "cannot compress an audit segment");
                }
            }
        })?;
        Ok(compress)
    }

    pub(super) fn add(&self, closed: PathBuf) {
        let _ = self.0.send(closed);
    }
}

/// Replaces a plain segment with a compressed one. Whenever this is interrupted, one of them exists and is
/// complete.
fn pack(path: &Path) -> io::Result<()> {
    let packed = path.with_extension("jsonl.zst");
    let part = path.with_extension("jsonl.zst.part");
    let mut plain = File::open(path)?;
    let mut encoder = zstd::Encoder::new(create(&part)?, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&part, &packed)?;
    segment::sync_folder(path)?;
    fs::remove_file(path)
}

fn create(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(true).write(true).mode(segment::MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::audit::read::{Line, Lines};

    #[test]
    fn a_compressed_segment_has_the_same_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit-1-1.jsonl");
        let text = "{\"n\":1}\n".repeat(10_000);
        fs::write(&path, &text).unwrap();
        pack(&path).unwrap();
        let names: Vec<_> =
            folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["audit-1-1.jsonl.zst"]);
        // It is found by the plain one's name.
        let mut lines = Lines::open(&path).unwrap();
        let mut count = 0;
        while let Some(line) = lines.next_line().unwrap() {
            assert_eq!(line, Line::Whole(b"{\"n\":1}"));
            count += 1;
        }
        assert_eq!(count, 10_000);
        assert_eq!(pack(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
