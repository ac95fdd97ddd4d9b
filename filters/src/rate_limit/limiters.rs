//! What has been asked for, and when (GCRA).

use std::{
    cell::Cell,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use moka::sync::Cache;

use crate::{Now, client, leases::Leases};

/// What has been asked for. Bounded: the longest unused limiter is forgotten first. Callers and
/// workspaces are verified names; clients are strangers, so they cannot push the others out.
pub struct Limiters {
    verified: Cache<u64, Arc<Limiter>>,
    strangers: Cache<u64, Arc<Limiter>>,
    /// Where verified names count instead, if replicas share their limits.
    pub(super) leases: Option<Arc<Leases>>,
    hasher: RandomState,
    /// Whether anything counts.
    counting: bool,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Given, StateInformationMiddleware>;

const VERIFIED_MAX: u64 = 100_000;
const STRANGERS_MAX: u64 = 50_000;
/// A limiter that nobody used for so long is full again, whatever its rate.
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
    /// Those that count nothing and refuse nobody, for decisions about what was.
    pub fn suspended() -> Self {
        Self { counting: false, ..Self::default() }
    }

    /// Those whose verified names count together with other replicas'.
    pub fn sharing(leases: Arc<Leases>) -> Self {
        Self { leases: Some(leases), ..Self::default() }
    }

    /// How many limiters are kept: of verified names, and of strangers.
    pub fn len(&self) -> (u64, u64) {
        self.verified.run_pending_tasks();
        self.strangers.run_pending_tasks();
        (self.verified.entry_count(), self.strangers.entry_count())
    }

    /// Whether nobody has asked for anything yet.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// A key for whom a limit is for. Keyed with a random seed, so nobody can make two names share
    /// one. It has the limit in it: a changed limit is a new limiter, and a reload counts at once.
    pub(super) fn key(&self, whose: &impl Hash, limit: config::Limit) -> u64 {
        self.hasher.hash_one((whose, limit.rate.count, limit.rate.per, limit.burst()))
    }

    /// Counts one of a verified name: how many would pass right now, or how long there is none.
    pub(super) fn take(&self, key: u64, limit: config::Limit, now: Now) -> Result<u32, Duration> {
        self.take_of(&self.verified, key, limit, now)
    }

    /// Counts one of a client's, of what `of` names.
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
        let limiter =
            all.get(&key).unwrap_or_else(|| all.get_with(key, || Arc::new(new(limit, now))));
        match at(now, || limiter.check()) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => Err(until.wait_time_from(now.elapsed)),
        }
    }
}

fn new(limit: config::Limit, now: Now) -> Limiter {
    let quota = Quota::with_period(limit.rate.interval())
        .expect("a rate is at most one per nanosecond")
        .allow_burst(limit.burst());
    at(now, || RateLimiter::direct_with_clock(quota, Given).with_middleware())
}

/// governor asks a clock; ours says the moment the decision is made for.
#[derive(Clone, Copy, Debug)]
struct Given;

thread_local! {
    static MOMENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn at<T>(now: Now, run: impl FnOnce() -> T) -> T {
    MOMENT.set(now.elapsed);
    run()
}

impl Clock for Given {
    type Instant = Duration;

    fn now(&self) -> Duration {
        MOMENT.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
