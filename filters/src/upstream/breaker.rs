//! Leaves an upstream alone for a while after repeated failures.
//!
//! Two things are told apart. One that answers badly is left alone for the whole of its rest. One where
//! nothing answers is looked for meanwhile, off the path of requests, and is asked again once it is there.

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

/// Which breaker: that of an upstream, and of a plugin or a host where several share one.
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
    /// How many are not closed, so that whoever looks for upstreams need not ask each.
    tripped: Arc<AtomicUsize>,
}

#[derive(Default)]
struct All {
    circuits: HashMap<Key, Arc<Entry>>,
    /// How many of them are of a part.
    parts: usize,
}

/// One breaker, and which it is.
#[derive(Debug)]
struct Entry {
    key: Key,
    circuit: Mutex<Circuit>,
    /// How many of all are not closed; it is among them.
    tripped: Arc<AtomicUsize>,
}

/// The breaker that a route stands behind. It is looked for by name once, and not for each request.
#[derive(Debug)]
pub struct Handle {
    /// Which it is.
    pub key: Key,
    found: OnceLock<Arc<Entry>>,
}

/// Breakers of parts, all together: whoever asks names them. Beyond that they share that of their route.
pub const PARTS_MAX: usize = 512;

/// What an upstream's breaker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Requests pass.
    Closed,
    /// Requests are refused until the rest is over.
    Open,
    /// A few requests try whether the upstream is back.
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

/// How an exchange with an upstream ended, as a breaker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream did its work, whatever it said.
    Success,
    /// The upstream answered, and badly.
    Failure,
    /// The upstream did not answer.
    Silence,
}

/// What is known of a breaker, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub position: Position,
    /// Why, unless it is closed.
    pub cause: Option<Cause>,
}

/// What one breaker would do with a request. Looking asks for no leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which it is: of a part there may be none yet, and then it is closed.
    pub key: Key,
    /// What it is doing, and why.
    pub status: Status,
    /// Since when it has not been closed.
    pub since: Option<Duration>,
    /// When requests try it again at the latest; earlier, if it is found before that.
    pub tried_at: Option<Duration>,
}

/// Leave to ask an upstream once. Dropped without a report (the request was refused further on, or
/// the client went away) it counts for nothing and gives the leave back.
pub struct Permit {
    entry: Arc<Entry>,
    probe: Option<u64>,
    half_opened: Option<Cause>,
}

/// A breaker that went from one position to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which.
    pub key: Key,
    /// To where.
    pub to: Position,
    /// Why it was, or is, open.
    pub cause: Cause,
}

impl Breakers {
    /// Asks for leave to go to an upstream: to this part of it, if its route has any.
    ///
    /// # Errors
    /// [`Denial::BreakerOpen`], with the time until the next try.
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

    /// Asks for leave to go to an upstream again. `None` if it is to be left alone now, or if too many
    /// are asked again: `budget_percent` of those that are asked.
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

    /// What the breaker of a route is doing, or that of a part of it.
    pub fn look(&self, key: &Key, part: Option<&str>, now: Now) -> Look {
        let all = self.all.read();
        let own = Key { part: part.map(Label::lossy), ..key.clone() };
        // Where there is no room for another part, it is its route's.
        let crowded = own.part.is_some() && all.parts >= PARTS_MAX;
        let (key, circuit) = match all.circuits.get_key_value(&own) {
            None if crowded => (key.clone(), all.circuits.get(key)),
            None => (own, None),
            Some((own, circuit)) => (own.clone(), Some(circuit)),
        };
        let closed = Status { position: Position::Closed, cause: None };
        let Some(entry) = circuit else {
            return Look { key, status: closed, since: None, tried_at: None };
        };
        let circuit = entry.circuit.lock();
        let (since, tried_at) = circuit.times().unzip();
        Look { key, status: circuit.status(now.elapsed), since, tried_at }
    }

    /// What each breaker is doing, in the order of their names.
    pub fn statuses(&self, now: Now) -> Vec<(Key, Status)> {
        let all = self.all.read();
        let status = |entry: &Entry| entry.circuit.lock().status(now.elapsed);
        let statuses = all.circuits.iter().map(|(key, entry)| (key.clone(), status(entry)));
        let mut statuses: Vec<_> = statuses.collect();
        statuses.sort_by(|a, b| a.0.cmp(&b.0));
        statuses
    }

    /// Upstreams that are to be looked for: a breaker of theirs is open.
    pub fn sought(&self, now: Now) -> Vec<Label> {
        // Nearly always there is none.
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

    /// Notes whether an upstream was there when it was looked for: its breakers that this moved.
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

    /// Forgets breakers that no route names any more.
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

    /// The breaker of a part, if there is room for it, else that of its route.
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
        // A policy may be tried with another state than it was asked with first.
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
    /// For the breaker of this key.
    pub fn new(key: Key) -> Self {
        Self { key, found: OnceLock::new() }
    }
}

impl All {
    /// The breaker of a key, which begins closed.
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

    /// Makes room for another part: those that nothing was asked of lately go.
    fn room(&mut self, rules: &config::Breaker, now: Now) -> bool {
        if self.parts < PARTS_MAX {
            return true;
        }
        self.circuits.retain(|key, entry| {
            // Whoever holds it will report.
            let held = Arc::strong_count(entry) > 1;
            key.part.is_none() || held || !entry.circuit.lock().is_idle(rules, now.elapsed)
        });
        self.parts = self.circuits.keys().filter(|key| key.part.is_some()).count();
        self.parts < PARTS_MAX
    }
}

impl Permit {
    /// `Some` if this was the first after a rest.
    pub fn moved(&self) -> Option<Transition> {
        let cause = self.half_opened?;
        Some(Transition { key: self.entry.key.clone(), to: Position::HalfOpen, cause })
    }

    /// Says how the exchange ended; `Some` if that moved the breaker.
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

/// Whether an answer says that the upstream failed, and not somebody behind a gateway that is the upstream.
pub fn failed(status: u16, headers: &HeaderMap, rules: &config::Breaker) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    is_failure(status, content_type, rules) && !proxy_status::is_gateways(headers)
}

/// Whether a status says that something failed.
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
