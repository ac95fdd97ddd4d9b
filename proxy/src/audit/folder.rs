//! A folder of segments, as one process writes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use filters::audit;

use super::{
    chain::Chain,
    compress::Compress,
    lock::Lock,
    read::{is_compressed, segments, stem},
    segment::Segment,
    ship,
};
use crate::clock;

/// Writes to a folder.
pub(super) struct Folder {
    path: PathBuf,
    /// `None` while the process before still writes.
    lock: Option<Lock>,
    takes_over: bool,
    length_max: u64,
    age_max: Duration,
    kept: Kept,
    compresses: bool,
    compress: Option<Compress>,
    open: Option<Segment>,
    /// What was found of the processes before, until it is on record: the first lines that are
    /// written, whenever there is room for them.
    found: Vec<u8>,
    /// Who writes: segments of one process follow each other.
    run: String,
    pub(super) chain: Chain,
}

/// Which segments stay.
struct Kept {
    count: usize,
    age_max: Option<Duration>,
}

impl Folder {
    /// For a folder, to go on from the last line in it. `takes_over` says that the process before is
    /// still writing, `found` is to be the first that is written. Nothing is yet.
    pub(super) fn new(
        written: &config::Audit,
        path: &Path,
        run: String,
        chain: Chain,
        takes_over: bool,
        found: Vec<u8>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            lock: None,
            takes_over,
            length_max: written.segment_max.bytes(),
            age_max: *written.segment_age_max,
            kept: Kept {
                count: match written.segments_kept {
                    0 => usize::MAX,
                    count => count as usize,
                },
                age_max: written.kept_for.map(Into::into),
            },
            compresses: written.compress,
            compress: None,
            open: None,
            found,
            run,
            chain,
        }
    }

    /// Seals lines and appends them, all or none.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.begin()?;
        let (sealed, place) = self.chain.seal(lines);
        self.open.as_mut().expect("just begun").append(&sealed)?;
        self.chain.place = place;
        Ok(())
    }

    /// Signs what is not signed yet, if there is anything.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.open else { return Ok(()) };
        let Some((line, place)) = self.chain.checkpoint() else { return Ok(()) };
        segment.append(&line)?;
        self.chain.place = place;
        segment.sync()
    }

    /// Makes what was written durable. What is in a file that was removed is not.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.open {
            Some(segment) if segment.is_there() => segment.sync(),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "the segment was removed")),
        }
    }

    /// Makes sure that there is a segment, and room in it. `false` if that cannot be told without
    /// writing.
    pub(super) fn reserve(&mut self) -> io::Result<bool> {
        self.lock()?;
        let is_full = |segment: &Segment| segment.is_full(self.length_max, self.age_max);
        if self.open.as_ref().is_some_and(is_full) {
            self.close()?;
        }
        self.begin()?;
        self.open.as_mut().expect("just begun").reserve()
    }

    /// Says that nothing more comes, and ends the open segment.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.open.is_some() {
            let mut end = Vec::new();
            audit::write_end(&mut end, clock::now());
            self.write(&end)?;
        }
        self.close()
    }

    /// Ends the open segment. Nothing more comes, or it goes to another.
    fn close(&mut self) -> io::Result<()> {
        self.checkpoint()?;
        let Some(mut closed) = self.open.take() else { return Ok(()) };
        closed.sync()?;
        closed.trim()?;
        if let Some(compress) = &self.compress {
            compress.add(closed.path);
        }
        Ok(())
    }

    pub(super) fn segment(&self) -> Option<&Path> {
        self.open.as_ref().map(|segment| &*segment.path)
    }

    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Begins another segment if there is none, or if it was removed under us.
    fn begin(&mut self) -> io::Result<()> {
        self.open.take_if(|segment| !segment.is_there());
        if self.open.is_some() {
            return Ok(());
        }
        let mut first = Vec::new();
        audit::write_segment(&mut first, clock::now(), &self.run, &self.chain.place.link);
        first.extend_from_slice(&self.found);
        let (sealed, place) = self.chain.seal(&first);
        self.open = Some(Segment::create(&self.path, &sealed)?);
        self.chain.place = place;
        self.found.clear();
        self.prune()
    }

    /// Removes what is too old, or too many, and says so first: what is missing without such a word
    /// was removed by somebody else.
    fn prune(&mut self) -> io::Result<()> {
        let surplus = self.kept.surplus(&self.path);
        let Some(oldest) = surplus.oldest_left else { return Ok(()) };
        let mut pruned = Vec::new();
        let names = surplus.removed.iter().filter_map(|path| stem(path)).map(str::to_owned);
        audit::write_pruned(&mut pruned, clock::now(), &names.collect::<Vec<_>>(), &oldest);
        let (sealed, place) = self.chain.seal(&pruned);
        self.open.as_mut().expect("just begun").append(&sealed)?;
        self.chain.place = place;
        surplus.removed.iter().for_each(|path| remove(path));
        Ok(())
    }

    /// Takes the lock if it is not held, or not that of the folder that is there now.
    fn lock(&mut self) -> io::Result<()> {
        self.lock.take_if(|lock| !lock.is_there());
        if self.lock.is_some() {
            return Ok(());
        }
        match Lock::take(&self.path)? {
            Some(lock) => self.lock = Some(lock),
            // It has until its end.
            None if self.takes_over => return Ok(()),
            None => return Err(Lock::refusal(&self.path)),
        }
        self.takes_over = false;
        if self.compresses && self.compress.is_none() {
            self.compress = Some(Compress::start(self.left_plain()?)?);
        }
        Ok(())
    }

    /// Segments that were closed and are not compressed, as nobody else writes here now.
    fn left_plain(&self) -> io::Result<Vec<PathBuf>> {
        let mut all = segments(&self.path)?;
        all.retain(|path| !is_compressed(path) && self.segment() != Some(path));
        Ok(all)
    }
}

