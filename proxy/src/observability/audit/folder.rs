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
    /// `None` while the previous process still writes.
    lock: Option<Lock>,
    takes_over: bool,
    length_max: u64,
    age_max: Duration,
    kept: Retention,
    compresses: bool,
    compress: Option<Compress>,
    open: Option<Segment>,
    /// What was found of previous processes, until it is recorded: the first lines to be written once there
    /// is room.
    found: Vec<u8>,
    /// Who writes: segments of one process follow each other.
    run: String,
    pub(super) chain: Chain,
}

/// Not all lines could be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// How many bytes were: whole lines, from the first on.
    pub(super) kept: usize,
    pub(super) error: io::Error,
}

/// Which segments stay.
struct Retention {
    count: usize,
    age_max: Option<Duration>,
}

impl Folder {
    /// Continues from the last line in a folder. With `takes_over` the previous process still writes;
    /// `found` is written first. Nothing is written yet.
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
            kept: Retention {
                count: match written.segments_max {
                    0 => usize::MAX,
                    count => count as usize,
                },
                age_max: written.retention.map(Into::into),
            },
            compresses: written.compress,
            compress: None,
            open: None,
            found,
            run,
            chain,
        }
    }

    /// Seals lines and appends them, to as many segments as they need: each ends before the line that would
    /// make it too long. A line that is too long by itself gets its own segment.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let mut kept = 0;
        while kept < lines.len() {
            kept += self.append(&lines[kept..]).map_err(|error| Unwritten { kept, error })?;
        }
        Ok(())
    }

    /// Appends as many lines as fit into one segment, all of them or none. Returns how many bytes of them
    /// that were.
    fn append(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.begin()?;
        let segment = self.open.as_ref().expect("just begun");
        let (has_more, room) = (segment.has_more(), segment.room(self.length_max));
        let mut piece = self.chain.seal_within(lines, room);
        if piece.taken == 0 && has_more {
            self.close()?;
            return Ok(0);
        }
        if piece.taken == 0 {
            piece = self.chain.seal_one(lines);
        }
        self.open.as_mut().expect("just begun").append(&piece.bytes)?;
        self.chain.place = piece.place;
        Ok(piece.taken)
    }

    /// Signs what is not signed yet, if there is anything.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.open else { return Ok(()) };
        let Some((line, place)) = self.chain.checkpoint() else { return Ok(()) };
        segment.append(&line)?;
        self.chain.place = place;
        segment.sync()
    }

    /// Makes what was written durable. The content of a removed file is not.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.open {
            Some(segment) if segment.is_there() => segment.sync(),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "the segment was removed")),
        }
    }

    /// Ensures that there is a segment, and room in it. `false` if only a write can show that.
    pub(super) fn reserve(&mut self) -> io::Result<bool> {
        self.lock()?;
        let is_full = |segment: &Segment| segment.is_full(self.length_max, self.age_max);
        if self.open.as_ref().is_some_and(is_full) {
            self.close()?;
        }
        self.begin()?;
        self.open.as_mut().expect("just begun").reserve()
    }

    /// Writes the last line, and closes the open segment.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.open.is_some() {
            let mut end = Vec::new();
            audit::write_end(&mut end, clock::now());
            self.write(&end).map_err(|unwritten| unwritten.error)?;
        }
        self.close()
    }

    /// Closes the open segment.
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

    /// Begins a segment if none is open, or if it was removed.
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
        let pruned = self.prune();
        // Also if that failed: then the next line is the first.
        self.open.as_mut().expect("just begun").begun();
        pruned
    }

    /// Removes segments that are too old or too many, and records it first: a segment that is missing
    /// without that record was removed by someone else.
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

    /// Takes the lock if we do not have it, or if the folder was replaced.
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

    /// Closed segments that are not compressed, because no other process writes here now.
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
    /// The name of the oldest one after that; `None` if none is removed.
    oldest_left: Option<String>,
}

impl Retention {
    /// Segments that are too old or too many. The newest always stays, and one that a sink still needs stays
    /// until there are twice as many, or it is twice as old.
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
                tracing::error!(path = %path.display(), "an audit segment was removed before it was shipped");
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
    use filters::audit::chain::{Link, Sealed};

    use super::*;
    use crate::observability::audit::chain::Signing;

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

    const LIMIT: u64 = 4096;

    /// A folder with small segments, after these lines.
    fn small(path: &Path, signing: Option<Signing>, lines: &[u8]) -> Vec<String> {
        let written = config::Audit {
            segment_max: config::Size::of_bytes(LIMIT),
            segments_max: 0,
            ..config::Audit::default()
        };
        let chain = Chain::new(signing, Link::START);
        let mut folder = Folder::new(&written, path, "run".to_owned(), chain, false, Vec::new());
        folder.reserve().unwrap();
        folder.write(lines).unwrap();
        folder.end().unwrap();
        let files = segments(path).unwrap();
        files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
    }

    /// A record, with its number.
    fn line(n: usize, padding: usize) -> String {
        format!("{{\"n\":{n},\"padding\":\"{}\"}}\n", "x".repeat(padding))
    }

