//! The state of rate limits (GCRA).

use std::{
    cell::Cell,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore},
};
use moka::sync::Cache;

use crate::{Now, limits::leases::Leases, request::client};

/// The state of all limits. Bounded: the least recently used limiter is evicted first. Verified names and
/// client addresses are stored apart, so that unauthenticated clients cannot evict the others.
pub struct Limiters {
    verified: Cache<u64, Arc<Limiter>>,
    strangers: Cache<u64, Arc<Limiter>>,
    /// The leases that verified names count in instead, if replicas share their limits.
    pub(super) leases: Option<Arc<Leases>>,
    hasher: RandomState,
    /// Whether anything is counted.
    counting: bool,
}

/// The state of one limit.
struct Limiter {
    counted: RateLimiter<NotKeyed, PeekableState, DecisionTime, StateInformationMiddleware>,
    /// The latest moment of a decided request, in nanoseconds since the start.
    latest: AtomicU64,
}

const VERIFIED_MAX: u64 = 100_000;
const STRANGERS_MAX: u64 = 50_000;
/// A limiter that has not been used for this long is full again, whatever its rate.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

impl Default for Limiters {
    fn default() -> Self {
        let cache = |max| Cache::builder().max_capacity(max).time_to_idle(FORGOTTEN_AFTER).build();
        Self {
            verified: cache(VERIFIED_MAX),
            strangers: cache(STRANGERS_MAX),
            leases: None,
            hasher: RandomState::new(),
            counting: true,
        }
    }
}

impl Limiters {
    /// Limiters that count and refuse nothing, for `replay`.
    pub fn suspended() -> Self {
        Self { counting: false, ..Self::default() }
    }

    /// Limiters whose verified names are shared with other replicas.
    pub fn sharing(leases: Arc<Leases>) -> Self {
        Self { leases: Some(leases), ..Self::default() }
    }

    /// The number of limiters: of verified names, and of client addresses.
    pub fn len(&self) -> (u64, u64) {
        self.verified.run_pending_tasks();
        self.strangers.run_pending_tasks();
        (self.verified.entry_count(), self.strangers.entry_count())
    }

    /// Whether nothing has been counted yet.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// The key of an owner's limit. Hashed with a random seed, so that nobody can make two names collide. It
    /// includes the limit: a changed limit is a new limiter, so a reload takes effect immediately.
    pub(super) fn key(&self, whose: &impl Hash, limit: config::Limit) -> u64 {
        self.hasher.hash_one((whose, limit.rate.count, limit.rate.per, limit.burst()))
    }

    /// Counts a request of a verified name: how many more would pass now, or how long none will.
    pub(super) fn take(&self, key: u64, limit: config::Limit, now: Now) -> Result<u32, Duration> {
        self.take_of(&self.verified, key, limit, now)
    }

    /// Counts a request of a client, against the limit that `of` names.
    pub(super) fn take_stranger(
        &self,
        of: (&str, &str),
        limit: config::Limit,
        client: IpAddr,
        now: Now,
    ) -> Result<u32, Duration> {
        let key = self.key(&(of, client::network(client)), limit);
        self.take_of(&self.strangers, key, limit, now)
    }

    fn take_of(
        &self,
        all: &Cache<u64, Arc<Limiter>>,
        key: u64,
        limit: config::Limit,
        now: Now,
    ) -> Result<u32, Duration> {
        if !self.counting {
            return Ok(limit.burst().get());
        }
        let limiter = all
            .get(&key)
            .unwrap_or_else(|| all.get_with(key, || Arc::new(Limiter::new(limit, now))));
        limiter.take(now)
    }

    /// How many requests of a verified name would pass now, or how long none will.
    pub(super) fn peek(&self, key: u64, limit: config::Limit, now: Now) -> Result<u32, Duration> {
        peek_at(&self.verified, key, limit, now)
    }

    /// The same for a client, of the limit that `of` names.
    pub(super) fn peek_stranger(
        &self,
        of: (&str, &str),
        limit: config::Limit,
        client: IpAddr,
        now: Now,
    ) -> Result<u32, Duration> {
        let key = self.key(&(of, client::network(client)), limit);
        peek_at(&self.strangers, key, limit, now)
    }
}

fn peek_at(
    all: &Cache<u64, Arc<Limiter>>,
    key: u64,
    limit: config::Limit,
    now: Now,
) -> Result<u32, Duration> {
    // An unused limit is whole.
    all.get(&key).map_or(Ok(limit.burst().get()), |limiter| limiter.peek(now))
}

impl Limiter {
    fn new(limit: config::Limit, now: Now) -> Self {
        let quota = Quota::with_period(limit.rate.interval())
            .expect("a rate is at most one per nanosecond")
            .allow_burst(limit.burst());
        let new = || RateLimiter::new(quota, PeekableState::default(), DecisionTime);
        Self { counted: at(now.elapsed, new), latest: AtomicU64::new(0) }
    }

    /// Counts a request: how many would pass after it, or how long none will.
    fn take(&self, now: Now) -> Result<u32, Duration> {
        let elapsed = nanos(now.elapsed);
        // Concurrent requests are decided out of order. Requests that arrived later but were decided first
        // would count against one that is decided now, and a limit whose burst is worth less time than the
        // delay would refuse it. So it counts as no earlier than the latest of them.
        let latest = self.latest.fetch_max(elapsed, Ordering::Relaxed).max(elapsed);
        self.count(Duration::from_nanos(latest))
    }

