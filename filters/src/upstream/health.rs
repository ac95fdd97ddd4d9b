//! The health of each address of an upstream, and which of them may be used.
//!
//! Consecutive failures eject an address for some time; health checks mark one unhealthy until they succeed.
//! Both are stored by upstream and address, so they outlive a reload.

mod pool;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    Label, Now,
    upstream::{balance::Candidate, rendezvous},
};

pub use pool::{AddressStatus, Pool};

/// The addresses that the upstreams' names currently resolve to.
#[derive(Default)]
pub struct Health(Mutex<HashMap<Label, HashMap<SocketAddr, Arc<Address>>>>);

/// One address of an upstream.
#[derive(Debug)]
pub struct Address {
    /// The address.
    pub at: SocketAddr,
    seed: u64,
    in_flight: AtomicUsize,
    /// Consecutive failures.
    failures: AtomicU32,
    history: Mutex<History>,
}

/// The state of an address besides its consecutive failures. Locked only when one of them counts.
#[derive(Debug, Default)]
struct History {
    ejected: Option<Ejected>,
    /// Recent ejections, which lengthen the next.
    ejections: u32,
    /// When the last ejection ended.
    returned: Duration,
    /// Whether health checks marked it unhealthy.
    unhealthy: bool,
    /// Consecutive successful checks.
    passed: u32,
    /// Consecutive failed checks.
    failed: u32,
    /// When the next check is due.
    due: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Ejected {
    until: Now,
    fault: Fault,
}

/// Why an address is out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection.
    Connect,
    /// The connection broke, or the response was not HTTP.
    Reset,
    /// It timed out.
    Timeout,
    /// It responded with a failure.
    Status,
    /// It failed its health check.
    Check,
}

impl Fault {
    /// Its name in records, metrics and on the admin listener.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Check => "health_check",
        }
    }
}

/// The condition of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It may be used.
    Healthy,
    /// It has failed, and is out of use for some time.
    Ejected {
        /// Why.
        fault: Fault,
        /// Until when.
        until: Now,
    },
    /// It fails its health checks.
    Unhealthy,
}

impl Condition {
    /// The names of all of them.
    pub const NAMES: [&str; 3] = ["healthy", "ejected", "unhealthy"];

    /// Its name in records, metrics and on the admin listener.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Ejected { .. } => "ejected",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Why it is out of use, if it is.
    pub fn fault(self) -> Option<Fault> {
        match self {
            Self::Healthy => None,
            Self::Ejected { fault, .. } => Some(fault),
            Self::Unhealthy => Some(Fault::Check),
        }
    }

    /// Until when it is out of use, if that is known.
    pub fn until(self) -> Option<Now> {
        match self {
            Self::Ejected { until, .. } => Some(until),
            Self::Healthy | Self::Unhealthy => None,
        }
    }
}

/// A change of an address's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The address.
    pub at: SocketAddr,
    /// Its new condition.
    pub to: Condition,
}

/// An attempt at an address; in progress until it is dropped.
#[derive(Debug)]
pub struct Attempt {
    address: Arc<Address>,
    told: bool,
}

impl Attempt {
    /// Its address.
    pub fn at(&self) -> SocketAddr {
        self.address.at
    }

