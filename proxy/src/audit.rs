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
            let result = sink.write(&batch).and_then(|()| sink.reserve());
            match &result {
                Ok(()) => _ = self.written.fetch_add(batch.len() as u64, Ordering::Relaxed),
                Err(error) => {
                    let records = batch.iter().filter(|b| **b == b'\n').count();
                    self.lost.fetch_add(records as u64, Ordering::Relaxed);
                    if !self.failing.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "audit records cannot be written: actions are refused");
                    }
                }
            }
            if result.is_ok() && self.failing.swap(false, Ordering::Relaxed) {
                tracing::info!("audit records can be written again");
            }
            self.state.recording.set(result.is_ok());
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
}

impl Sink {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                if batch.is_empty() {
                    return Ok(());
                }
                let mut out = io::stdout().lock();
                out.write_all(batch)?;
                out.flush()
            }
            Self::Folder { open, segment_max, .. } => {
                if batch.is_empty() {
                    return Ok(());
                }
                let segment = open.as_mut().ok_or(io::ErrorKind::NotFound)?;
                let length = segment.length;
                if let Err(error) = segment.file.write_all(batch) {
                    // Half a line would spoil the next one.
                    let _ = segment.file.set_len(length);
                    segment.reserved = length;
                    return Err(error);
                }
                segment.length += batch.len() as u64;
                if segment.length >= *segment_max {
                    segment.file.sync_data()?;
                    *open = None;
                }
                Ok(())
            }
        }
    }

    /// Makes sure that there is a segment, and room in it.
    fn reserve(&mut self) -> io::Result<()> {
        let Self::Folder { folder, kept, open, .. } = self else { return Ok(()) };
        if open.as_ref().is_some_and(|segment| !segment.is_there()) {
            *open = None;
        }
        if open.is_none() {
            *open = Some(Segment::create(folder)?);
            prune(folder, *kept);
        }
        let segment = open.as_mut().expect("just made");
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
        Ok(())
    }
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
