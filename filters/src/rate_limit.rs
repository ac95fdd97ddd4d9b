//! How much each workspace, plugin, route, caller and client may ask for (GCRA).

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
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
use ring::digest::{SHA256, digest};
use smallvec::SmallVec;

use crate::{
    Denial, Label, Now, client,
    denial::Lack,
    hex,
    identity::Caller,
    leases::{Lease, Leases, Taken},
    routes::Route,
    workspaces::Workspace,
};

/// The limits of a policy.
#[derive(Debug)]
pub struct RateLimits {
    each_workspace: config::Limit,
    each_workspace_calls: config::Limit,
    each_caller: Option<config::Limit>,
    each_client: config::Limit,
    each_plugin: HashMap<String, config::Limit>,
}

/// What has been asked for. Bounded: the longest unused limiter is forgotten first. Callers and
/// workspaces are verified names; clients are strangers, so they cannot push the others out.
pub struct Limiters {
    verified: Cache<u64, Arc<Limiter>>,
    strangers: Cache<u64, Arc<Limiter>>,
    /// Where verified names count instead, if replicas share their limits.
    leases: Option<Arc<Leases>>,
    hasher: RandomState,
    /// Whether anything counts.
    counting: bool,
}

/// Where a request stands in one of its limits, for the `RateLimit` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which limit: `workspace`, `caller`, `plugin`, `route` or `client`.
    pub scope: &'static str,
    /// Requests in `window` at most.
    pub quota: u32,
    /// The time that `quota` is for.
    pub window: Duration,
    /// Requests that would pass right now.
    pub remaining: u32,
    /// Until everything has been given back.
    pub reset: Duration,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Given, StateInformationMiddleware>;

const VERIFIED_MAX: u64 = 100_000;
const STRANGERS_MAX: u64 = 50_000;
/// A limiter that nobody used for so long is full again, whatever its rate.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

impl RateLimits {
    /// From what the operator wrote.
    pub fn new(written: &config::Config) -> Self {
        let limits = &written.rate_limit;
        let plugins = written.plugins.iter();
        Self {
            each_workspace: limits.each_workspace,
            each_workspace_calls: written.egress.each_workspace,
            each_caller: limits.each_caller,
            each_client: limits.each_client,
            each_plugin: plugins
                .filter_map(|(name, plugin)| Some((name.to_string(), plugin.rate_limit?)))
                .collect(),
        }
    }

    /// Counts a request of a known caller against every limit it falls under, the narrowest first,
    /// so that what a narrow limit refuses is not charged to the workspace. Answers with the
    /// tightest.
    ///
    /// # Errors
    /// [`Denial::RateLimited`] and [`Denial::LimitsUnavailable`]; with `lack` set nothing was charged.
    pub fn take(
        &self,
        limiters: &Limiters,
        route: &Route,
        caller: &Caller,
        workspace: Option<&Workspace>,
        now: Now,
        lack: &mut Option<Lack>,
    ) -> Result<Standing, Denial> {
        let who = workspace.map_or(&caller.subject, |workspace| &workspace.name);
        let own = workspace.and_then(|w| w.declared.as_ref()).and_then(|d| d.rate_limit);
        let plugin =
            route.plugin.as_ref().and_then(|name| Some((name, self.each_plugin.get(&**name)?)));
        let scope = if workspace.is_some() { "workspace" } else { "caller" };

        let mut count = Count::new(limiters, now);
        if let Some(limit) = self.each_caller {
            let subject = &caller.subject;
            count.take("caller", limit, subject, &["caller", &caller.issuer, subject])?;
        }
        if let Some(limit) = route.options.rate_limit {
            count.take("route", limit, who, &["route", &route.name, scope, who])?;
        }
        if let Some((name, limit)) = plugin {
            count.take("plugin", *limit, who, &["plugin", name, scope, who])?;
        }
        let limit = own.unwrap_or(self.each_workspace);
        count.take(scope, limit, who, &["workspace", scope, who])?;
        count.end(lack)
    }