/// Segments that are to go.
#[derive(Default)]
struct Surplus {
    removed: Vec<PathBuf>,
    /// The name of the one that is the oldest then; `None` if none is to go.
    oldest_left: Option<String>,
}

impl Kept {
    /// What is too old, or too many. The newest always stays, and what a sink has not got stays
    /// until there are twice as many, or they are twice as old.
    fn surplus(&self, folder: &Path) -> Surplus {
        let Ok(segments) = segments(folder) else { return Surplus::default() };
        let needed = ship::oldest_needed(folder);
        let is_needed =
            |path: &Path| needed.as_deref().is_some_and(|oldest| stem(path) >= Some(oldest));
        let newest = segments.len().saturating_sub(1);
        let goes = |(index, path): (usize, &PathBuf)| {
            let times = if is_needed(path) { 2 } else { 1 };
            let surplus = segments.len().saturating_sub(self.count.saturating_mul(times));
            let goes = index < newest && (index < surplus || self.is_too_old(path, times));
            if goes && times > 1 {
                tracing::error!(path = %path.display(), "an audit segment is removed that was not shipped");
            }
            goes
        };
        let (mut removed, mut left) = (Vec::new(), None);
        for (index, path) in segments.iter().enumerate() {
            if goes((index, path)) {
                removed.push(path.clone());
            } else if left.is_none() {
                left = stem(path).map(str::to_owned);
            }
        }
        Surplus { oldest_left: left.filter(|_| !removed.is_empty()), removed }
    }

    /// A segment is as old as its last line.
    fn is_too_old(&self, path: &Path, times: usize) -> bool {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        let Some(age_max) = self.age_max.map(|age| age * times) else { return false };
        let changed = fs::metadata(path).and_then(|data| data.modified());
        changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > age_max))
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove an old audit segment");
    }
}

#[cfg(test)]
mod tests {
    use filters::audit::chain::Link;

