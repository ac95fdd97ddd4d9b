//! Ships records from the segments to sinks: at least once, in order, and on its own thread, so that no
//! request ever waits for a sink.

mod cursor;
mod delivery_status;
mod ocsf;
mod otlp;
mod refused;
mod secrets;
mod source;
mod syslog;
mod transport;
mod webhook;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use filters::guard::Guard;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use self::{
    cursor::{Cursor, CursorFile},
    source::{Record, Source},
    transport::{Answer, Transport},
};
use crate::{
    clock,
    net::{dial::Dial, parent::Parents},
};

pub use self::cursor::oldest_needed;
pub use self::{delivery_status::DeliveryStatus, secrets::Secrets};

/// Ships until it is stopped.
pub struct Shipping {
    dial: Dial,
    delivery_status: Vec<Arc<DeliveryStatus>>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One sink's task.
struct Sink {
    name: config::Name,
    batch_max: usize,
    interval: Duration,
    kept: CursorFile,
    way: Transport,
    delivery_status: Arc<DeliveryStatus>,
    stop: watch::Receiver<bool>,
    /// Attempts that failed in a row.
    failed: u32,
    /// Whether something was sent that has not been acknowledged.
    unanswered: bool,
}

/// When to try again.
enum Go {
    On,
    /// The process ends, and the next one continues.
    Handover,
}

/// The longest time that the end of the process waits for sinks.
const END_MAX: Duration = Duration::from_secs(2);
/// How often a process checks whether the previous one has stopped shipping.
const LOCK_PACE: Duration = Duration::from_secs(1);
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(30);

impl Shipping {
    /// Starts shipping `audit.directory` to each configured sink.
    ///
    /// # Errors
    /// The files in their configs that cannot be used.
    pub fn start(config: &config::Config) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        // Its own, so that nothing else waits for lookups made here.
        let dial = Dial::asking(&config.process.name_servers);
        let mut this = Self { dial, delivery_status: Vec::new(), stop, thread: Mutex::default() };
        let Some(folder) = &config.audit.directory else { return Ok(this) };
        let parents = Parents::of(config).map_err(|cause| anyhow::anyhow!("{cause}"))?;
        this.use_parents(&Arc::new(parents));
        let names: Vec<&str> = config.audit.ship.keys().map(|name| &**name).collect();
        cursor::park(folder, &names)?;
        let guard = Arc::new(Guard::new(&config.egress));
        let mut sinks = Vec::new();
        for (name, written) in &config.audit.ship {
            let delivery_status = Arc::new(DeliveryStatus::new(name.clone(), written.kind));
            this.delivery_status.push(Arc::clone(&delivery_status));
            let secrets = Secrets::read(written)?;
            sinks.push(Sink {
                name: name.clone(),
                batch_max: usize::try_from(written.batch_max.value).unwrap_or(usize::MAX),
                interval: *written.interval.value,
                kept: CursorFile::new(folder, name),
                way: Transport::new(
                    written.value.clone(),
                    this.dial.clone(),
                    Arc::clone(&guard),
                    secrets,
                ),
                delivery_status,
                stop: stopped.clone(),
                failed: 0,
                unanswered: false,
            });
        }
        if !sinks.is_empty() {
            let folder = folder.clone();
            let ship = move || ship(sinks, &folder, stopped);
            let thread = std::thread::Builder::new().name("ship".to_owned()).spawn(ship)?;
            this.thread = Mutex::new(Some(thread));
        }
        Ok(this)
    }

    /// Uses these parent proxies from now on.
    pub(crate) fn use_parents(&self, parents: &Arc<Parents>) {
        self.dial.use_parents(parents);
    }

    /// The status of each sink, for operators.
    pub(crate) fn delivery_status(&self) -> &[Arc<DeliveryStatus>] {
        &self.delivery_status
    }

    /// Ships the rest, for a limited time, and stops. Records must have been written by then.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// Ships to all sinks, on their own thread.
fn ship(sinks: Vec<Sink>, folder: &Path, mut stopped: watch::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "audit records are not shipped");
            return;
        }
    };
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for sink in sinks {
            tasks.spawn(sink.run(folder.to_owned()));
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        let end = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            sleep(END_MAX).await;
        };
        tokio::select! {
            () = all => {}
            () = end => tracing::warn!("some audit records are not shipped yet: the next start continues"),
        }
    });
    // Blocking work must not delay the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
}

