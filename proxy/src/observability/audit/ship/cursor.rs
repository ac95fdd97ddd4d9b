//! A sink's cursor: a small file next to the segments, and a lock so that only one process ships.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use filters::audit::chain::Link;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::observability::audit::read::{segments, stem};

/// What a sink has accepted: everything before a position, except what follows other positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The segment, without its extension.
    pub(super) segment: String,
    /// The place in it.
    #[serde(flatten)]
    pub(super) mark: Mark,
    /// Older segments that are still written to: two processes write while one hands over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) open: BTreeMap<String, Mark>,
}

/// The place after a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The byte where the next line begins, as if the segment were not compressed.
    pub(super) byte: u64,
    /// The digest of the last line, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<String>,
}

/// Where a sink's cursor and its lock are stored.
#[derive(Clone)]
pub(super) struct CursorFile {
    folder: PathBuf,
    name: String,
}

/// The lock, released on drop; the system releases it when the process ends in any way.
pub(super) struct ShipLock(#[expect(dead_code, reason = "closing it is what frees the lock")] File);

impl Cursor {
    /// Before the first line of a segment.
    pub(super) fn before(segment: &str) -> Self {
        Self { segment: segment.to_owned(), ..Self::default() }
    }

    /// The oldest segment that is needed.
    fn oldest(self) -> String {
        self.open.into_keys().chain([self.segment]).min().unwrap_or_default()
    }
}

impl Mark {
    /// The digest of the last line.
    pub(super) fn link(&self) -> Option<Link> {
        self.chain.as_ref().and_then(|chain| Link::from_hex(chain.as_bytes()))
    }
}

impl CursorFile {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { folder: folder.to_owned(), name: name.to_owned() }
    }

    /// Takes the lock. `None` while another process has it.
    pub(super) fn hold(&self) -> io::Result<Option<ShipLock>> {
        let path = self.path("lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(ShipLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads the cursor; a new sink begins with the oldest segment. `None` if there is no segment yet.
    pub(super) fn load(&self) -> io::Result<Option<Cursor>> {
        if !self.path("cursor").exists() && self.path("cursor.parked").exists() {
            fs::rename(self.path("cursor.parked"), self.path("cursor"))?;
        }
        match fs::read(self.path("cursor")) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(cursor) => return Ok(Some(cursor)),
                Err(error) => {
                    tracing::error!(sink = self.name, %error, "the cursor cannot be read: all kept segments are shipped again");
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let oldest = segments(&self.folder)?;
        let oldest = oldest.first().and_then(|path| stem(path)).map(Cursor::before);
        // So that no segment is removed that it needs.
        oldest.as_ref().map(|cursor| self.store(cursor)).transpose()?;
        Ok(oldest)
    }

    /// Stores the cursor atomically.
    pub(super) fn store(&self, cursor: &Cursor) -> io::Result<()> {
        let next = self.path("cursor.part");
        let mut file = File::create(&next)?;
        let mut text = serde_json::to_vec(cursor)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(next, self.path("cursor"))?;
        File::open(&self.folder)?.sync_all()
    }

    /// A file of this sink.
    pub(super) fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("ship-{}.{ending}", self.name))
    }
}

/// The oldest segment that a sink still needs, without its extension. `None` if no sink needs any.
pub fn oldest_needed(folder: &Path) -> Option<String> {
    let cursors = cursors(folder).ok()?;
    let read = |path: &PathBuf| serde_json::from_slice::<Cursor>(&fs::read(path).ok()?).ok();
    cursors.iter().filter_map(read).map(Cursor::oldest).min()
}

/// Sets the cursors of removed sinks aside, so that no segment is kept for them. A sink that is added again
/// continues where it was.
pub(super) fn park(folder: &Path, names: &[&str]) -> io::Result<()> {
    for path in cursors(folder)? {
        if !names.iter().any(|name| path == CursorFile::new(folder, name).path("cursor")) {
            tracing::info!(cursor = %path.display(), "set aside: the config has no such sink");
            fs::rename(&path, path.with_extension("cursor.parked"))?;
        }
    }
    Ok(())
}

fn cursors(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = folder.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("ship-") && name.ends_with(".cursor"))
    };
    Ok(entries.filter(is_one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_sink_begins_with_the_oldest_segment_and_a_known_one_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let kept = CursorFile::new(folder.path(), "siem");
        assert_eq!(kept.load().unwrap(), None);
        for name in ["audit-2.jsonl", "audit-1.jsonl.zst"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(kept.load().unwrap(), Some(Cursor::before("audit-1")));
        let mark = Mark { byte: 9, chain: Some("ab".repeat(32)) };
        let open = BTreeMap::from([("audit-1".to_owned(), Mark::default())]);
        let cursor = Cursor { segment: "audit-2".to_owned(), mark, open };
        kept.store(&cursor).unwrap();
        assert_eq!(kept.load().unwrap(), Some(cursor.clone()));
        assert!(cursor.mark.link().is_some());
        assert_eq!(oldest_needed(folder.path()).as_deref(), Some("audit-1"));
        fs::write(kept.path("cursor"), "{").unwrap();
        assert_eq!(kept.load().unwrap(), Some(Cursor::before("audit-1")));
    }

    #[test]
    fn what_the_slowest_sink_needs_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(oldest_needed(folder.path()), None);
        for (name, segment) in [("a", "audit-3"), ("b.c", "audit-2")] {
            CursorFile::new(folder.path(), name).store(&Cursor::before(segment)).unwrap();
        }
        assert_eq!(oldest_needed(folder.path()).as_deref(), Some("audit-2"));
        park(folder.path(), &["a"]).unwrap();
        assert_eq!(oldest_needed(folder.path()).as_deref(), Some("audit-3"));
        let back = CursorFile::new(folder.path(), "b.c").load().unwrap();
        assert_eq!(back, Some(Cursor::before("audit-2")));
    }

    #[test]
    fn one_at_a_time_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let kept = CursorFile::new(folder.path(), "siem");
        let first = kept.hold().unwrap();
        assert!(first.is_some() && kept.hold().unwrap().is_none());
        drop(first);
        assert!(kept.hold().unwrap().is_some());
    }
}