    use super::*;

    fn folder(path: &Path) -> io::Result<Folder> {
        let chain = Chain::new(None, Link::START);
        let written = config::Audit::default();
        let mut folder = Folder::new(
            &written,
            path,
            "run".to_owned(),
            chain,
            false,
            b"{\"found\":1}\n".to_vec(),
        );
        folder.reserve()?;
        Ok(folder)
    }

    #[test]
    fn a_folder_that_was_removed_is_written_to_as_soon_as_it_is_back() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("audit");
        let kept = || {
            let files = segments(&path).unwrap();
            files.iter().map(|file| fs::read_to_string(file).unwrap()).collect::<String>()
        };
        fs::create_dir(&path).unwrap();
        let mut folder = folder(&path).unwrap();
        folder.write(b"{\"n\":1}\n").unwrap();
        assert!(kept().contains("\n{\"found\":1,\"chain\":"), "what was found comes first");
        assert!(kept().contains("\n{\"n\":1,\"chain\":"));
        let last = folder.chain.place.link;

        fs::remove_dir_all(&path).unwrap();
        assert!(folder.write(b"{\"n\":2}\n").is_err());
        assert!(folder.reserve().is_err());
        assert_eq!(folder.chain.place.link, last, "what was not written is not in the chain");
        fs::create_dir(&path).unwrap();
        folder.write(b"{\"n\":3}\n").unwrap();
        assert!(kept().starts_with("{\"kind\":\"segment\",\"version\":1,"));
        assert!(kept().contains(&format!("\"previous\":\"{last}\"")));
    }

    #[test]
    fn two_do_not_write_to_one_folder() {
        let path = tempfile::tempdir().unwrap();
        let first = folder(path.path()).unwrap();
        let told = folder(path.path()).err().unwrap().to_string();
        assert!(told.contains("writes to it; give each process a folder of its own"), "{told}");
        drop(first);
        folder(path.path()).unwrap();
    }

    #[test]
    fn what_is_too_old_or_too_many_is_removed_and_the_newest_stays() {
        let left_of = |kept: Kept, needed: Option<u32>| {
            let path = tempfile::tempdir().unwrap();
            let at = |n: u32| path.path().join(format!("audit-{n}.jsonl"));
            (1..=4).for_each(|n| fs::write(at(n), "").unwrap());
            let old = std::time::SystemTime::now() - Duration::from_secs(100);
            for n in [1, 4] {
                fs::File::options().write(true).open(at(n)).unwrap().set_modified(old).unwrap();
            }
            if let Some(needed) = needed {
                let cursor = format!(r#"{{"segment":"audit-{needed}","byte":0,"chain":null}}"#);
                fs::write(path.path().join("ship-siem.cursor"), cursor).unwrap();
            }
            let surplus = kept.surplus(path.path());
            let named = surplus.oldest_left.clone();
            surplus.removed.iter().for_each(|path| remove(path));
            let left = segments(path.path()).unwrap();
            assert!(named.is_none_or(|named| stem(&left[0]) == Some(&named)));
            (1..=4).filter(|n| at(*n).exists()).collect::<Vec<_>>()
        };
        let left = |kept: Kept| left_of(kept, None);
        let age_max = Some(Duration::from_secs(50));
        assert_eq!(left(Kept { count: usize::MAX, age_max: None }), [1, 2, 3, 4]);
        assert_eq!(left(Kept { count: 2, age_max: None }), [3, 4]);
        assert_eq!(left(Kept { count: usize::MAX, age_max }), [2, 3, 4]);
        assert_eq!(left(Kept { count: 3, age_max }), [2, 3, 4]);
        // What a sink has not got is kept longer, and not for ever.
        assert_eq!(left_of(Kept { count: 2, age_max: None }, Some(2)), [2, 3, 4]);
        assert_eq!(left_of(Kept { count: 1, age_max: None }, Some(1)), [3, 4]);
    }
}
