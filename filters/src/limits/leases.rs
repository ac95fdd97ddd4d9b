//! Limits that replicas share: each replica leases a few tokens of a limit in advance, and spends them
//! without a request to the store.
//!
//! This module decides what to request from the store, when and how much; the proxy sends it. A token
//! permits one request. A lease is the tokens of one limit that this replica holds: the store has taken them
//! from the limit's budget, so all replicas together never spend more than there is. Unspent tokens are
//! returned with the next question, or when the lease has ended.
//!
//! While the store is unreachable, each replica has its share of each limit, and no request waits.

#[cfg(any(test, feature = "model"))]
pub mod fleet;
mod lease;
#[cfg(any(test, feature = "model"))]
pub mod model;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use config::OnStoreError;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::Now;
pub use lease::{Lease, LeaseGrant, Question};

/// The leases of this replica. Bounded: the least recently used is evicted first, and its tokens are
/// returned when it ends.
pub struct Leases {
    all: Cache<u64, Arc<Lease>>,
    on_error: OnStoreError,
    /// How often the store became reachable or unreachable: it is reachable if that is odd.
    epoch: AtomicU64,
    replicas: AtomicU32,
    /// How many leases there ever were.
    count: AtomicU64,
    due: Mutex<Due>,
    leased: AtomicU64,
    spent: AtomicU64,
}

/// Leases with a question due to the store.
#[derive(Default)]
struct Due {
    /// The number of the next batch, which contains them.
    batch: u64,
    leases: Vec<Arc<Lease>>,
    /// The task that sends batches.
    waker: Option<Waker>,
}

/// Questions that are sent together. There is one batch at a time, and so one question about a limit.
pub struct Batch {
    /// Its number.
    pub number: u64,
    /// The questions.
    pub questions: Vec<Question>,
    epoch: u64,
}

/// The result of taking a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A token was taken; `remaining` more would pass now.
    Token { remaining: u32 },
    /// None is left for this long.
    Over(Duration),
    /// The lease is empty. After the batch with this number there may be a token.
    Lacking(u64),
    /// The store is unreachable, and `on_error` refuses.
    Closed,
}

/// The status of leases, for metrics and operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Whether the store is reachable.
    pub there: bool,
    /// The number of replicas, now or last.
    pub replicas: u32,
    /// The number of limits with a lease.
    pub limits: u64,
    /// Tokens that the store has leased us.
    pub leased: u64,
    /// Those of them that were spent, as far as reported to the store.
    pub spent: u64,
}

const LEASES_MAX: u64 = 100_000;
/// As for limiters that are not shared: by then it is full again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// How long a replica may spend a lease.
pub const LEASE: Duration = Duration::from_secs(1);
/// The maximum of replicas that a limit is divided by.
const REPLICAS_MAX: u32 = 10_000;

impl Leases {
    /// Before the store has been reachable.
    pub fn new(on_error: OnStoreError) -> Self {
        Self {
            all: Cache::builder().max_capacity(LEASES_MAX).time_to_idle(FORGOTTEN_AFTER).build(),
            on_error,
            epoch: AtomicU64::new(0),
            replicas: AtomicU32::new(1),
            count: AtomicU64::new(0),
            due: Mutex::default(),
            leased: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        }
    }

