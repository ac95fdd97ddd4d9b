//! The state machine of one breaker. Time is an argument.

use std::time::Duration;

use super::{Cause, Outcome, Position, Status};

const SLOTS: usize = 10;
/// The `Retry-After` while the upstream does not respond.
const SOON: Duration = Duration::from_secs(1);
/// How long an upstream that is reachable again may return failures while it starts; until then it is not
/// refused for longer than [`SOON`].
const START: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Circuit {
    state: State,
    /// Numbers the openings, so that a late probe of an earlier one does not count.
    round: u64,
    slots: [Slot; SLOTS],
    /// When it opened last.
    opened: Duration,
    /// When it became reachable again after it had not responded.
    returned: Option<Duration>,
    /// The retry budget.
    pub(super) budget: Budget,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Duration,
        cause: Cause,
        /// Whether a probe found it unreachable.
        gone: bool,
    },
    HalfOpen {
        under_way: u32,
        successes: u32,
        cause: Cause,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tick: u64,
    requests: u32,
    failures: u32,
    silences: u32,
}

/// The budget of retries: a share of all first attempts, and a few a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// First attempts since the last check.
    firsts: u32,
    credit: f64,
    at: Duration,
}

/// Retries a second that each upstream may get, however few first attempts there are.
const AGAIN_A_SECOND: f64 = 3.0;
/// The maximum credit.
const CREDIT_MAX: f64 = 100.0;

impl Budget {
    /// Counts a first attempt.
    pub(super) fn asked(&mut self) {
        self.firsts = self.firsts.saturating_add(1);
    }

