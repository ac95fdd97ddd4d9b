//! The tokens of one limit that a replica holds.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{LEASE, Taken, Terms};
use crate::Now;

/// The tokens of one limit that a replica holds.
pub struct Lease {
    /// The limit's name in the store, derived from the limit and its owner, the same on all replicas.
    pub name: Box<str>,
    /// Its number in this process.
    pub number: u64,
    /// Time between two requests at exactly the limit's rate.
    pub interval: Duration,
    /// Requests that pass in one burst.
    pub burst: u32,
    held: Mutex<LeaseState>,
}

/// The part that changes. Times are nanoseconds since the process started.
#[derive(Default)]
pub(super) struct LeaseState {
    /// The latest moment of a decided request.
    latest: u64,
    /// The epoch in which the store granted what is here.
    epoch: u64,
    left: u32,
    /// Until when it may be spent.
    lapses: u64,
    /// Everything ever spent of leases, and how much of that the store knows.
    spent: u64,
    acked: u64,
    /// How much to hold: the faster it is spent, the more.
    plan: u32,
    asked: u64,
    /// Requests that wait for a token.
    waiting: u32,
    refilling: bool,
    pub(super) queued_for: Option<u64>,
    /// There is no budget before the first moment, and nothing that others could have returned before the
    /// second.
    spent_until: Option<(u64, u64)>,
    /// What the store had left at that time.
    rest: u32,
    rest_at: u64,
    /// When this replica's share of the limit is whole again, if it is not.
    whole_at: u64,
    /// Whether that share was used while the store was unreachable, and the store does not know.
    carried: bool,
}

/// A question about a limit.
pub struct Question {
    /// The lease that it is about.
    pub lease: Arc<Lease>,
    /// Everything that this replica ever spent of it. Not since the last question: answers get lost.
    pub spent: u64,
    /// The part of that which the last answer acknowledged.
    pub acked: u64,
    /// What this replica still holds. The rest is returned.
    pub left: u32,
    /// What it requests in addition.
    pub ask: u32,
    /// How much of the whole burst would be spent if all replicas had spent as much as this one.
    pub debt: u32,
    /// Whether the store must apply that. Otherwise it does so only if it does not know this limit.
    pub carried: bool,
}

/// The store's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Tokens that may be spent, in addition to those that were left.
    pub granted: u32,
    /// Tokens that others could have now.
    pub rest: u32,
    /// The time until there is another one, if there is none.
    pub wait: Duration,
    /// The time until there may be one anyway, because others returned theirs.
    pub again: Duration,
}

/// A replica that spends its lease within `FAST` gets more the next time; one that takes longer than `SLOW`
/// gets less.
const FAST: u64 = 100_000_000;
const SLOW: u64 = 500_000_000;
/// All replicas together hold at most a burst divided by this.
pub(super) const BURST_PARTS: u32 = 4;
/// The longest pause before the next question if the budget is spent: one question should yield a few
/// tokens.
const PAUSE_MAX: u64 = 50_000_000;
/// A smaller lease is not refilled before it is spent.
const REFILLED_MIN: u32 = 4;

impl Lease {
    /// An empty lease.
    pub fn new(name: String, number: u64, limit: config::Limit) -> Self {
        Self {
            name: name.into(),
            number,
            interval: limit.rate.interval(),
            burst: limit.burst().get(),
            held: Mutex::new(LeaseState { plan: 1, ..LeaseState::default() }),
        }
    }

    /// Takes one of the held tokens. `queue` puts a question to the store into a batch, and returns its
    /// number.
    pub(super) fn take(
        &self,
        epoch: u64,
        terms: &Terms,
        now: Now,
        queue: impl FnOnce(&mut LeaseState) -> u64,
    ) -> Taken {
        let mut held = self.held.lock();
        let at = held.moment(now);
        held.reach(epoch);
        held.lapse(at);
        let over = held.spent_until.filter(|(_, again)| at < *again);
        if held.left > 0 {
            held.left -= 1;
            held.spent += 1;
            self.charge(&mut held, terms, at);
            let low = held.plan >= REFILLED_MIN && held.left <= held.plan / 4;
            if low && over.is_none() && !held.refilling {
                held.refilling = true;
                queue(&mut held);
            }
            return Taken::Token { remaining: self.remaining(&held, held.left, at) };
        }
        if let Some((until, _)) = over {
            return Taken::Over(Duration::from_nanos(until.saturating_sub(at)));
        }
        held.waiting = held.waiting.saturating_add(1);
        Taken::Lacking(queue(&mut held))
    }

    /// Takes a token of this replica's own share, without the store.
    pub(super) fn take_alone(&self, terms: &Terms, now: Now) -> Taken {
        let mut held = self.held.lock();
        let at = held.moment(now);
        let (interval, full) = self.part(terms);
        let debt = held.whole_at.saturating_sub(at);
        let then = debt.saturating_add(interval);
        if then > full {
            return Taken::Over(Duration::from_nanos(then - full));
        }
        held.whole_at = at.saturating_add(then);
        held.carried = true;
        let remaining = u32::try_from((full - then) / interval).unwrap_or(u32::MAX);
        Taken::Token { remaining }
    }