impl Sink {
    async fn run(mut self, folder: std::path::PathBuf) {
        let Some((_held, from)) = self.begin().await else { return };
        let mut source = Source::new(&folder, from.clone());
        let mut stored = from;
        loop {
            let (max, begun) = (self.batch_max, source.at().clone());
            let (back, read) = blocking(move || {
                let read = source.read(max);
                (source, read)
            })
            .await;
            source = back;
            self.delivery_status.lost_segments.store(source.lost(), Ordering::Relaxed);
            let records = match read {
                Ok(records) => records,
                Err(error) => {
                    let cause = format!("the segments cannot be read: {error}");
                    let Go::On = self.wait(&cause, None).await else { return };
                    continue;
                }
            };
            let went = if records.is_empty() {
                self.rest(&mut source, &mut stored).await
            } else {
                self.ship(&records, &begun, &mut source, &mut stored).await
            };
            let Go::On = went else { return };
        }
    }

    /// Waits until it is this process that ships, and finds out from where on.
    async fn begin(&mut self) -> Option<(cursor::ShipLock, Cursor)> {
        let held = loop {
            match self.kept.hold() {
                Ok(Some(held)) => break held,
                Ok(None) => {
                    self.delivery_status.elsewhere(true);
                    let Go::On = self.pause(LOCK_PACE).await else { return None };
                }
                Err(error) => {
                    let cause = format!("the lock cannot be taken: {error}");
                    let Go::On = self.wait(&cause, None).await else { return None };
                }
            }
        };
        self.delivery_status.elsewhere(false);
        loop {
            match self.kept.load() {
                Ok(Some(cursor)) => {
                    self.delivery_status.at(&cursor);
                    return Some((held, cursor));
                }
                Ok(None) => {
                    let Go::On = self.pause(self.interval).await else { return None };
                }
                Err(error) => {
                    let cause = format!("the cursor cannot be read: {error}");
                    let Go::On = self.wait(&cause, None).await else { return None };
                }
            }
        }
    }

    /// Nothing to ship: what was sent last counts as delivered unless the receiver reports otherwise.
    async fn rest(&mut self, source: &mut Source, stored: &mut Cursor) -> Go {
        if *source.at() != *stored {
            if self.unanswered {
                // A closed connection is noticed within this time.
                let _ = timeout(self.interval, self.stop.wait_for(|stopped| *stopped)).await;
                if !self.way.is_open().await {
                    self.unanswered = false;
                    source.rewind(stored);
                    return self.wait("the receiver has closed the connection", None).await;
                }
                self.unanswered = false;
            }
            let at = source.at().clone();
            if let Err(error) = self.store(&at, stored).await {
                return self.wait(&error, None).await;
            }
        }
        self.delivery_status.oldest(None);
        self.delivery_status.works();
        self.failed = 0;
        if *self.stop.borrow() {
            return Go::Handover;
        }
        // A stop ends the pause, and records written until then are still shipped.
        let _ = timeout(self.interval, self.stop.wait_for(|stopped| *stopped)).await;
        Go::On
    }

