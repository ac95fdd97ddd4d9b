//! Leaves an upstream alone for a while after repeated failures.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};

use crate::{Denial, Label, Now};

/// Which breaker: that of an upstream, and of a plugin or a host where several share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The upstream.
    pub upstream: Label,
    /// The plugin, if the route has one.
    pub plugin: Option<Label>,
    /// The hosts of the route, as the config has them, if several are behind the upstream.
    pub host: Option<Label>,
}

/// All breakers, by key: they outlive a reload. There are as many as routes can name.
#[derive(Default)]
pub struct Breakers(RwLock<HashMap<Key, Arc<Mutex<Circuit>>>>);

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
    /// The upstream failed.
    Failure,
}

/// Leave to ask an upstream once. Dropped without a report (the request was refused further on, or
/// the client went away) it counts for nothing and gives the leave back.
pub struct Permit {
    circuit: Arc<Mutex<Circuit>>,
    key: Key,
    probe: Option<u64>,
    half_opened: bool,
}

/// A breaker that went from one position to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which.
    pub key: Key,
    /// To where.
    pub to: Position,
}

const SLOTS: usize = 10;

#[derive(Debug)]
struct Circuit {
    state: State,
    /// Counts which opening this is, so that a late probe of an earlier one is not believed.
    round: u64,
    slots: [Slot; SLOTS],
    /// What may be asked again.
    budget: Budget,
}

/// Attempts beyond the first: a share of those that were made, and a few a second.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    /// First attempts since this was looked at.
    firsts: u32,
    credit: f64,
    at: Duration,
}

/// Attempts beyond the first that each upstream may get in a second, however few there are.
const AGAIN_A_SECOND: f64 = 3.0;
/// More are not saved up.
const CREDIT_MAX: f64 = 100.0;

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Duration },
    HalfOpen { under_way: u32, successes: u32 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tick: u64,
    requests: u32,
    failures: u32,
}

impl Breakers {
    /// Asks for leave to go to an upstream.
    ///
    /// # Errors
    /// [`Denial::BreakerOpen`], with the time until the next try.
    pub fn admit(&self, key: &Key, rules: &config::Breaker, now: Now) -> Result<Permit, Denial> {
        let circuit = self.circuit(key);
        let (probe, half_opened) = {
            let mut circuit = circuit.lock();
            circuit.budget.firsts = circuit.budget.firsts.saturating_add(1);
            let rested = matches!(circuit.state, State::Open { until } if now.elapsed >= until);
            (circuit.admit(rules, now.elapsed), rested)
        };
        match probe {
            Ok(probe) => Ok(Permit { circuit, key: key.clone(), probe, half_opened }),
            Err(retry_after) => {
                Err(Denial::BreakerOpen { upstream: key.upstream.clone(), retry_after })
            }
        }
    }

    /// Asks for leave to go to an upstream again. `None` if it is to be left alone now, or if too many
    /// are asked again: `budget_percent` of those that are asked.
    pub(crate) fn readmit(
        &self,
        key: &Key,
        rules: &config::Breaker,
        budget_percent: u32,
        now: Now,
    ) -> Option<Permit> {
        let circuit = self.circuit(key);
        let probe = {
            let mut circuit = circuit.lock();
            let probe = circuit.admit(rules, now.elapsed).ok()?;
            if !circuit.budget.take(budget_percent, now.elapsed) {
                if let Some(round) = probe {
                    circuit.give_back(round);
                }
                return None;
            }
            probe
        };
        Some(Permit { circuit, key: key.clone(), probe, half_opened: false })
    }

