//! Circuit breakers: after repeated failures an upstream gets no requests for some time.
//!
//! Two cases are distinguished. An upstream whose responses fail gets none for the whole `open_duration`. One that does
//! not respond is probed meanwhile, off the request path, and gets requests again once it is reachable.

mod circuit;

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, header};
use parking_lot::{Mutex, RwLock};

use self::circuit::Circuit;
use crate::{Denial, Label, Now, response::proxy_status};

pub use crate::denial::Cause;

/// The key of a breaker: its upstream, and the plugin or host if several share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The upstream.
    pub upstream: Label,
    /// The plugin, if the route has one.
    pub plugin: Option<Label>,
    /// The hosts of the route, as the config has them, if several are behind the upstream.
    pub host: Option<Label>,
    /// The value of the path's parameter that the route's `breaker_by` names.
    pub part: Option<Label>,
}

/// All breakers, by key: they outlive a reload. There are as many as routes can name, and of parts
/// [`PARTS_MAX`].
#[derive(Default)]
pub struct Breakers {
    all: RwLock<All>,
    /// How many are not closed, so that the prober need not check each.
    tripped: Arc<AtomicUsize>,
}

#[derive(Default)]
struct All {
    circuits: HashMap<Key, Arc<Entry>>,
    /// How many of them are for a part.
    parts: usize,
}

/// A breaker and its key.
#[derive(Debug)]
struct Entry {
    key: Key,
    circuit: Mutex<Circuit>,
    /// The number of all breakers that are not closed, shared with [`Breakers`].
    tripped: Arc<AtomicUsize>,
}

/// A route's breaker. It is looked up by name once, and not for each request.
#[derive(Debug)]
pub struct Handle {
    /// Its key.
    pub key: Key,
    found: OnceLock<Arc<Entry>>,
}

/// The maximum of breakers for parts in total, because clients name the parts. Beyond it, parts share their
/// route's breaker.
pub const PARTS_MAX: usize = 512;

/// The position of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Requests pass.
    Closed,
    /// Requests are refused until `open_duration` has passed.
    Open,
    /// A few requests probe whether the upstream has recovered.
    HalfOpen,
}

impl Position {
    /// Its name in records and on the admin listener.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The outcome of an exchange with an upstream, for its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream responded without a failure.
    Success,
    /// The upstream responded with a failure.
    Failure,
    /// The upstream did not respond.
    Silence,
}

/// The status of a breaker, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its position.
    pub position: Position,
    /// Why, unless it is closed.
    pub cause: Option<Cause>,
}

/// What a breaker would do with a request. Reading it takes no permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerState {
    /// Its key. A part may have no breaker yet, which counts as closed.
    pub key: Key,
    /// Its position, and why.
    pub status: Status,
    /// Since when it has not been closed.
    pub since: Option<Duration>,
    /// When requests are let through again at the latest; earlier, if a probe finds it reachable before.
    pub tried_at: Option<Duration>,
}

/// Permission to send one request to an upstream. Dropped without a report (the request was refused later,
/// or the client disconnected) it counts for nothing and is returned.
pub struct Permit {
    entry: Arc<Entry>,
    probe: Option<u64>,
    half_opened: Option<Cause>,
}

/// A breaker's change of position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The breaker.
    pub key: Key,
    /// The new position.
    pub to: Position,
    /// Why it was, or is, open.
    pub cause: Cause,
}

impl Breakers {
    /// Requests a permit for an upstream: for this part of it, if its route has parts.
    ///
    /// # Errors
    /// [`Denial::BreakerOpen`], with the time until the next probe.
    pub fn admit(
        &self,
        breaker: &Handle,
        part: Option<&str>,
        rules: &config::Breaker,
        now: Now,
    ) -> Result<Permit, Denial> {
        let entry = self.entry(breaker, part, rules, now);
        let admitted = {
            let mut circuit = entry.circuit.lock();
            circuit.budget.asked();
            circuit.admit(rules, now.elapsed)
        };
        match admitted {
            Ok((probe, half_opened)) => Ok(Permit { entry, probe, half_opened }),
            Err((retry_after, cause)) => {
                let upstream = entry.key.upstream.clone();
                Err(Denial::BreakerOpen { upstream, retry_after, cause })
            }
        }
    }