    /// The store is reachable, with this many replicas: its leases count from now on.
    pub fn found(&self, replicas: u32) {
        self.count_replicas(replicas);
        if !self.is_there() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The store is unreachable: its leases no longer count.
    pub fn lost(&self) {
        if self.is_there() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether the store is reachable.
    pub fn is_there(&self) -> bool {
        is_there(self.epoch.load(Ordering::Acquire))
    }

    /// Sets the number of replicas, including this one.
    pub fn count_replicas(&self, replicas: u32) {
        self.replicas.store(replicas.clamp(1, REPLICAS_MAX), Ordering::Relaxed);
    }

    /// Their status.
    pub fn status(&self) -> LeaseStatus {
        self.all.run_pending_tasks();
        LeaseStatus {
            there: self.is_there(),
            replicas: self.replicas.load(Ordering::Relaxed),
            limits: self.all.entry_count(),
            leased: self.leased.load(Ordering::Relaxed),
            spent: self.spent.load(Ordering::Relaxed),
        }
    }

    /// Whether a question is due. If not, wakes the last caller once one is.
    pub fn is_due(&self, waker: &Waker) -> bool {
        let mut due = self.due.lock();
        if !due.waker.as_ref().is_some_and(|last| last.will_wake(waker)) {
            due.waker = Some(waker.clone());
        }
        !due.leases.is_empty()
    }

    /// Begins the next batch. The previous one must have ended.
    pub fn begin(&self, now: Now) -> Batch {
        let (number, leases) = {
            let mut due = self.due.lock();
            due.batch += 1;
            (due.batch - 1, std::mem::take(&mut due.leases))
        };
        let epoch = self.epoch.load(Ordering::Acquire);
        let terms = self.terms();
        let question = |lease: Arc<Lease>| lease.question(epoch, &terms, now);
        Batch { number, questions: leases.into_iter().filter_map(question).collect(), epoch }
    }

    /// Applies the answers to a batch, in its order. It was sent at `sent`.
    pub fn end(&self, batch: &Batch, answers: &[LeaseGrant], sent: Now, now: Now) {
        for (question, answer) in batch.questions.iter().zip(answers) {
            let settled = question.spent.saturating_sub(question.acked);
            self.spent.fetch_add(settled, Ordering::Relaxed);
            self.leased.fetch_add(u64::from(answer.granted), Ordering::Relaxed);
            question.lease.answered(batch.epoch, question, answer, sent, now);
        }
    }

    /// The lease of this key.
    pub(crate) fn of(&self, key: u64, make: impl FnOnce(u64) -> Lease) -> Arc<Lease> {
        self.all.get(&key).unwrap_or_else(|| {
            self.all.get_with(key, || Arc::new(make(self.count.fetch_add(1, Ordering::Relaxed))))
        })
    }

    /// Takes a token.
    pub(crate) fn take(&self, lease: &Arc<Lease>, now: Now) -> Taken {
        let epoch = self.epoch.load(Ordering::Acquire);
        let terms = self.terms();
        if !is_there(epoch) {
            return match self.on_error {
                OnStoreError::Closed => Taken::Closed,
                OnStoreError::Share | OnStoreError::Open => lease.take_alone(&terms, now),
            };
        }
        lease.take(epoch, &terms, now, |held| {
            let mut due = self.due.lock();
            let batch = due.batch;
            if held.queued_for != Some(batch) {
                held.queued_for = Some(batch);
                due.leases.push(Arc::clone(lease));
                if let Some(waker) = &due.waker {
                    waker.wake_by_ref();
                }
            }
            batch
        })
    }

    /// How many would pass now as far as this replica knows, or how long none will. `None` if it has not
    /// asked the store yet.
    pub(crate) fn peek(&self, key: u64, now: Now) -> Option<Result<u32, Duration>> {
        let lease = self.all.get(&key)?;
        let epoch = self.epoch.load(Ordering::Acquire);
        if is_there(epoch) {
            return lease.peek(epoch, now);
        }
        match self.on_error {
            OnStoreError::Closed => Some(Ok(0)),
            OnStoreError::Share | OnStoreError::Open => Some(lease.peek_alone(&self.terms(), now)),
        }
    }

    /// Returns a token that was taken for a request that still waits for another limit.
    pub(crate) fn put_back(&self, lease: &Lease) {
        lease.put_back(self.epoch.load(Ordering::Acquire));
    }

    fn terms(&self) -> Terms {
        let replicas = self.replicas.load(Ordering::Relaxed);
        let parts = match self.on_error {
            OnStoreError::Open => 1,
            OnStoreError::Share | OnStoreError::Closed => replicas,
        };
        Terms { replicas, parts }
    }
}

/// How a replica computes its share.
struct Terms {
    replicas: u32,
    /// The divisor of a limit while the store is unreachable.
    parts: u32,
}

fn is_there(epoch: u64) -> bool {
    epoch % 2 == 1
}