    /// Reports success, unless a failure was reported before.
    pub fn succeeded(&mut self) {
        let told = std::mem::replace(&mut self.told, true);
        // Usually there is nothing to write, and so no contention for a cache line.
        if !told && self.address.failures.load(Relaxed) > 0 {
            self.address.failures.store(0, Relaxed);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.address.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Health {
    /// Sets an upstream's addresses and returns their states. Its other addresses are removed.
    pub fn of(&self, upstream: &Label, found: &[SocketAddr]) -> Vec<Arc<Address>> {
        let mut all = self.0.lock();
        let known = all.entry(upstream.clone()).or_default();
        let addresses: Vec<_> = found
            .iter()
            .map(|at| known.get(at).map_or_else(|| Arc::new(Address::new(*at)), Arc::clone))
            .collect();
        *known = addresses.iter().map(|address| (address.at, Arc::clone(address))).collect();
        addresses
    }

    /// Removes upstreams that the config does not name any more.
    pub fn keep(&self, named: impl Fn(&Label) -> bool) {
        self.0.lock().retain(|upstream, _| named(upstream));
    }
}

impl Candidate for Address {
    fn at(&self) -> SocketAddr {
        self.at
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }
}

impl Address {
    /// A new address.
    pub(crate) fn new(at: SocketAddr) -> Self {
        let ip = match at.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let (ip, port) = (ip.octets(), at.port().to_be_bytes());
        Self {
            at,
            seed: rendezvous::digest([&ip[..], &port]),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            history: Mutex::default(),
        }
    }

    /// Begins an attempt.
    pub(crate) fn begin(self: &Arc<Self>) -> Attempt {
        self.in_flight.fetch_add(1, Relaxed);
        Attempt { address: Arc::clone(self), told: false }
    }

    fn condition(&self) -> Condition {
        self.history.lock().condition()
    }

    fn change(&self, history: &History) -> Change {
        Change { at: self.at, to: history.condition() }
    }

    /// Ejects it: the longer, the more often it was ejected recently.
    fn eject(&self, fault: Fault, rules: &config::OutlierDetection, now: Now) -> Change {
        let mut history = self.history.lock();
        let calm = history.returned + *rules.ejection_time_max <= now.elapsed;
        history.ejections = if calm { 1 } else { history.ejections.saturating_add(1) };
        let rest = rules
            .base_ejection_time
            .saturating_mul(history.ejections)
            .min(*rules.ejection_time_max);
        history.ejected = Some(Ejected { until: now.plus(rest), fault });
        // Only later successes end it early.
        history.passed = 0;
        self.change(&history)
    }

    /// Whether a check is due now; the next is then due after an interval, or up to a tenth more. `roll` is
    /// random, from 0 to 1. The first check is due within an interval, so that the checks spread out.
    fn is_due(&self, interval: Duration, now: Duration, roll: f64) -> bool {
        let mut history = self.history.lock();
        let Some(due) = history.due else {
            history.due = Some(now + interval.mul_f64(roll));
            return false;
        };
        // A reload may have made the interval shorter.
        let is_due = due <= now || due > now + interval.mul_f64(1.1);
        if is_due {
            history.due = Some(now + interval.mul_f64(1.0 + roll / 10.0));
        }
        is_due
    }

    /// Reports a check; `Some` if it changed the condition.
    fn checked(
        &self,
        went: Result<(), ()>,
        rules: &config::HealthCheck,
        now: Now,
    ) -> Option<Change> {
        let mut history = self.history.lock();
        let before = history.condition();
        match went {
            Ok(()) => {
                history.failed = 0;
                history.passed = history.passed.saturating_add(1);
                if history.passed >= rules.healthy_threshold && before != Condition::Healthy {
                    history.unhealthy = false;
                    history.end(now);
                    // A success ends the row of failures.
                    self.failures.store(0, Relaxed);
                }
            }
            Err(()) => {
                history.passed = 0;
                history.failed = history.failed.saturating_add(1);
                if history.failed >= rules.unhealthy_threshold {
                    history.unhealthy = true;
                }
            }
        }
        (history.condition() != before).then(|| self.change(&history))
    }

    /// Ends its ejection if that is over, and resets its checks if none are configured any more.
    fn expire(&self, checks: Option<&config::HealthCheck>, now: Now) -> Option<Change> {
        let mut history = self.history.lock();
        let before = history.condition();
        if checks.is_none() {
            (history.unhealthy, history.passed, history.failed) = (false, 0, 0);
            history.due = None;
        }
        if history.ejected.is_some_and(|ejected| ejected.until.elapsed <= now.elapsed) {
            history.end(now);
            self.failures.store(0, Relaxed);
        }
        (history.condition() != before).then(|| self.change(&history))
    }
}

impl History {
    fn end(&mut self, now: Now) {
        if self.ejected.take().is_some() {
            self.returned = now.elapsed;
        }
    }

    fn condition(&self) -> Condition {
        match (self.unhealthy, self.ejected) {
            (true, _) => Condition::Unhealthy,
            (false, Some(Ejected { until, fault })) => Condition::Ejected { fault, until },
            (false, None) => Condition::Healthy,
        }
    }
}