    /// Requests a permit for another attempt. `None` if the breaker refuses now, or if the retry budget is
    /// spent: `budget_percent` of all requests.
    pub(crate) fn readmit(
        &self,
        breaker: &Handle,
        part: Option<&str>,
        rules: &config::Breaker,
        budget_percent: u32,
        now: Now,
    ) -> Option<Permit> {
        let entry = self.entry(breaker, part, rules, now);
        let (probe, half_opened) = {
            let mut circuit = entry.circuit.lock();
            let admitted = circuit.admit(rules, now.elapsed).ok()?;
            if !circuit.budget.take(budget_percent, now.elapsed) {
                if let Some(round) = admitted.0 {
                    circuit.give_back(round);
                }
                return None;
            }
            admitted
        };
        Some(Permit { entry, probe, half_opened })
    }

    /// The state of a route's breaker, or of one of its parts.
    pub fn peek(&self, key: &Key, part: Option<&str>, now: Now) -> BreakerState {
        let all = self.all.read();
        let own = Key { part: part.map(Label::lossy), ..key.clone() };
        // Without room for another part, it is the route's breaker.
        let crowded = own.part.is_some() && all.parts >= PARTS_MAX;
        let (key, circuit) = match all.circuits.get_key_value(&own) {
            None if crowded => (key.clone(), all.circuits.get(key)),
            None => (own, None),
            Some((own, circuit)) => (own.clone(), Some(circuit)),
        };
        let closed = Status { position: Position::Closed, cause: None };
        let Some(entry) = circuit else {
            return BreakerState { key, status: closed, since: None, tried_at: None };
        };
        let circuit = entry.circuit.lock();
        let (since, tried_at) = circuit.times().unzip();
        BreakerState { key, status: circuit.status(now.elapsed), since, tried_at }
    }

    /// The status of each breaker, sorted by name.
    pub fn statuses(&self, now: Now) -> Vec<(Key, Status)> {
        let all = self.all.read();
        let status = |entry: &Entry| entry.circuit.lock().status(now.elapsed);
        let statuses = all.circuits.iter().map(|(key, entry)| (key.clone(), status(entry)));
        let mut statuses: Vec<_> = statuses.collect();
        statuses.sort_by(|a, b| a.0.cmp(&b.0));
        statuses
    }

    /// Upstreams to probe: one of their breakers is open.
    pub fn sought(&self, now: Now) -> Vec<Label> {
        // Usually there is none.
        if self.tripped.load(Relaxed) == 0 {
            return Vec::new();
        }
        let all = self.all.read();
        let is_open = |entry: &Entry| entry.circuit.lock().is_open(now.elapsed);
        let open = all.circuits.iter().filter(|(_, entry)| is_open(entry));
        let mut sought: Vec<Label> = open.map(|(key, _)| key.upstream.clone()).collect();
        sought.sort();
        sought.dedup();
        sought
    }

    /// Reports whether a probe reached an upstream; returns the changes of its breakers.
    pub fn found(&self, upstream: &Label, there: bool, now: Now) -> Vec<Transition> {
        let all = self.all.read();
        let of_it = all.circuits.iter().filter(|(key, _)| key.upstream == *upstream);
        let moved = of_it.filter_map(|(key, entry)| {
            let (to, cause) = entry.circuit.lock().found(there, now.elapsed)?;
            if to == Position::Closed {
                self.tripped.fetch_sub(1, Relaxed);
            }
            Some(Transition { key: key.clone(), to, cause })
        });
        moved.collect()
    }

    /// Removes breakers that no route names any more.
    pub fn keep(&self, named: impl Fn(&Key) -> bool) {
        let mut all = self.all.write();
        all.circuits.retain(|key, entry| {
            let kept = match &key.part {
                None => named(key),
                Some(_) => named(&Key { part: None, ..key.clone() }),
            };
            if !kept && entry.circuit.lock().is_tripped() {
                self.tripped.fetch_sub(1, Relaxed);
            }
            kept
        });
        all.parts = all.circuits.keys().filter(|key| key.part.is_some()).count();
    }