    pub(super) fn take(&mut self, percent: u32, now: Duration) -> bool {
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

/// The round of a probe, and why the breaker was open if it is the first after `open_duration`.
type Leave = (Option<u64>, Option<Cause>);

impl Circuit {
    pub(super) fn status(&self, now: Duration) -> Status {
        match self.state {
            State::Closed => Status { position: Position::Closed, cause: None },
            State::Open { until, cause, .. } if now < until => {
                Status { position: Position::Open, cause: Some(cause) }
            }
            State::Open { cause, .. } | State::HalfOpen { cause, .. } => {
                Status { position: Position::HalfOpen, cause: Some(cause) }
            }
        }
    }

    /// Since when it is not closed, and when requests are let through again at the latest.
    pub(super) fn times(&self) -> Option<(Duration, Duration)> {
        match self.state {
            State::Closed => None,
            State::Open { until, .. } => Some((self.opened, until)),
            State::HalfOpen { .. } => Some((self.opened, self.opened)),
        }
    }

    /// Whether it is anything but closed.
    pub(super) fn is_tripped(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    /// Whether it refuses requests, and will for a while.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        matches!(self.state, State::Open { until, .. } if now < until)
    }

    /// Whether it has no state worth keeping.
    pub(super) fn is_idle(&self, rules: &config::Breaker, now: Duration) -> bool {
        !self.is_tripped() && self.recent(rules, now).requests == 0
    }

    /// A permit for a request, or how long to wait and why.
    pub(super) fn admit(
        &mut self,
        rules: &config::Breaker,
        now: Duration,
    ) -> Result<Leave, (Duration, Cause)> {
        let mut rested = None;
        if let State::Open { until, cause, .. } = self.state {
            if now < until {
                let left = until - now;
                let wait = if cause == Cause::NoResponse { left.min(SOON) } else { left };
                return Err((wait, cause));
            }
            self.state = State::HalfOpen { under_way: 0, successes: 0, cause };
            rested = Some(cause);
        }
        match &mut self.state {
            State::Closed | State::Open { .. } => Ok((None, None)),
            State::HalfOpen { under_way, successes, cause } => {
                if *under_way + *successes >= rules.half_open_requests {
                    // The probes are in progress: other requests retry shortly.
                    return Err((SOON, *cause));
                }
                *under_way += 1;
                Ok((Some(self.round), rested))
            }
        }
    }

    pub(super) fn report(
        &mut self,
        outcome: Outcome,
        probe: Option<u64>,
        rules: &config::Breaker,
        now: Duration,
    ) -> Option<(Position, Cause)> {
        match (&mut self.state, probe) {
            (State::HalfOpen { under_way, successes, cause }, Some(round))
                if round == self.round =>
            {
                *under_way = under_way.saturating_sub(1);
                let was = *cause;
                match outcome {
                    Outcome::Success => {}
                    Outcome::Failure => return Some(self.open(Cause::Failures, rules, now)),
                    Outcome::Silence => return Some(self.open(Cause::NoResponse, rules, now)),
                }
                *successes += 1;
                if *successes < rules.half_open_requests {
                    return None;
                }
                self.close();
                Some((Position::Closed, was))
            }
            (State::Closed, _) => {
                self.count(outcome, rules, now);
                let recent = self.recent(rules, now);
                let cause = recent.cause();
                recent.is_sick(rules).then(|| self.open(cause, rules, now))
            }
            // An exchange from before the opening says nothing about the present.
            _ => None,
        }
    }

    /// Reports whether a probe reached it; `Some` if that changed the position.
    pub(super) fn found(&mut self, there: bool, now: Duration) -> Option<(Position, Cause)> {
        let State::Open { until, cause, gone } = &mut self.state else { return None };
        if now >= *until {
            return None;
        }
        if !there {
            // An upstream with failing responses that became unreachable is probably restarting.
            *cause = Cause::NoResponse;
            *gone = true;
            return None;
        }
        if *cause == Cause::Failures {
            return None;
        }
        let was_gone = *gone;
        self.returned = Some(now);
        if was_gone {
            // It was unreachable, and is reachable again.
            self.close();
            return Some((Position::Closed, Cause::NoResponse));
        }
        // It accepts connections, as it may have done all the time: only requests can show whether it
        // responds.
        self.state = State::HalfOpen { under_way: 0, successes: 0, cause: Cause::NoResponse };
        Some((Position::HalfOpen, Cause::NoResponse))
    }

    pub(super) fn give_back(&mut self, round: u64) {
        if let State::HalfOpen { under_way, .. } = &mut self.state
            && round == self.round
        {
            *under_way = under_way.saturating_sub(1);
        }
    }

    fn open(&mut self, cause: Cause, rules: &config::Breaker, now: Duration) -> (Position, Cause) {
        let starting = self.returned.is_some_and(|returned| now < returned + START);
        let duration = match cause {
            Cause::Failures if starting => SOON.min(*rules.open_duration),
            Cause::Failures | Cause::NoResponse => *rules.open_duration,
        };
        self.round += 1;
        // A breaker that opens again from half-open counts as open all along.
        if !self.is_tripped() {
            self.opened = now;
        }
        self.state = State::Open { until: now + duration, cause, gone: false };
        (Position::Open, cause)
    }

    fn close(&mut self) {
        // Probes that are still in progress belong to a previous round.
        self.round += 1;
        self.state = State::Closed;
        self.slots = [Slot::default(); SLOTS];
    }

    fn count(&mut self, outcome: Outcome, rules: &config::Breaker, now: Duration) {
        let tick = tick(rules, now);
        let at = usize::try_from(tick % SLOTS as u64).unwrap_or_default();
        let slot = &mut self.slots[at];
        if slot.tick != tick {
            *slot = Slot { tick, ..Slot::default() };
        }
        slot.requests += 1;
        slot.failures += u32::from(outcome != Outcome::Success);
        slot.silences += u32::from(outcome == Outcome::Silence);
    }

    fn recent(&self, rules: &config::Breaker, now: Duration) -> Recent {
        let oldest = (tick(rules, now) + 1).saturating_sub(SLOTS as u64);
        let slots = self.slots.iter().filter(|slot| slot.tick >= oldest);
        slots.fold(Recent::default(), |sum, slot| Recent {
            requests: sum.requests + u64::from(slot.requests),
            failures: sum.failures + u64::from(slot.failures),
            silences: sum.silences + u64::from(slot.silences),
        })
    }
}

/// What happened within the window.
#[derive(Clone, Copy, Default)]
struct Recent {
    requests: u64,
    failures: u64,
    silences: u64,
}

impl Recent {
    fn is_sick(self, rules: &config::Breaker) -> bool {
        self.requests >= u64::from(rules.requests_min)
            && self.failures > 0
            && self.failures * 100 >= self.requests * u64::from(rules.failure_percent)
    }

    fn cause(self) -> Cause {
        if self.silences * 2 >= self.failures { Cause::NoResponse } else { Cause::Failures }
    }
}

/// The window has ten slices; this numbers them.
fn tick(rules: &config::Breaker, now: Duration) -> u64 {
    let slice = (rules.window.as_nanos() / SLOTS as u128).max(1);
    u64::try_from(now.as_nanos() / slice).unwrap_or(u64::MAX)
}
