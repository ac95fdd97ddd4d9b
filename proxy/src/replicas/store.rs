//! The Redis that replicas share: one task sends one batch of questions at a time.
//!
//! `filters::leases` decides the questions. While a batch is in flight the next one is collected, so there
//! is never more than one question about a limit, and under load more go into one round trip. After any
//! failure the store counts as unreachable: no request waits for it, and only this task tries to reconnect.

mod claim;
mod connect;
mod fault;
mod switches;

use std::{
    future::poll_fn,
    sync::{Arc, LazyLock, atomic::AtomicU64},
    task::Poll,
    time::Duration,
};

use certs::LoadError;
use filters::{
    audit::event::{Event, StoreChange},
    hex,
    leases::{LEASE, LeaseGrant, Leases, Question},
    switches::shared::Removed,
};
use parking_lot::Mutex;
use redis::{ErrorKind, Pipeline, ServerErrorKind, aio::MultiplexedConnection};
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand::{SecureRandom, SystemRandom},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    clock,
    net::dial::Dial,
    observability::{audit::Audit, metrics::Metrics},
    replicas::switches::Switchboard,
    secret_file,
};
pub use claim::Claim;
pub use fault::Fault;

/// The Redis that replicas count in.
pub struct Store {
    written: config::Store,
    /// The leases of this replica.
    pub leases: Arc<Leases>,
    /// The id of this replica, for the life of this process.
    id: String,
    dial: Dial,
    metrics: Arc<Metrics>,
    audit: Arc<Audit>,
    /// The number of the first batch that has not ended.
    ended: watch::Sender<u64>,
    /// The connection in use, for anything but limits.
    connection: Mutex<Option<MultiplexedConnection>>,
    /// How many keys were ever claimed.
    claims: AtomicU64,
    /// Notified if another user of the connection gets no response.
    trouble: Notify,
    /// A switch was set or removed here.
    switched: Notify,
    /// Those that were removed here.
    removed: Mutex<Removed>,
    told: Mutex<StoreStatus>,
}

/// The status of the store.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// Since when it is reachable, or unreachable.
    pub since: u64,
    /// Why it is unreachable.
    pub fault: Option<Fault>,
}

const COUNT: &str = include_str!("store/count.lua");
static COUNT_SHA: LazyLock<String> =
    LazyLock::new(|| hex::write(digest(&SHA1_FOR_LEGACY_USE_ONLY, COUNT.as_bytes()).as_ref()));

/// A replica without a heartbeat for this long counts as gone.
const ALIVE: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_secs(1);
/// How often other replicas' switches are fetched.
const SWITCHES_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than a replica spends it, so that nothing is spent twice.
const RESERVED: Duration = Duration::from_secs(2);
/// Limits in one run of the script: others wait for Redis meanwhile.
const LIMITS_MAX: usize = 64;
/// A store that was reachable for this long is reconnected immediately.
const STEADY: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(800);