    /// Counts a call out against its workspace's limit for them, or its caller's own.
    ///
    /// # Errors
    /// As [`RateLimits::take`].
    pub fn take_call(
        &self,
        limiters: &Limiters,
        caller: &Caller,
        workspace: Option<&Workspace>,
        now: Now,
        lack: &mut Option<Lack>,
    ) -> Result<Standing, Denial> {
        let who = workspace.map_or(&caller.subject, |workspace| &workspace.name);
        let scope = if workspace.is_some() { "workspace" } else { "caller" };
        let mut count = Count::new(limiters, now);
        count.take(scope, self.each_workspace_calls, who, &["call", scope, who])?;
        count.end(lack)
    }

    /// Counts a request of a client that has not said who it is, or not truly.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn take_stranger(
        &self,
        limiters: &Limiters,
        client: IpAddr,
        now: Now,
    ) -> Result<Standing, Denial> {
        let limit = self.each_client;
        if !limiters.counting {
            return Ok(stand("client", limit, limit.burst().get()));
        }
        let key = limiters.key(&(client::network(client), limit.rate.count, limit.burst()));
        let limiter = limiters
            .strangers
            .get(&key)
            .unwrap_or_else(|| limiters.strangers.get_with(key, || Arc::new(new(limit, now))));
        let standing = at(now, || limiter.check());
        match standing {
            Ok(state) => Ok(stand("client", limit, state.remaining_burst_capacity())),
            Err(until) => Err(Denial::RateLimited {
                scope: "client",
                name: Label::lossy(&client.to_string()),
                retry_after: until.wait_time_from(now.elapsed),
            }),
        }
    }
}

/// Counts one request against several limits.
struct Count<'a> {
    limiters: &'a Limiters,
    now: Now,
    tightest: Option<Standing>,
    /// What was taken of leases.
    taken: SmallVec<[Arc<Lease>; 4]>,
    /// Which of its limits are to be asked about, and in which batch.
    lacking: Option<(Denial, u64)>,
}

impl<'a> Count<'a> {
    fn new(limiters: &'a Limiters, now: Now) -> Self {
        Self { limiters, now, tightest: None, taken: SmallVec::new(), lacking: None }
    }

    /// `parts` are its name, which is the same on all replicas.
    fn take(
        &mut self,
        scope: &'static str,
        limit: config::Limit,
        name: &Label,
        parts: &[&str],
    ) -> Result<(), Denial> {
        let (limiters, now) = (self.limiters, self.now);
        let key = limiters.key(&(parts, limit.rate.count, limit.rate.per, limit.burst()));
        let Some(leases) = &limiters.leases else {
            self.stand(limiters.check(key, scope, limit, name, now)?);
            return Ok(());
        };
        let lease = leases.of(key, |number| Lease::new(stored_as(parts, limit), number, limit));
        let over = |retry_after| Denial::RateLimited { scope, name: name.clone(), retry_after };
        match leases.take(&lease, now) {
            Taken::Token { remaining } => {
                self.stand(stand(scope, limit, remaining));
                self.taken.push(lease);
                Ok(())
            }
            Taken::Over(retry_after) => Err(over(retry_after)),
            Taken::Closed => Err(Denial::LimitsUnavailable),
            // The wider limits are asked about in the same batch.
            Taken::Lacking(batch) => {
                self.lacking = Some((over(limit.rate.interval()), batch));
                Ok(())
            }
        }
    }

    fn stand(&mut self, standing: Standing) {
        if self.tightest.is_none_or(|tightest| standing.remaining <= tightest.remaining) {
            self.tightest = Some(standing);
        }
    }

    fn end(self, lack: &mut Option<Lack>) -> Result<Standing, Denial> {
        let Some((denial, batch)) = self.lacking else {
            let tightest = self.tightest;
            return Ok(tightest.expect("a request counts against at least its workspace's limit"));
        };
        if let Some(leases) = &self.limiters.leases {
            self.taken.iter().for_each(|lease| leases.put_back(lease));
        }
        *lack = Some(Lack::Tokens { batch });
        Err(denial)
    }
}

