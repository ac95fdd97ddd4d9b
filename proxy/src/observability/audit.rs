//! Writes records: a buffer that requests append to, and a thread that empties it.
//!
//! Records wait briefly, so that many are written together. The intent of an action is awaited: it is
//! durable before the action is sent upstream, together with everything recorded meanwhile.

pub mod chain;
mod compress;
mod folder;
mod lock;
pub mod read;
mod recovery;
mod segment;
pub mod ship;
mod sink;

use std::{
    cell::Cell,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use filters::{
    State,
    audit::{self, chain::Link, checkpoint::PublicKey, event::Event},
};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use self::{
    chain::{Chain, Signing},
    folder::{Folder, Unwritten},
    recovery::Found,
    sink::Sink,
};
use crate::{clock, request_id::RequestId};

/// The audit log. A slow disk slows actions, and no other request.
pub struct Audit {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    buffer: Mutex<Buffer>,
    filled: Condvar,
    stopping: AtomicBool,
    lost: AtomicU64,
    written: AtomicU64,
    failing: AtomicBool,
    buffer_max: usize,
    state: Arc<State>,
    head: Mutex<Head>,
}

/// The durable end of the chain.
#[derive(Clone, Debug)]
pub struct Head {
    /// The process that wrote it, as segments name it.
    pub run: String,
    /// How many lines that process wrote.
    pub lines: u64,
    /// How many of them are under a checkpoint.
    pub signed: u64,
    /// The digest of the last of them.
    pub last: Link,
    /// The segment that it is in.
    pub segment: Option<PathBuf>,
    /// What verifies checkpoints.
    pub key: Option<PublicKey>,
}

/// Records to be written.
#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    /// The tasks that wait until these records are durable.
    waiting: Vec<oneshot::Sender<bool>>,
    /// Records lost since the last that was accepted.
    lost: u64,
}