    /// What each breaker is doing, in the order of their names.
    pub fn positions(&self, now: Now) -> Vec<(Key, Position)> {
        let all = self.0.read();
        let mut all: Vec<_> =
            all.iter().map(|(key, c)| (key.clone(), c.lock().position(now.elapsed))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Forgets breakers that no route names any more.
    pub fn keep(&self, named: impl Fn(&Key) -> bool) {
        self.0.write().retain(|key, _| named(key));
    }

    fn circuit(&self, key: &Key) -> Arc<Mutex<Circuit>> {
        if let Some(circuit) = self.0.read().get(key) {
            return Arc::clone(circuit);
        }
        Arc::clone(self.0.write().entry(key.clone()).or_insert_with(|| {
            Arc::new(Mutex::new(Circuit {
                state: State::Closed,
                round: 0,
                slots: [Slot::default(); SLOTS],
                budget: Budget::default(),
            }))
        }))
    }
}

impl Budget {
    fn take(&mut self, percent: u32, now: Duration) -> bool {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        let earned = f64::from(self.firsts) * f64::from(percent) / 100.0;
        self.credit = (self.credit + earned + seconds * AGAIN_A_SECOND).min(CREDIT_MAX);
        (self.firsts, self.at) = (0, now);
        let may = self.credit >= 1.0;
        if may {
            self.credit -= 1.0;
        }
        may
    }
}

impl Permit {
    /// `Some` if this was the first after a rest.
    pub fn moved(&self) -> Option<Transition> {
        self.half_opened.then(|| Transition { key: self.key.clone(), to: Position::HalfOpen })
    }

    /// Says how the exchange ended; `Some` if that moved the breaker.
    pub fn report(
        mut self,
        outcome: Outcome,
        rules: &config::Breaker,
        now: Now,
    ) -> Option<Transition> {
        let probe = self.probe.take();
        let to = self.circuit.lock().report(outcome, probe, rules, now.elapsed)?;
        Some(Transition { key: self.key.clone(), to })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(round) = self.probe {
            self.circuit.lock().give_back(round);
        }
    }
}

impl Circuit {
    fn position(&self, now: Duration) -> Position {
        match self.state {
            State::Closed => Position::Closed,
            State::Open { until } if now < until => Position::Open,
            State::Open { .. } | State::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// `Ok(Some(round))` for a probe, `Err` with the time to wait.
    fn admit(&mut self, rules: &config::Breaker, now: Duration) -> Result<Option<u64>, Duration> {
        if let State::Open { until } = self.state {
            if now < until {
                return Err(until - now);
            }
            self.state = State::HalfOpen { under_way: 0, successes: 0 };
        }
        match &mut self.state {
            State::Closed | State::Open { .. } => Ok(None),
            State::HalfOpen { under_way, successes } => {
                if *under_way + *successes >= rules.probes {
                    // The probes are under way: whoever comes now asks again in a moment.
                    return Err(Duration::from_secs(1));
                }
                *under_way += 1;
                Ok(Some(self.round))
            }
        }
    }

    fn report(
        &mut self,
        outcome: Outcome,
        probe: Option<u64>,
        rules: &config::Breaker,
        now: Duration,
    ) -> Option<Position> {
        match (&mut self.state, probe) {
            (State::HalfOpen { under_way, successes }, Some(round)) if round == self.round => {
                *under_way = under_way.saturating_sub(1);
                if outcome == Outcome::Failure {
                    return Some(self.open(rules, now));
                }
                *successes += 1;
                if *successes < rules.probes {
                    return None;
                }
                self.state = State::Closed;
                self.slots = [Slot::default(); SLOTS];
                Some(Position::Closed)
            }
            (State::Closed, _) => {
                self.count(outcome, rules, now);
                self.is_sick(rules, now).then(|| self.open(rules, now))
            }
            // An exchange from before the opening says nothing about now.
            _ => None,
        }
    }

    fn give_back(&mut self, round: u64) {
        if let State::HalfOpen { under_way, .. } = &mut self.state
            && round == self.round
        {
            *under_way = under_way.saturating_sub(1);
        }
    }

    fn open(&mut self, rules: &config::Breaker, now: Duration) -> Position {
        self.round += 1;
        self.state = State::Open { until: now + *rules.rest };
        Position::Open
    }

    fn count(&mut self, outcome: Outcome, rules: &config::Breaker, now: Duration) {
        let tick = tick(rules, now);
        let slot = &mut self.slots[usize::try_from(tick % SLOTS as u64).expect("below ten")];
        if slot.tick != tick {
            *slot = Slot { tick, ..Slot::default() };
        }
        slot.requests += 1;
        slot.failures += u32::from(outcome == Outcome::Failure);
    }

    fn is_sick(&self, rules: &config::Breaker, now: Duration) -> bool {
        let oldest = (tick(rules, now) + 1).saturating_sub(SLOTS as u64);
        let recent = self.slots.iter().filter(|slot| slot.tick >= oldest);
        let (requests, failures) = recent
            .fold((0u64, 0u64), |(r, f), s| (r + u64::from(s.requests), f + u64::from(s.failures)));
        requests >= u64::from(rules.requests_min)
            && failures > 0
            && failures * 100 >= requests * u64::from(rules.failure_percent)
    }
}

/// The window is looked at in ten slices; this numbers them.
fn tick(rules: &config::Breaker, now: Duration) -> u64 {
    let slice = (rules.window.as_nanos() / SLOTS as u128).max(1);
    u64::try_from(now.as_nanos() / slice).unwrap_or(u64::MAX)
}

/// Whether a status says that the upstream failed.
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
mod tests {
    use super::{Outcome::*, *};

    struct Rig(Breakers, config::Breaker, Key);

    fn rig() -> Rig {
        let key = Key { upstream: Label::lossy("dxcp"), plugin: None, host: None };
        Rig(Breakers::default(), config::Breaker::default(), key)
    }

    impl Rig {
        fn ask(&self, seconds: f64) -> Result<Permit, Denial> {
            let now = Now::default().plus(Duration::from_secs_f64(seconds));
            self.0.admit(&self.2, &self.1, now)
        }
        fn end(&self, permit: Permit, outcome: Outcome, seconds: f64) -> Option<Position> {
            let now = Now::default().plus(Duration::from_secs_f64(seconds));
            permit.report(outcome, &self.1, now).map(|t| t.to)
        }
        fn run(&self, outcome: Outcome, seconds: f64) -> Option<Position> {
            self.end(self.ask(seconds).unwrap(), outcome, seconds)
        }
        fn opened(&self) {
            (0..4).for_each(|_| assert_eq!(self.run(Failure, 1.0), None));
            assert_eq!(self.run(Failure, 1.0), Some(Position::Open));
        }
    }

    #[test]
    fn it_opens_at_five_exchanges_of_which_sixty_percent_failed() {
        let rig = rig();
        assert_eq!(rig.run(Success, 0.0), None);
        assert_eq!(rig.run(Success, 0.5), None);
        assert_eq!(rig.run(Failure, 1.0), None);
        assert_eq!(rig.run(Failure, 1.0), None);
        assert_eq!(rig.run(Failure, 1.0), Some(Position::Open));
        let denied = rig.ask(2.0).err().unwrap();
        assert_eq!(denied.retry_after(), Some(Duration::from_secs(29)));
        assert_eq!(denied.status(), 503);
    }

    #[test]
    fn what_is_asked_again_is_a_share_of_what_is_asked_and_a_few_a_second() {
        let rig = rig();
        let again = |seconds: f64| {
            let now = Now::default().plus(Duration::from_secs_f64(seconds));
            (0..1000).map_while(|_| rig.0.readmit(&rig.2, &rig.1, 20, now)).count()
        };
        assert_eq!(again(0.0), 0);
        assert_eq!(again(1.0), 3);
        (0..50).for_each(|_| drop(rig.ask(1.0)));
        assert_eq!(again(1.0), 10);
        (0..5000).for_each(|_| drop(rig.ask(1.0)));
        assert_eq!(again(1.0), 100, "no more are saved up");
        assert_eq!(again(10_000.0), 100);
    }

    #[test]
    fn an_open_breaker_lets_nothing_through_again() {
        let rig = rig();
        rig.opened();
        let now = Now::default().plus(Duration::from_secs(5));
        assert!(rig.0.readmit(&rig.2, &rig.1, 100, now).is_none());
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let rig = rig();
        (0..4).for_each(|_| assert_eq!(rig.run(Failure, 0.0), None));
        assert_eq!(rig.run(Failure, 10.5), None);
    }

    #[test]
    fn after_the_rest_three_probes_decide() {
        let rig = rig();
        rig.opened();
        let probes: Vec<_> = (0..3).map(|_| rig.ask(31.5).unwrap()).collect();
        assert!(rig.ask(31.5).is_err(), "a fourth probe waits");
        let ends: Vec<_> = probes.into_iter().map(|p| rig.end(p, Success, 32.0)).collect();
        assert_eq!(ends, [None, None, Some(Position::Closed)]);
        assert_eq!(rig.run(Failure, 32.0), None, "a closed breaker begins anew");
    }

    #[test]
    fn one_failed_probe_opens_it_again() {
        let rig = rig();
        rig.opened();
        let (first, late) = (rig.ask(31.5).unwrap(), rig.ask(31.5).unwrap());
        assert_eq!(rig.end(first, Failure, 32.0), Some(Position::Open));
        assert_eq!(rig.end(late, Success, 33.0), None, "a late probe is not believed");
        assert!(rig.ask(61.0).is_err());
        assert!(rig.ask(62.5).is_ok());
    }

    #[test]
    fn a_probe_that_was_never_sent_is_given_back() {
        let rig = rig();
        rig.opened();
        (0..10).for_each(|_| drop(rig.ask(31.5).unwrap()));
        assert_eq!(rig.run(Success, 31.5), None);
    }

    #[test]
    fn an_engine_that_is_away_is_not_a_control_plane_that_is_away() {
        let mut rules = config::Breaker::default();
        rules.ignore.push(config::IgnoredFailure {
            status: 503,
            content_type: Some("application/json".to_owned()),
        });
        assert!(!is_failure(503, Some("application/JSON; charset=utf-8"), &rules));
        assert!(is_failure(503, Some("text/html"), &rules));
        assert!(is_failure(503, None, &rules));
        assert!(is_failure(500, Some("application/json"), &rules));
        assert!(!is_failure(499, None, &rules));
    }
}