/// What a limit is called in the store. Whose it is does not stand there, and a changed limit is another.
fn stored_as(parts: &[&str], limit: config::Limit) -> String {
    let mut text = parts.join("\n");
    text.push_str(&format!("\n{} {}", limit.rate, limit.burst()));
    format!("{}:{}", parts[0], &hex::write(digest(&SHA256, text.as_bytes()).as_ref())[..32])
}

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

    /// A key for a name. Keyed with a random seed, so nobody can make two names share one.
    fn key(&self, name: &impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(name)
    }

    fn check(
        &self,
        key: u64,
        scope: &'static str,
        limit: config::Limit,
        name: &Label,
        now: Now,
    ) -> Result<Standing, Denial> {
        if !self.counting {
            return Ok(stand(scope, limit, limit.burst().get()));
        }
        let limiter = self.verified(key, limit, now);
        match at(now, || limiter.check()) {
            Ok(state) => Ok(stand(scope, limit, state.remaining_burst_capacity())),
            Err(until) => Err(Denial::RateLimited {
                scope,
                name: name.clone(),
                retry_after: until.wait_time_from(now.elapsed),
            }),
        }
    }

    /// Its key has the limit in it: a changed limit is a new limiter, and a reload counts at once.
    fn verified(&self, key: u64, limit: config::Limit, now: Now) -> Arc<Limiter> {
        self.verified
            .get(&key)
            .unwrap_or_else(|| self.verified.get_with(key, || Arc::new(new(limit, now))))
    }
}

fn stand(scope: &'static str, limit: config::Limit, remaining: u32) -> Standing {
    let missing = limit.burst().get().saturating_sub(remaining);
    Standing {
        scope,
        quota: limit.rate.count.get(),
        window: limit.rate.per,
        remaining,
        reset: limit.rate.interval() * missing,
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
    use proptest::prelude::*;

    use super::*;

    fn limits(rate: &str, burst: u32) -> RateLimits {
        let limit =
            config::Limit { rate: rate.parse().unwrap(), burst: std::num::NonZeroU32::new(burst) };
        RateLimits {
            each_workspace: limit,
            each_workspace_calls: limit,
            each_caller: None,
            each_client: limit,
            each_plugin: HashMap::new(),
        }
    }

    fn after(ms: u64) -> Now {
        Now::default().plus(Duration::from_millis(ms))
    }

    const ADA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_client_gets_its_burst_then_waits_one_interval() {
        let (limits, limiters) = (limits("2/s", 2), Limiters::default());
        let take = |ms| limits.take_stranger(&limiters, ADA, after(ms));

        assert_eq!(take(0).unwrap().remaining, 1);
        assert_eq!(take(0).unwrap().remaining, 0);
        let denied = take(100).unwrap_err();
        assert_eq!(denied.retry_after(), Some(Duration::from_millis(400)));
        assert!(take(500).is_ok());
    }

    #[test]
    fn calls_have_a_share_of_their_own() {
        let (limits, limiters) = (limits("1/h", 2), Limiters::default());
        let caller = Caller::supposed(Label::lossy("listener:out"));
        let call = || limits.take_call(&limiters, &caller, None, after(0), &mut None);
        assert!(call().is_ok() && call().is_ok());
        assert!(matches!(call(), Err(Denial::RateLimited { scope: "caller", .. })));
        assert!(limits.take_stranger(&limiters, ADA, after(0)).is_ok());
    }

    #[test]
    fn strangers_are_forgotten_before_memory_runs_out() {
        let (limits, limiters) = (limits("1/s", 1), Limiters::default());
        for n in 0..STRANGERS_MAX as u32 * 2 {
            let client = IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
            let _ = limits.take_stranger(&limiters, client, after(0));
        }
        assert!(limiters.len().1 <= STRANGERS_MAX);
    }

    proptest! {
        #[test]
        fn never_more_passes_than_burst_and_rate_allow(
            gaps in proptest::collection::vec(0u64..300, 1..200),
            burst in 1u32..20,
        ) {
            let (limits, limiters) = (limits("10/s", burst), Limiters::default());
            let (mut elapsed, mut passed) = (0, 0u64);
            for gap in gaps {
                elapsed += gap;
                passed += u64::from(limits.take_stranger(&limiters, ADA, after(elapsed)).is_ok());
            }
            prop_assert!(passed <= u64::from(burst) + elapsed / 100);
        }
    }
}