thread_local! {
    /// Where this thread writes a line before it is appended.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The largest buffer that a thread keeps for its next line.
const LINE_KEPT: usize = 16 << 10;
/// How often the buffer is emptied.
const PACE: Duration = Duration::from_millis(50);

impl Audit {
    /// Starts writing. With `takes_over` the previous process still writes, so its open actions are not
    /// reported as unknown.
    ///
    /// On a full disk it starts, and actions are refused until there is room.
    ///
    /// # Errors
    /// If the folder cannot be written to, or another process writes to it.
    pub fn start(
        written: &config::Audit,
        signing: Option<Signing>,
        state: Arc<State>,
        takes_over: bool,
    ) -> io::Result<Self> {
        let run = RequestId::new().as_str().to_owned();
        let mut sink = match &written.directory {
            None => Sink::Stdout { run, chain: Chain::new(signing, Link::START) },
            Some(path) => {
                let found = Found::scan(path)?;
                let chain = Chain::new(signing, found.link);
                // Of a process that is still writing, nothing is unknown.
                let lines = if takes_over { Vec::new() } else { found.lines(clock::now()) };
                Sink::Folder(Folder::new(written, path, run, chain, takes_over, lines))
            }
        };
        // A checkpoint at the start says when the next is due.
        let begun = sink.reserve().and_then(|_| sink.checkpoint());
        let full = begun.as_ref().is_err_and(is_full);
        if full {
            tracing::error!("the audit disk is full: actions are refused until there is room");
            state.recording.set(false);
        } else {
            begun?;
        }
        let shared = Arc::new(Shared {
            buffer: Mutex::default(),
            filled: Condvar::new(),
            stopping: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            written: AtomicU64::new(0),
            failing: AtomicBool::new(full),
            buffer_max: usize::try_from(written.buffer_max.bytes()).unwrap_or(usize::MAX),
            state,
            head: Mutex::new(sink.head()),
        });
        let writer = std::thread::Builder::new().name("audit".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write_all(sink)
        })?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Puts one record into the buffer. If there is no room it is lost, and counted.
    pub fn record(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.shared.put(write);
    }

    /// Records an event.
    pub fn happened(&self, event: &Event<'_>) {
        self.record(|out| event.write(out, clock::now()));
    }

    /// Queues an intent for the disk; the receiver learns whether it is durable. Concurrent intents share
    /// one sync. `None` if there is no room.
    pub fn intent(&self, write: impl FnOnce(&mut Vec<u8>)) -> Option<oneshot::Receiver<bool>> {
        let (told, durable) = oneshot::channel();
        self.shared.put(write)?.waiting.push(told);
        self.shared.filled.notify_one();
        Some(durable)
    }

    /// The end of the chain, once everything recorded until now is durable. `None` if it cannot be made
    /// durable.
    pub async fn head(&self) -> Option<Head> {
        let (told, durable) = oneshot::channel();
        self.shared.buffer.lock().waiting.push(told);
        self.shared.filled.notify_one();
        durable.await.ok().filter(|durable| *durable)?;
        Some(self.last_head())
    }

    /// The last durable end of the chain.
    pub fn last_head(&self) -> Head {
        self.shared.head.lock().clone()
    }

    /// How many records were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How many bytes of records were written.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Writes the remaining records and stops.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.filled.notify_all();
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// Appends to the buffer, which stays locked. `None` if there is no room.
    fn put(&self, write: impl FnOnce(&mut Vec<u8>)) -> Option<MutexGuard<'_, Buffer>> {
        // Before the lock: others wait for a copy, and not for the writing of a line.
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        line.clear();
        write(&mut line);
        let buffer = self.append(&line);
        line.shrink_to(LINE_KEPT);
        // A thread that is ending may have no local storage any more.
        let _ = LINE.try_with(|kept| kept.set(line));
        buffer
    }

    fn append(&self, line: &[u8]) -> Option<MutexGuard<'_, Buffer>> {
        let mut buffer = self.buffer.lock();
        if buffer.lines.len() >= self.buffer_max {
            self.lost.fetch_add(1, Ordering::Relaxed);
            buffer.lost += 1;
            // What cannot be recorded must not be done.
            self.state.recording.set(false);
            return None;
        }
        buffer.lines.extend_from_slice(line);
        Some(buffer)
    }

    fn write_all(&self, mut sink: Sink) {
        let mut batch = Buffer::default();
        loop {
            let stopping = self.take(&mut batch);
            if batch.lost > 0 {
                audit::write_gap(&mut batch.lines, clock::now(), batch.lost);
            }
            let wrote = (!batch.lines.is_empty()).then(|| sink.write(&batch.lines));
            let kept = match &wrote {
                Some(Err(Unwritten { kept, .. })) => *kept,
                _ => batch.lines.len(),
            };
            self.written.fetch_add(kept as u64, Ordering::Relaxed);
            let all_kept = kept == batch.lines.len();
            if !all_kept {
                let left = batch.lines[kept..].iter().filter(|b| **b == b'\n').count() as u64;
                // The last of them reports what was lost before.
                let gaps = u64::from(batch.lost > 0);
                self.lost.fetch_add(left - gaps, Ordering::Relaxed);
                // Reported once records can be written again.
                self.buffer.lock().lost += batch.lost + left - gaps;
            }
            let synced = match batch.waiting.is_empty() {
                true if sink.is_due() => sink.checkpoint(),
                true => Ok(()),
                false => sink.sync().map(|()| *self.head.lock() = sink.head()),
            };
            let durable = all_kept && synced.is_ok();
            batch.waiting.drain(..).for_each(|told| _ = told.send(durable));
            let reserved = sink.reserve();
            let shown = match wrote {
                Some(wrote) => {
                    wrote.map_err(|left| left.error).and(synced).and(reserved.map(|_| true))
                }
                None => reserved,
            };
            self.note(shown);
            batch.lines.clear();
            batch.lines.shrink_to(1 << 20);
            batch.lost = 0;
            if stopping && self.buffer.lock().lines.is_empty() {
                let closed = sink.close();
                self.note(closed.map(|()| false));
                return;
            }
        }
    }

    /// Takes the buffer's content: after a moment, or as soon as a task waits. Returns whether it is the
    /// end.
    fn take(&self, batch: &mut Buffer) -> bool {
        let mut buffer = self.buffer.lock();
        if buffer.waiting.is_empty() && !self.stopping.load(Ordering::Relaxed) {
            self.filled.wait_for(&mut buffer, PACE);
        }
        // The count of lost records waits for a record that can be written.
        let lost = if buffer.lines.is_empty() { 0 } else { std::mem::take(&mut buffer.lost) };
        std::mem::swap(&mut buffer.lines, &mut batch.lines);
        std::mem::swap(&mut buffer.waiting, &mut batch.waiting);
        batch.lost = lost;
        self.stopping.load(Ordering::Relaxed)
    }

    /// Sets whether records can be written; `Ok(false)` means unknown. While they cannot, refused actions
    /// produce records too: the first of them that is written ends the outage.
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

/// Whether there is no room: that may change, and reads can be served meanwhile.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