impl Store {
    /// From the config. It is not connected yet.
    pub fn new(
        written: &config::Store,
        dial: Dial,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
        leases: Arc<Leases>,
    ) -> Self {
        let mut id = [0; 8];
        SystemRandom::new().fill(&mut id).expect("the system has randomness");
        Self {
            written: written.clone(),
            leases,
            id: hex::write(&id),
            dial,
            metrics,
            audit,
            ended: watch::Sender::new(0),
            connection: Mutex::default(),
            claims: AtomicU64::new(0),
            trouble: Notify::new(),
            switched: Notify::new(),
            removed: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Waits for the answers to a batch, or until the store is unreachable.
    pub async fn answered(&self, batch: u64) {
        let mut ended = self.ended.subscribe();
        // We have the sender, so it cannot be dropped.
        let _ = ended.wait_for(|ended| *ended > batch || !self.leases.is_there()).await;
    }

    /// Its status.
    pub fn told(&self) -> StoreStatus {
        self.told.lock().clone()
    }

    /// What the operator wrote of it.
    pub fn written(&self) -> &config::Store {
        &self.written
    }

    /// Connects, serves, and reconnects, until the process ends.
    pub async fn run(&self, switchboard: &Switchboard) {
        // Waiting requests must not wait forever.
        let _stopped = Stopped(self);
        let mut failures = 0_u32;
        loop {
            let fault = match self.find().await {
                Ok(connection) => {
                    let found = clock::elapsed();
                    let fault = self.serve(connection, switchboard).await;
                    // An unstable store is not reconnected immediately each time.
                    if clock::elapsed() - found > STEADY {
                        failures = 0;
                    }
                    fault
                }
                Err(fault) => fault,
            };
            self.lost(&fault);
            tokio::time::sleep(again_after(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Tells the other replicas that this one is leaving.
    pub async fn leave(&self) {
        let Some(mut connection) = self.connection.lock().take() else { return };
        let mut going = redis::cmd("ZREM");
        going.arg(self.key("replicas")).arg(&self.id);
        let _ = timeout(**self.written.timeout, going.exec_async(&mut connection)).await;
    }

    /// Connects, and registers among the replicas, which also shows that it may write.
    async fn find(&self) -> Result<MultiplexedConnection, Fault> {
        let mut connection = connect::connect(&self.written, &self.dial).await?;
        let (replicas, _) = self.ask(&mut connection, &[]).await?;
        // A notification about the previous connection does not apply to this one.
        tokio::select! {
            biased;
            () = self.trouble.notified() => {}
            () = std::future::ready(()) => {}
        }
        self.leases.found(replicas);
        *self.connection.lock() = Some(connection.clone());
        self.found(replicas);
        Ok(connection)
    }

    /// Sends what is due, or at least heartbeats. Returns the fault that ends it.
    async fn serve(
        &self,
        mut connection: MultiplexedConnection,
        switchboard: &Switchboard,
    ) -> Fault {
        let now = tokio::time::Instant::now;
        let mut beat = now() + BEAT;
        let mut look = now();
        loop {
            let due = poll_fn(|context| match self.leases.is_due(context.waker()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            tokio::select! {
                () = due => {}
                () = tokio::time::sleep_until(beat.min(look)) => {}
                () = self.switched.notified() => look = now(),
                () = self.trouble.notified() => return Fault::late(),
            }
            if now() >= look {
                if let Err(fault) = self.share_switches(&mut connection, switchboard).await {
                    return fault;
                }
                look = now() + SWITCHES_INTERVAL;
            }
            let sent = clock::now();
            let batch = self.leases.begin(sent);
            if now() >= beat || !batch.questions.is_empty() {
                match self.ask(&mut connection, &batch.questions).await {
                    Ok((replicas, answers)) => {
                        self.leases.count_replicas(replicas);
                        self.leases.end(&batch, &answers, sent, clock::now());
                    }
                    Err(fault) => return fault,
                }
                beat = now() + BEAT;
            }
            self.ended.send_replace(batch.number + 1);
        }
    }

    /// One round trip. Returns the number of replicas, and the answers.
    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        questions: &[Question],
    ) -> Result<(u32, Vec<LeaseGrant>), Fault> {
        let asked = async {
            match self.script("EVALSHA", &COUNT_SHA, questions).query_async(connection).await {
                // It was restarted or flushed: the script's text loads it again.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.script("EVAL", COUNT, questions).query_async(connection).await
                }
                asked => asked,
            }
        };
        let answered: Result<Vec<Vec<u64>>, Fault> =
            match timeout(**self.written.timeout, asked).await {
                Ok(answered) => answered.map_err(Fault::from),
                Err(_) => Err(Fault::late()),
            };
        self.metrics.store_asked(answered.as_ref().map(drop).map_err(drop));
        let answered = answered?;
        let strange = || Fault::new("protocol", "its script returned something unexpected");
        let replicas = answered.first().and_then(|chunk| chunk.first()).ok_or_else(strange)?;
        let numbers = answered.iter().flat_map(|chunk| chunk.get(1..).unwrap_or_default());
        let numbers: Vec<u64> = numbers.copied().collect();
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (answers, _) = numbers.as_chunks::<4>();
        let answers: Vec<LeaseGrant> = answers
            .iter()
            .map(|[granted, wait, again, rest]| LeaseGrant {
                granted: count(*granted),
                wait: Duration::from_micros(*wait),
                again: Duration::from_micros(*again),
                rest: count(*rest),
            })
            .collect();
        if answers.len() != questions.len() {
            return Err(strange());
        }
        Ok((count(*replicas), answers))
    }

    /// Calls of the script, each for a number of limits, all in one message.
    fn script(&self, command: &str, script: &str, questions: &[Question]) -> Pipeline {
        let mut all = redis::pipe();
        let mut chunks = questions.chunks(LIMITS_MAX);
        let mut chunk = chunks.next().or(Some(&[]));
        while let Some(questions) = chunk {
            let run = all.cmd(command).arg(script).arg(1 + questions.len());
            run.arg(self.key("replicas"));
            for question in questions {
                run.arg(self.key(&question.lease.name));
            }
            run.arg(&self.id).arg(micros(ALIVE)).arg(micros(RESERVED));
            for Question { lease, spent, acked, left, ask, debt, carried } in questions {
                let mark = if *carried { "!" } else { "" };
                run.arg(format!("{}.{}", self.id, lease.number))
                    .arg(lease.interval.as_nanos() as f64 / 1000.0)
                    .arg(lease.burst)
                    .arg(spent)
                    .arg(acked)
                    .arg(left)
                    .arg(ask)
                    .arg(format!("{mark}{debt}"));
            }
            chunk = chunks.next();
        }
        all
    }

    /// The part in braces determines the slot: all our keys are in one, so that one node answers a whole
    /// batch.
    fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", *self.written.prefix)
    }

    fn found(&self, replicas: u32) {
        *self.told.lock() = StoreStatus { since: clock::now().unix_seconds(), fault: None };
        tracing::info!(replicas, "the store is reachable: limits are shared");
        self.audit.happened(&Event::Store { change: StoreChange::Found { replicas } });
    }

    fn lost(&self, fault: &Fault) {
        let was_there = self.leases.is_there();
        self.leases.lost();
        *self.connection.lock() = None;
        self.ended.send_modify(|_| {});
        self.metrics.store_failed(fault.cause);
        let mut told = self.told.lock();
        let is_news = was_there || told.since == 0;
        if is_news {
            told.since = clock::now().unix_seconds();
        }
        let cause = fault.cause;
        let another = told.fault.as_ref().is_none_or(|last| last.cause != cause);
        told.fault = Some(fault.clone());
        drop(told);
        let on_error = self.written.on_error.name();
        if is_news {
            tracing::warn!(cause, on_error, "the store is unreachable: {fault}");
            let replicas = self.leases.status().replicas;
            self.audit.happened(&Event::Store {
                change: StoreChange::Lost { cause, replicas, on_error },
            });
        } else if another {
            tracing::warn!(cause, on_error, "the store is still unreachable: {fault}");
        }
    }
}

/// Checks the files in a store's config.
///
/// # Errors
/// The file that cannot be used, and why.
pub fn files(written: &config::Store) -> Result<(), LoadError> {
    let passwords = [&written.password_file, &written.sentinel_password_file];
    for file in passwords.into_iter().flatten() {
        secret_file::line(file)?;
    }
    let Some(tls) = &written.tls else { return Ok(()) };
    tls.ca.as_ref().map(|ca| certs::roots(ca)).transpose()?;
    if let (Some(cert), Some(key)) = (&tls.client_cert, &tls.client_key) {
        certs::client_pair(cert, key)?;
    }
    Ok(())
}

struct Stopped<'a>(&'a Store);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.leases.lost();
        self.0.ended.send_modify(|_| {});
    }
}

/// Exponential backoff with jitter.
fn again_after(failures: u32) -> Duration {
    let after = AGAIN_AFTER.saturating_mul(1 << failures.min(10)).min(AGAIN_AFTER_MAX);
    after.mul_f64(0.5 + 0.5 * fastrand::f64())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

const _: () = assert!(LEASE.as_millis() < RESERVED.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_soon_and_at_least_every_second() {
        for failures in 0..100 {
            let after = again_after(failures);
            assert!(after >= AGAIN_AFTER / 2 && after <= AGAIN_AFTER_MAX, "{after:?}");
        }
        assert!(again_after(0) <= AGAIN_AFTER);
    }
}