    /// Ships a batch that follows `begun`, in parts if need be.
    async fn ship(
        &mut self,
        batch: &[Record],
        begun: &Cursor,
        source: &mut Source,
        stored: &mut Cursor,
    ) -> Go {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let Some(last) = part.last() else { continue };
            // Without acknowledgements, a batch counts once the next one was sent as well.
            let safe = if self.way.has_no_answers() {
                before(batch, part, begun)
            } else {
                last.end.clone()
            };
            self.delivery_status.oldest(part.first().and_then(|record| written_at(&record.line)));
            let (cause, wait) = match self.way.send(part).await {
                answer @ (Answer::Taken | Answer::Partly(..)) => {
                    let mut taken = part.len() as u64;
                    if let Answer::Partly(count, why) = &answer {
                        taken = taken.saturating_sub(*count);
                        self.delivery_status.refused.fetch_add(*count, Ordering::Relaxed);
                        tracing::error!(sink = %self.name, count, why = %why.escape_debug(), segment = last.end.segment, byte = last.end.mark.byte, "some of the records before this position were refused");
                    }
                    self.delivery_status.shipped.fetch_add(taken, Ordering::Relaxed);
                    self.unanswered = self.way.has_no_answers();
                    match self.store(&safe, stored).await {
                        Ok(()) => {
                            self.failed = 0;
                            self.delivery_status.works();
                        }
                        // It was accepted, and may be sent twice.
                        Err(error) => {
                            let Go::On = self.wait(&error, None).await else { return Go::Handover };
                        }
                    }
                    continue;
                }
                Answer::Refused(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                Answer::Refused(cause) => match self.set_aside(last, &cause).await {
                    Ok(()) => {
                        if let Err(error) = self.store(&safe, stored).await {
                            let Go::On = self.wait(&error, None).await else { return Go::Handover };
                        }
                        continue;
                    }
                    Err(cause) => (cause, None),
                },
                Answer::Later(cause, wait) => (cause, wait),
            };
            let Go::On = self.wait(&cause, wait).await else { return Go::Handover };
            if self.way.has_no_answers() {
                self.unanswered = false;
                source.rewind(stored);
                return Go::On;
            }
            parts.push(part);
        }
        Go::On
    }

    /// Sets a record aside that the sink refuses by itself.
    async fn set_aside(&self, record: &Record, cause: &str) -> Result<(), String> {
        let file = self.kept.path("refused.jsonl");
        let (path, line, why) = (file.clone(), record.line.clone(), cause.to_owned());
        match blocking(move || refused::set_aside(&path, &line, &why)).await {
            Ok(true) => {
                self.delivery_status.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(sink = %self.name, cause, record = %id(&record.line), segment = record.end.segment, file = %file.display(), "the sink refused an audit record, which was set aside");
                Ok(())
            }
            Ok(false) => Err(format!(
                "{cause}, and `{}` is full of refused records: look at it and move it away",
                file.display()
            )),
            Err(error) => Err(format!("`{}` cannot be written: {error}", file.display())),
        }
    }

    async fn store(&self, cursor: &Cursor, stored: &mut Cursor) -> Result<(), String> {
        if cursor == stored {
            return Ok(());
        }
        let (kept, next) = (self.kept.clone(), cursor.clone());
        let kept = blocking(move || kept.store(&next)).await;
        kept.map_err(|error| format!("the cursor cannot be written: {error}"))?;
        stored.clone_from(cursor);
        self.delivery_status.at(cursor);
        Ok(())
    }

    /// Reports a failure, and waits before the next attempt.
    async fn wait(&mut self, cause: &str, wanted: Option<Duration>) -> Go {
        self.delivery_status.fails(clock::now().unix_seconds(), cause);
        let wait = WAIT_MAX.min(WAIT_FIRST * 2_u32.saturating_pow(self.failed.min(10)));
        self.failed += 1;
        // Spread, so that replicas do not retry together.
        let some = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.pause(wanted.map_or(some, |wanted| wanted + some / 10)).await
    }

    async fn pause(&mut self, wait: Duration) -> Go {
        match timeout(wait, self.stop.wait_for(|stopped| *stopped)).await {
            Ok(_) => Go::Handover,
            Err(_) => Go::On,
        }
    }
}

/// The place before a part of a batch that follows `begun`.
fn before(batch: &[Record], part: &[Record], begun: &Cursor) -> Cursor {
    let first = part.first().map(|record| &record.end);
    let at = batch.iter().position(|record| Some(&record.end) == first);
    let last = at.and_then(|at| at.checked_sub(1)).map(|last| &batch[last].end);
    last.unwrap_or(begun).clone()
}

/// When a record was written, in seconds since 1970.
fn written_at(line: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct RecordFields {
        time: String,
    }
    let fields: RecordFields = serde_json::from_slice(line).ok()?;
    u64::try_from(ocsf::milliseconds(&fields.time)? / 1000).ok()
}

/// The id of a record, for our own log.
fn id(line: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct RecordFields {
        id: Option<String>,
        chain: Option<String>,
    }
    let fields = serde_json::from_slice::<RecordFields>(line).ok();
    fields.and_then(|fields| fields.id.or(fields.chain)).unwrap_or_else(|| "?".to_owned())
}

/// Runs disk work on a blocking thread, so that it delays no other sink.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}
