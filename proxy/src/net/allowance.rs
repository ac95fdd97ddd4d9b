//! How much others may cause us to do: some in a row, then one for each interval.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::clock;

/// A burst, and the interval after which there is another.
#[derive(Clone, Copy, Debug)]
pub struct Rate(pub NonZeroU32, pub Duration);

/// What is left of a rate.
pub struct Allowance<C: Clock = Elapsed>(
    RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
);

/// The clock of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elapsed;

impl Clock for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        clock::elapsed()
    }
}

impl Rate {
    /// `in_a_row` is at least one, and `interval` not zero: both are checked where it is a constant.
    pub const fn new(in_a_row: u32, interval: Duration) -> Self {
        assert!(!interval.is_zero());
        Self(NonZeroU32::new(in_a_row).expect("at least one"), interval)
    }
}

impl Allowance {
    /// All of this rate.
    pub fn new(rate: Rate) -> Self {
        Self::by(rate, Elapsed)
    }
}

impl<C: Clock + Clone> Allowance<C>
where
    C::Instant: Reference,
{
    /// All of this rate, by another clock.
    pub fn by(Rate(in_a_row, interval): Rate, clock: C) -> Self {
        let quota = Quota::with_period(interval).expect("a rate has an interval");
        Self(RateLimiter::direct_with_clock(quota.allow_burst(in_a_row), clock))
    }

    /// Takes one if there is one left; returns whether there was.
    pub fn take(&self) -> bool {
        self.0.check().is_ok()
    }

    /// Refills it.
    pub fn refill(&mut self, rate: Rate) {
        let clock = C::clone(self.0.clock());
        *self = Self::by(rate, clock);
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn some_may_follow_each_other_and_then_one_for_each_interval() {
        let clock = FakeRelativeClock::default();
        let allowance = Allowance::by(Rate::new(3, Duration::from_secs(10)), clock.clone());
        let taken_after = |seconds: u64| {
            clock.advance(Duration::from_secs(seconds));
            (0..5).filter(|_| allowance.take()).count()
        };
        let taken = [0, 9, 1, 15, 875].map(taken_after);
        assert_eq!(taken, [3, 0, 1, 1, 3]);
    }
}