    /// Checks that lines follow each other from the first on, and returns the numbers of records.
    fn numbers(segments: &[String]) -> Vec<u64> {
        let mut last = Link::START;
        let mut numbers = Vec::new();
        for line in segments.iter().flat_map(|text| text.lines()) {
            let sealed = Sealed::of(line.as_bytes()).unwrap();
            assert!(sealed.follows(&last), "{line}");
            last = sealed.link;
            let read: serde_json::Value = serde_json::from_str(line).unwrap();
            numbers.extend(read["n"].as_u64());
        }
        numbers
    }

    #[test]
    fn a_segment_ends_before_the_line_that_would_make_it_too_long() {
        let lines: String = (0..200).map(|n| line(n, n * 7)).collect();
        let path = tempfile::tempdir().unwrap();
        let kept = small(path.path(), None, lines.as_bytes());
        assert_eq!(numbers(&kept), (0..200).collect::<Vec<_>>());
        assert!(kept.iter().all(|text| text.len() as u64 <= LIMIT));
        let (last, closed) = kept.split_last().unwrap();
        let next = closed.iter().skip(1).chain([last]).map(|text| text.lines().nth(1).unwrap());
        let wasted = closed.iter().zip(next).find(|(text, next)| text.len() + next.len() < 4096);
        assert_eq!(wasted, None, "a segment was closed although a line would have fitted");
    }

    #[test]
    fn a_line_that_is_longer_than_a_segment_has_one_of_its_own() {
        let lines = [line(0, 10), line(1, 5000), line(2, 10)].concat();
        let path = tempfile::tempdir().unwrap();
        let kept = small(path.path(), None, lines.as_bytes());
        assert_eq!(numbers(&kept), [0, 1, 2]);
        let own: Vec<Vec<u64>> = kept
            .iter()
            .map(|text| (0..3).filter(|n| text.contains(&format!("\"n\":{n},"))).collect())
            .collect();
        assert_eq!(own, [[0], [1], [2]]);
    }

    #[test]
    fn what_a_segment_ends_with_when_it_is_signed_is_within_the_limit() {
        let (private, _) = certs::dev::signing_key().unwrap();
        let path = tempfile::tempdir().unwrap();
        let key = path.path().join("key");
        fs::write(&key, private).unwrap();
        for lines_max in [3_u32, 10_000] {
            let signing = Signing::new(&config::Checkpoints {
                key_file: config::Located::nowhere(key.clone()),
                lines_max: lines_max.try_into().unwrap(),
                interval: "1m".parse().unwrap(),
            });
            let signing = signing.unwrap();
            let lines: String = (0..100).map(|n| line(n, n * 3)).collect();
            let path = tempfile::tempdir().unwrap();
            let kept = small(path.path(), Some(signing), lines.as_bytes());
            assert_eq!(numbers(&kept), (0..100).collect::<Vec<_>>());
            assert!(kept.len() > 5);
            for text in kept {
                assert!(text.len() as u64 <= LIMIT, "{}", text.len());
                assert!(text.lines().last().unwrap().starts_with("{\"kind\":\"checkpoint\""));
            }
        }
    }

    #[test]
    fn records_accepted_before_a_segment_failed_to_open_are_counted() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("audit");
        fs::create_dir(&path).unwrap();
        let written = config::Audit {
            segment_max: config::Size::of_bytes(LIMIT),
            ..config::Audit::default()
        };
        let chain = Chain::new(None, Link::START);
        let mut folder = Folder::new(&written, &path, "run".to_owned(), chain, false, Vec::new());
        folder.reserve().unwrap();
        let moved = parent.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        let lines: Vec<String> = (0..30).map(|n| line(n, 300)).collect();
        let unwritten = folder.write(lines.concat().as_bytes()).unwrap_err();
        let kept = numbers(&[fs::read_to_string(&segments(&moved).unwrap()[0]).unwrap()]);
        assert!(kept.len() > 5 && kept.len() < 30, "{kept:?}");
        assert_eq!(unwritten.kept, lines[..kept.len()].concat().len());
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
        assert!(told.contains("writes to it; give each process its own folder"), "{told}");
        drop(first);
        folder(path.path()).unwrap();
    }

    #[test]
    fn what_is_too_old_or_too_many_is_removed_and_the_newest_stays() {
        let left_of = |kept: Retention, needed: Option<u32>| {
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
        let left = |kept: Retention| left_of(kept, None);
        let age_max = Some(Duration::from_secs(50));
        assert_eq!(left(Retention { count: usize::MAX, age_max: None }), [1, 2, 3, 4]);
        assert_eq!(left(Retention { count: 2, age_max: None }), [3, 4]);
        assert_eq!(left(Retention { count: usize::MAX, age_max }), [2, 3, 4]);
        assert_eq!(left(Retention { count: 3, age_max }), [2, 3, 4]);
        // What a sink still needs stays longer, but not forever.
        assert_eq!(left_of(Retention { count: 2, age_max: None }, Some(2)), [2, 3, 4]);
        assert_eq!(left_of(Retention { count: 1, age_max: None }, Some(1)), [3, 4]);
    }
}