    /// How many would pass, or how long none will.
    fn peek(&self, now: Now) -> Result<u32, Duration> {
        let latest = self.latest.load(Ordering::Relaxed).max(nanos(now.elapsed));
        let peeked = peeking(|| self.count(Duration::from_nanos(latest)));
        // That is what would be left after it.
        peeked.map(|left| left + 1)
    }

    fn count(&self, moment: Duration) -> Result<u32, Duration> {
        match at(moment, || self.counted.check()) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => Err(until.wait_time_from(moment)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// governor always counts. While `PEEKING` is set, this wrapper discards the count, so that a limit can be
/// read.
#[derive(Default)]
struct PeekableState(InMemoryState);

impl StateStore for PeekableState {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if !PEEKING.get() {
            return self.0.measure_and_replace(key, measure);
        }
        // A refusal replaces nothing.
        let measured = self.0.measure_and_replace(key, |last| Err::<((), Nanos), _>(measure(last)));
        measured.expect_err("a look is always refused").map(|(found, _)| found)
    }
}

/// The clock for governor: the moment of the decision.
#[derive(Clone, Copy, Debug)]
struct DecisionTime;

thread_local! {
    static MOMENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static PEEKING: Cell<bool> = const { Cell::new(false) };
}

fn at<T>(moment: Duration, run: impl FnOnce() -> T) -> T {
    MOMENT.set(moment);
    run()
}

fn peeking<T>(run: impl FnOnce() -> T) -> T {
    PEEKING.set(true);
    let found = run();
    PEEKING.set(false);
    found
}

impl Clock for DecisionTime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        MOMENT.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(rate: &str, burst: u32) -> config::Limit {
        let written = format!(r#"{{"rate": "{rate}", "burst": {burst}}}"#);
        serde_json::from_str(&written).unwrap()
    }

    fn at_ms(ms: u64) -> Now {
        Now::default().plus(Duration::from_millis(ms))
    }

    #[test]
    fn a_request_decided_late_is_not_refused_for_later_ones() {
        // Its burst is worth 100 ms.
        let (limiters, limit) = (Limiters::default(), limit("100000/s", 10_000));
        assert!(limiters.take(1, limit, at_ms(0)).is_ok());
        assert!(limiters.take(1, limit, at_ms(1000)).is_ok());
        for late in 0..2000 {
            let taken = limiters.take(1, limit, at_ms(1000 - late % 500));
            assert!(taken.is_ok(), "{late}: {taken:?}");
        }
    }

    proptest! {
        #[test]
        fn as_many_as_a_burst_pass_in_whatever_order_they_are_decided(
            came in proptest::collection::vec(0u64..5000, 1..100),
        ) {
            let (limiters, limit) = (Limiters::default(), limit("1000/s", 100));
            for ms in came {
                prop_assert!(limiters.take(1, limit, at_ms(ms)).is_ok());
            }
        }

        #[test]
        fn no_order_lets_more_pass_than_burst_and_rate(
            came in proptest::collection::vec(0u64..1000, 1..300),
            burst in 1u32..20,
        ) {
            let (limiters, limit) = (Limiters::default(), limit("10/s", burst));
            let latest = came.iter().copied().max().unwrap_or_default();
            let passed = came.iter().filter(|ms| limiters.take(1, limit, at_ms(**ms)).is_ok());
            prop_assert!(passed.count() as u64 <= u64::from(burst) + latest / 100);
        }

        #[test]
        fn peeking_takes_nothing_and_returns_what_would_pass(
            asked in proptest::collection::vec((0u64..400, any::<bool>()), 1..100),
            burst in 1u32..20,
        ) {
            let (peeked_at, left_alone) = (Limiters::default(), Limiters::default());
            let (limit, mut ms) = (limit("10/s", burst), 0);
            prop_assert_eq!(peeked_at.peek(1, limit, at_ms(0)), Ok(burst));
            prop_assert_eq!(peeked_at.len().0, 0);
            for (gap, take) in asked {
                ms += gap;
                let peeked = peeked_at.peek(1, limit, at_ms(ms));
                prop_assert_eq!(peeked, peeked_at.peek(1, limit, at_ms(ms)));
                if !take {
                    continue;
                }
                let taken = peeked_at.take(1, limit, at_ms(ms));
                prop_assert_eq!(taken, left_alone.take(1, limit, at_ms(ms)));
                prop_assert_eq!(peeked, taken.map(|left| left + 1));
            }
        }
    }

    #[test]
    fn strangers_are_forgotten_before_memory_runs_out() {
        let limiters = Limiters::default();
        let limit = serde_json::from_str(r#"{"rate": "1/s"}"#).unwrap();
        for n in 0..STRANGERS_MAX as u32 * 2 {
            let client = IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
            for of in ["frontend", "sign-in"] {
                let _ = limiters.take_stranger(("bucket", of), limit, client, Now::default());
            }
        }
        assert!(limiters.len().1 <= STRANGERS_MAX);
    }
}
