//! Writes records: a buffer that requests append to, and a thread that empties it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use filters::State;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, fallocate};

/// Takes records. A slow disk never slows a request.
pub struct Audit {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    buffer: Mutex<Vec<u8>>,
    filled: Condvar,
    stopping: AtomicBool,
    lost: AtomicU64,
    written: AtomicU64,
    failing: AtomicBool,
    buffer_max: usize,
    state: Arc<State>,
}

/// Where records go.
enum Sink {
    Stdout,
    Folder { folder: PathBuf, segment_max: u64, kept: u32, open: Option<Segment> },
}

struct Segment {
    file: File,
    length: u64,
    reserved: u64,
}

/// How often the buffer is emptied.
const PACE: Duration = Duration::from_millis(50);
/// Room that is reserved on the disk ahead of what is written, so that a full disk is known before
/// an action needs it.
const RESERVE: u64 = 1 << 20;

impl Audit {
    /// Begins to write.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn start(written: &config::Audit, state: Arc<State>) -> io::Result<Self> {
        let mut sink = match &written.folder {
            None => Sink::Stdout,
            Some(folder) => Sink::Folder {
                folder: folder.clone(),
                segment_max: written.segment_max.bytes().max(RESERVE),
                kept: written.segments_kept,
                open: None,
            },
        };
        sink.reserve()?;
        let shared = Arc::new(Shared {
            buffer: Mutex::new(Vec::with_capacity(64 << 10)),
            filled: Condvar::new(),
            stopping: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            written: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            buffer_max: usize::try_from(written.buffer_max.bytes()).unwrap_or(usize::MAX),
            state,
        });
        let writer = std::thread::Builder::new().name("audit".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write_all(sink)
        })?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Puts one record into the buffer. If there is no room it is lost, and counted.
    pub fn record(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.shared.buffer.lock();
        if buffer.len() >= self.shared.buffer_max {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            // What cannot be recorded must not be done.
            self.shared.state.recording.set(false);
            return;
        }
        write(&mut buffer);
    }

    /// How many records were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Writes what is left and stops.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.filled.notify_all();
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn write_all(&self, mut sink: Sink) {
        let mut batch = Vec::with_capacity(64 << 10);
        loop {
            let stopping = {
                let mut buffer = self.buffer.lock();
                if buffer.is_empty() && !self.stopping.load(Ordering::Relaxed) {
                    self.filled.wait_for(&mut buffer, PACE);
                }
                std::mem::swap(&mut *buffer, &mut batch);
                self.stopping.load(Ordering::Relaxed)
            };
            let wrote = (!batch.is_empty()).then(|| sink.write(&batch));
            match &wrote {
                Some(Err(_)) => {
                    let records = batch.iter().filter(|b| **b == b'\n').count();
                    self.lost.fetch_add(records as u64, Ordering::Relaxed);
                }
                _ => _ = self.written.fetch_add(batch.len() as u64, Ordering::Relaxed),
            }
            let reserved = sink.reserve();
            let shown = match wrote {
                Some(wrote) => wrote.and(reserved.map(|_| true)),
                None => reserved,
            };
            self.note(shown);
            batch.clear();
            batch.shrink_to(1 << 20);
            if stopping && self.buffer.lock().is_empty() {
                return;
            }
            if !stopping {
                std::thread::sleep(PACE);
            }
        }
    }

    /// Notes whether records can be kept; `Ok(false)` shows nothing. While they cannot, the actions
    /// that are refused are records too: the first of them that is kept ends it.
    fn note(&self, shown: io::Result<bool>) {
        let works = match shown {
            Ok(false) => return,
            Ok(true) => true,
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "audit records cannot be written: actions are refused");
                }
                false
            }
        };
        if works && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("audit records can be written again");
        }
        self.state.recording.set(works);
    }
}

impl Sink {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(batch)?;
                out.flush()
            }
            Self::Folder { folder, kept, open, .. } => {
                let segment = segment(folder, *kept, open)?;
                let length = segment.length;
                if let Err(error) = segment.file.write_all(batch) {
                    // Half a line would spoil the next one.
                    let _ = segment.file.set_len(length);
                    segment.reserved = length;
                    return Err(error);
                }
                segment.length += batch.len() as u64;
                Ok(())
            }
        }
    }

    /// Makes sure that there is a segment, and room in it. `false` if that cannot be told without
    /// writing.
    fn reserve(&mut self) -> io::Result<bool> {
        let Self::Folder { folder, segment_max, kept, open } = self else { return Ok(false) };
        if let Some(full) = open.take_if(|segment| segment.length >= *segment_max) {
            full.file.sync_data()?;
        }
        let segment = segment(folder, *kept, open)?;
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
}

/// The segment to write to: another one if there is none, or if it was removed under us.
fn segment<'a>(
    folder: &Path,
    kept: u32,
    open: &'a mut Option<Segment>,
) -> io::Result<&'a mut Segment> {
    open.take_if(|segment| !segment.is_there());
    if open.is_none() {
        *open = Some(Segment::create(folder)?);
        prune(folder, kept);
    }
    Ok(open.as_mut().expect("just made"))
}

impl Segment {
    fn create(folder: &Path) -> io::Result<Self> {
        let now = crate::clock::now().unix;
        let time = String::from_utf8_lossy(&filters::audit::rfc3339(now)).replace([':', '.'], "");
        let name = format!("audit-{time}-{}.jsonl", std::process::id());
        let path = folder.join(name);
        let file = File::options().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, reserved: length })
    }

    /// Whether the file can still be found, not removed under us.
    fn is_there(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().is_ok_and(|data| data.nlink() > 0)
    }
}

/// Removes the oldest segments beyond `kept`. 0 keeps all.
fn prune(folder: &Path, kept: u32) {
    if kept == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut segments: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("audit-") && name.ends_with(".jsonl")
        })
        .collect();
    segments.sort();
    let surplus = segments.len().saturating_sub(kept as usize);
    for path in &segments[..surplus] {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old audit segment");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_removed_is_written_to_as_soon_as_it_is_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("audit");
        let kept = || {
            let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
            files.map(|file| fs::read_to_string(file).unwrap()).collect::<String>()
        };
        fs::create_dir(&folder).unwrap();
        let mut sink =
            Sink::Folder { folder: folder.clone(), segment_max: RESERVE, kept: 0, open: None };
        assert!(sink.reserve().is_ok());
        sink.write(b"1\n").unwrap();
        assert_eq!(kept(), "1\n");

        fs::remove_dir_all(&folder).unwrap();
        assert!(sink.write(b"2\n").is_err());
        assert!(sink.reserve().is_err());
        fs::create_dir(&folder).unwrap();
        sink.write(b"3\n").unwrap();
        assert_eq!(kept(), "3\n");
    }

    #[test]
    fn only_a_record_shows_whether_standard_output_takes_records() {
        assert!(!Sink::Stdout.reserve().unwrap());
    }
}