    /// What would pass of the held tokens and of the store's rest. `None` if the store has not answered yet.
    pub(super) fn peek(&self, epoch: u64, now: Now) -> Option<Result<u32, Duration>> {
        let at = nanos(now.elapsed);
        let held = self.held.lock();
        if held.epoch != epoch || held.rest_at == 0 {
            return None;
        }
        let of_lease = if at < held.lapses { held.left } else { 0 };
        let over =
            held.spent_until.filter(|(until, again)| of_lease == 0 && at < *until.min(again));
        if let Some((until, _)) = over {
            return Some(Err(Duration::from_nanos(until - at)));
        }
        Some(Ok(self.remaining(&held, of_lease, at)))
    }

    /// The same for this replica's share.
    pub(super) fn peek_alone(&self, terms: &Terms, now: Now) -> Result<u32, Duration> {
        let at = nanos(now.elapsed);
        let (interval, full) = self.part(terms);
        let debt = self.held.lock().whole_at.saturating_sub(at);
        let then = debt.saturating_add(interval);
        if then > full {
            return Err(Duration::from_nanos(then - full));
        }
        Ok(u32::try_from((full - debt) / interval).unwrap_or(u32::MAX))
    }

    pub(super) fn put_back(&self, epoch: u64) {
        let mut held = self.held.lock();
        if held.epoch == epoch && held.spent > 0 {
            held.left += 1;
            held.spent -= 1;
        }
    }

    /// The question to send; `None` if there is none.
    pub(super) fn question(
        self: Arc<Self>,
        epoch: u64,
        terms: &Terms,
        now: Now,
    ) -> Option<Question> {
        let at = nanos(now.elapsed);
        let mut held = self.held.lock();
        held.reach(epoch);
        held.lapse(at);
        held.refilling = false;
        held.adapt(at, (self.burst / BURST_PARTS / terms.replicas).max(1));
        let wanted = held.plan.max(held.waiting);
        held.waiting = 0;
        let ask = wanted.saturating_sub(held.left);
        if ask == 0 {
            return None;
        }
        held.refilling = true;
        let (_, full) = self.part(terms);
        let gone = held.whole_at.saturating_sub(at) as f64 / full as f64;
        let question = Question {
            spent: held.spent,
            acked: held.acked,
            left: held.left,
            ask,
            debt: (gone.min(1.0) * f64::from(self.burst)).ceil() as u32,
            carried: held.carried,
            lease: Arc::clone(&self),
        };
        drop(held);
        Some(question)
    }

    pub(super) fn answered(
        &self,
        epoch: u64,
        question: &Question,
        answer: &LeaseGrant,
        sent: Now,
        now: Now,
    ) {
        let at = nanos(now.elapsed);
        let mut held = self.held.lock();
        if held.epoch != epoch {
            return;
        }
        held.left = held.left.saturating_add(answer.granted);
        // Counted from when it was sent: the store began later, and so never ends before us.
        held.lapses = nanos(sent.elapsed + LEASE);
        held.acked = question.spent;
        held.refilling = false;
        held.carried = false;
        (held.rest, held.rest_at) = (answer.rest, at);
        let pause = PAUSE_MAX.min(self.whole() / 4);
        let after = |time| at.saturating_add(nanos(time).max(pause));
        held.spent_until =
            (answer.granted < question.ask).then(|| (after(answer.wait), after(answer.again)));
    }

    /// What other replicas spend is unknown until the next question, so it may be less.
    fn remaining(&self, held: &LeaseState, left: u32, at: u64) -> u32 {
        let back = at.saturating_sub(held.rest_at) / nanos(self.interval).max(1);
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        held.rest.saturating_add(back).saturating_add(left).min(self.burst)
    }

    /// Charges this replica's share as well, so that it is not full when the store becomes unreachable.
    fn charge(&self, held: &mut LeaseState, terms: &Terms, at: u64) {
        let (interval, full) = self.part(terms);
        let then = held.whole_at.max(at).saturating_add(interval);
        held.whole_at = then.min(at.saturating_add(full));
    }

    /// The interval of this replica's share of the limit, and the time that its burst is worth.
    fn part(&self, terms: &Terms) -> (u64, u64) {
        let interval = nanos(self.interval).max(1).saturating_mul(u64::from(terms.parts));
        let burst = (self.burst / terms.parts).max(1);
        (interval, interval.saturating_mul(u64::from(burst)))
    }

    fn whole(&self) -> u64 {
        nanos(self.interval).max(1).saturating_mul(u64::from(self.burst))
    }
}

impl LeaseState {
    /// The moment a request counts at: concurrent requests are decided out of order, and a late one must not
    /// be refused for what later ones took.
    fn moment(&mut self, now: Now) -> u64 {
        self.latest = self.latest.max(nanos(now.elapsed));
        self.latest
    }

    /// Tokens of another epoch do not count: the store reclaims them itself.
    fn reach(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            (self.left, self.waiting, self.refilling, self.spent_until) = (0, 0, false, None);
        }
    }

    fn lapse(&mut self, at: u64) {
        if self.left > 0 && at >= self.lapses {
            self.left = 0;
            self.plan = (self.plan / 2).max(1);
        }
    }

    fn adapt(&mut self, at: u64, max: u32) {
        let since = at.saturating_sub(self.asked);
        if self.left <= self.plan / 4 && since < FAST {
            self.plan = self.plan.saturating_mul(2);
        } else if since > SLOW {
            self.plan /= 2;
        }
        self.plan = self.plan.clamp(1, max);
        self.asked = at;
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