    /// The breaker of a part if there is room for it, else its route's.
    fn entry(
        &self,
        breaker: &Handle,
        part: Option<&str>,
        rules: &config::Breaker,
        now: Now,
    ) -> Arc<Entry> {
        let Some(part) = part else { return self.of_route(breaker) };
        let own = Key { part: Some(Label::lossy(part)), ..breaker.key.clone() };
        {
            let all = self.all.read();
            if let Some(entry) = all.circuits.get(&own) {
                return Arc::clone(entry);
            }
        }
        {
            let mut all = self.all.write();
            if all.circuits.contains_key(&own) || all.room(rules, now) {
                return all.entry(own, &self.tripped);
            }
        }
        self.of_route(breaker)
    }

    /// The breaker of a route.
    fn of_route(&self, breaker: &Handle) -> Arc<Entry> {
        // A policy may be used with another state than the first.
        let is_ours = |entry: &&Arc<Entry>| Arc::ptr_eq(&entry.tripped, &self.tripped);
        if let Some(found) = breaker.found.get().filter(is_ours) {
            return Arc::clone(found);
        }
        let entry = self.all.write().entry(breaker.key.clone(), &self.tripped);
        let _ = breaker.found.set(Arc::clone(&entry));
        entry
    }
}

impl Handle {
    /// A handle of the breaker with this key.
    pub fn new(key: Key) -> Self {
        Self { key, found: OnceLock::new() }
    }
}

impl All {
    /// The breaker of a key; a new one is closed.
    fn entry(&mut self, key: Key, tripped: &Arc<AtomicUsize>) -> Arc<Entry> {
        if let Some(entry) = self.circuits.get(&key) {
            return Arc::clone(entry);
        }
        self.parts += usize::from(key.part.is_some());
        let circuit = Mutex::default();
        let entry = Arc::new(Entry { key: key.clone(), circuit, tripped: Arc::clone(tripped) });
        self.circuits.insert(key, Arc::clone(&entry));
        entry
    }

    /// Makes room for another part by removing idle ones.
    fn room(&mut self, rules: &config::Breaker, now: Now) -> bool {
        if self.parts < PARTS_MAX {
            return true;
        }
        self.circuits.retain(|key, entry| {
            // An exchange that holds it will still report.
            let held = Arc::strong_count(entry) > 1;
            key.part.is_none() || held || !entry.circuit.lock().is_idle(rules, now.elapsed)
        });
        self.parts = self.circuits.keys().filter(|key| key.part.is_some()).count();
        self.parts < PARTS_MAX
    }
}

impl Permit {
    /// `Some` if this is the first probe after `open_duration`.
    pub fn moved(&self) -> Option<Transition> {
        let cause = self.half_opened?;
        Some(Transition { key: self.entry.key.clone(), to: Position::HalfOpen, cause })
    }

    /// Reports the outcome of the exchange; `Some` if that changed the breaker's position.
    pub fn report(
        mut self,
        outcome: Outcome,
        rules: &config::Breaker,
        now: Now,
    ) -> Option<Transition> {
        let probe = self.probe.take();
        let (from, (to, cause)) = {
            let mut circuit = self.entry.circuit.lock();
            (circuit.is_tripped(), circuit.report(outcome, probe, rules, now.elapsed)?)
        };
        match (from, to) {
            (false, Position::Open) => _ = self.entry.tripped.fetch_add(1, Relaxed),
            (true, Position::Closed) => _ = self.entry.tripped.fetch_sub(1, Relaxed),
            _ => {}
        }
        Some(Transition { key: self.entry.key.clone(), to, cause })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(round) = self.probe {
            self.entry.circuit.lock().give_back(round);
        }
    }
}

/// Whether a response shows that the upstream failed, and not a host behind an upstream that is a gateway.
pub fn failed(status: u16, headers: &HeaderMap, rules: &config::Breaker) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    is_failure(status, content_type, rules) && !proxy_status::is_gateways(headers)
}

/// Whether a status is a failure.
pub fn is_failure(status: u16, content_type: Option<&str>, rules: &config::Breaker) -> bool {
    let excused = |ignored: &config::IgnoredFailure| {
        ignored.status == status
            && ignored.content_type.as_deref().is_none_or(|wanted| {
                content_type.is_some_and(|given| {
                    given.get(..wanted.len()).is_some_and(|g| g.eq_ignore_ascii_case(wanted))
                })
            })
    };
    (500..=599).contains(&status) && !rules.ignore.iter().any(excused)
}

#[cfg(test)]
mod tests;
