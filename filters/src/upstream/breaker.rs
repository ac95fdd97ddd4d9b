//! Leaves an upstream alone for a while after repeated failures.
//!
//! Two things are told apart. One that answers badly is left alone for the whole of its rest. One where
//! nothing answers is looked for meanwhile, off the path of requests, and is asked again once it is there.

mod circuit;

use std::{
    collections::HashMap,
    sync::{
        Arc,
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
    circuits: HashMap<Key, Arc<Mutex<Circuit>>>,
    /// How many of them are of a part.
    parts: usize,
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
pub struct Facts {
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
    pub facts: Facts,
    /// Since when it has not been closed.
    pub since: Option<Duration>,
    /// When requests try it again at the latest; earlier, if it is found before that.
    pub tried_at: Option<Duration>,
}

/// Leave to ask an upstream once. Dropped without a report (the request was refused further on, or
/// the client went away) it counts for nothing and gives the leave back.
pub struct Permit {
    circuit: Arc<Mutex<Circuit>>,
    tripped: Arc<AtomicUsize>,
    key: Key,
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
        key: &Key,
        part: Option<&str>,
        rules: &config::Breaker,
        now: Now,
    ) -> Result<Permit, Denial> {
        let (key, circuit) = self.circuit(key, part, rules, now);
        let admitted = {
            let mut circuit = circuit.lock();
            circuit.budget.asked();
            circuit.admit(rules, now.elapsed)
        };
        match admitted {
            Ok((probe, half_opened)) => {
                Ok(Permit { circuit, tripped: Arc::clone(&self.tripped), key, probe, half_opened })
            }
            Err((retry_after, cause)) => {
                Err(Denial::BreakerOpen { upstream: key.upstream, retry_after, cause })
            }
        }
    }

    /// Asks for leave to go to an upstream again. `None` if it is to be left alone now, or if too many
    /// are asked again: `budget_percent` of those that are asked.
    pub(crate) fn readmit(
        &self,
        key: &Key,
        part: Option<&str>,
        rules: &config::Breaker,
        budget_percent: u32,
        now: Now,
    ) -> Option<Permit> {
        let (key, circuit) = self.circuit(key, part, rules, now);
        let (probe, half_opened) = {
            let mut circuit = circuit.lock();
            let admitted = circuit.admit(rules, now.elapsed).ok()?;
            if !circuit.budget.take(budget_percent, now.elapsed) {
                if let Some(round) = admitted.0 {
                    circuit.give_back(round);
                }
                return None;
            }
            admitted
        };
        Some(Permit { circuit, tripped: Arc::clone(&self.tripped), key, probe, half_opened })
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
        let closed = Facts { position: Position::Closed, cause: None };
        let Some(circuit) = circuit else {
            return Look { key, facts: closed, since: None, tried_at: None };
        };
        let circuit = circuit.lock();
        let (since, tried_at) = circuit.times().unzip();
        Look { key, facts: circuit.facts(now.elapsed), since, tried_at }
    }

    /// What each breaker is doing, in the order of their names.
    pub fn facts(&self, now: Now) -> Vec<(Key, Facts)> {
        let all = self.all.read();
        let facts = all.circuits.iter().map(|(key, c)| (key.clone(), c.lock().facts(now.elapsed)));
        let mut facts: Vec<_> = facts.collect();
        facts.sort_by(|a, b| a.0.cmp(&b.0));
        facts
    }

    /// Upstreams that are to be looked for: a breaker of theirs is open.
    pub fn sought(&self, now: Now) -> Vec<Label> {
        // Nearly always there is none.
        if self.tripped.load(Relaxed) == 0 {
            return Vec::new();
        }
        let all = self.all.read();
        let open = |circuit: &Mutex<Circuit>| circuit.lock().is_open(now.elapsed);
        let open = all.circuits.iter().filter(|(_, circuit)| open(circuit));
        let mut sought: Vec<Label> = open.map(|(key, _)| key.upstream.clone()).collect();
        sought.sort();
        sought.dedup();
        sought
    }

    /// Notes whether an upstream was there when it was looked for: its breakers that this moved.
    pub fn found(&self, upstream: &Label, there: bool, now: Now) -> Vec<Transition> {
        let all = self.all.read();
        let of_it = all.circuits.iter().filter(|(key, _)| key.upstream == *upstream);
        let moved = of_it.filter_map(|(key, circuit)| {
            let (to, cause) = circuit.lock().found(there, now.elapsed)?;
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
        all.circuits.retain(|key, circuit| {
            let kept = match &key.part {
                None => named(key),
                Some(_) => named(&Key { part: None, ..key.clone() }),
            };
            if !kept && circuit.lock().is_tripped() {
                self.tripped.fetch_sub(1, Relaxed);
            }
            kept
        });
        all.parts = all.circuits.keys().filter(|key| key.part.is_some()).count();
    }

    /// The circuit of a part, if there is room for it, else that of its route.
    fn circuit(
        &self,
        key: &Key,
        part: Option<&str>,
        rules: &config::Breaker,
        now: Now,
    ) -> (Key, Arc<Mutex<Circuit>>) {
        let own = Key { part: part.map(Label::lossy), ..key.clone() };
        {
            let all = self.all.read();
            if let Some(circuit) = all.circuits.get(&own) {
                return (own, Arc::clone(circuit));
            }
        }
        let mut all = self.all.write();
        let own = if own.part.is_some() && !all.circuits.contains_key(&own) && !all.room(rules, now)
        {
            key.clone()
        } else {
            own
        };
        let added = !all.circuits.contains_key(&own);
        all.parts += usize::from(added && own.part.is_some());
        let circuit = Arc::clone(all.circuits.entry(own.clone()).or_default());
        (own, circuit)
    }
}

impl All {
    /// Makes room for another part: those that nothing was asked of lately go.
    fn room(&mut self, rules: &config::Breaker, now: Now) -> bool {
        if self.parts < PARTS_MAX {
            return true;
        }
        self.circuits.retain(|key, circuit| {
            // Whoever holds it will report.
            let held = Arc::strong_count(circuit) > 1;
            key.part.is_none() || held || !circuit.lock().is_idle(rules, now.elapsed)
        });
        self.parts = self.circuits.keys().filter(|key| key.part.is_some()).count();
        self.parts < PARTS_MAX
    }
}

impl Permit {
    /// `Some` if this was the first after a rest.
    pub fn moved(&self) -> Option<Transition> {
        let cause = self.half_opened?;
        Some(Transition { key: self.key.clone(), to: Position::HalfOpen, cause })
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
            let mut circuit = self.circuit.lock();
            (circuit.is_tripped(), circuit.report(outcome, probe, rules, now.elapsed)?)
        };
        match (from, to) {
            (false, Position::Open) => _ = self.tripped.fetch_add(1, Relaxed),
            (true, Position::Closed) => _ = self.tripped.fetch_sub(1, Relaxed),
            _ => {}
        }
        Some(Transition { key: self.key.clone(), to, cause })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(round) = self.probe {
            self.circuit.lock().give_back(round);
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
