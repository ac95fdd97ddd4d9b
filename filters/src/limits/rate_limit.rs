//! Rate limits of each workspace, plugin, route, caller and client (GCRA).

mod describe;
mod each;
mod limiters;
mod remaining;

use std::{net::IpAddr, sync::Arc};

use ring::digest::{SHA256, digest};
use smallvec::SmallVec;

pub use crate::denial::{Of, Over, QuotaStatus};
use crate::{
    Denial, Label, Now,
    checks::workspaces::Workspace,
    denial::Lack,
    identity::Caller,
    limits::leases::{Lease, Taken},
    types::hex,
};
pub use describe::{Counted, describe};
pub use each::Who;
use each::{OfClient, One, What, each};
pub use limiters::Limiters;
pub use remaining::Remaining;

/// The limits of a policy that are not part of a route.
#[derive(Debug)]
pub struct RateLimits {
    per_client: config::Limit,
    calls_per_workspace: config::Limit,
}

/// The limits of one route.
#[derive(Debug)]
pub struct RouteLimits {
    /// The route's name.
    route: Label,
    /// The plugin that it belongs to, and that plugin's limit.
    per_caller: Option<config::Limit>,
    own: Option<config::Limit>,
    plugin: Option<(Label, config::Limit)>,
    per_workspace: config::Limit,
    bucket: Option<Bucket>,
    /// The limit of each client address, if the route is public.
    per_client: config::Limit,
}

/// A bucket beside the workspace's limit.
#[derive(Debug)]
struct Bucket {
    name: Label,
    /// The configured limit.
    written: Option<config::Limit>,
    /// Its minimum if none is configured; without one it is as large as the workspace's limit.
    least: Option<config::Limit>,
}

impl Bucket {
    fn limit(&self, each: config::Limit) -> config::Limit {
        let unwritten = || self.least.map_or(each, |least| least.or_wider(each));
        self.written.unwrap_or_else(unwritten)
    }
}

impl RateLimits {
    /// From what the operator wrote.
    pub fn new(written: &config::Config) -> Self {
        Self {
            per_client: written.rate_limit.per_client,
            calls_per_workspace: written.egress.per_workspace,
        }
    }

    /// Counts a request of a known caller against every limit it falls under, the narrowest first, so that
    /// what a narrow limit refuses is not charged to the workspace. Returns the tightest.
    ///
    /// # Errors
    /// [`Denial::RateLimited`] and [`Denial::LimitsUnavailable`]; if `lack` is set, nothing was charged.
    pub fn take(
        &self,
        limiters: &Limiters,
        limits: &RouteLimits,
        caller: &Caller,
        workspace: Option<&Workspace>,
        now: Now,
        lack: &mut Option<Lack>,
    ) -> Result<QuotaStatus, Denial> {
        let mut count = Count::new(limiters, now);
        each(limits, caller.into(), workspace, |one| count.take(one))?;
        count.end(lack)
    }

    /// Counts an outbound call against its workspace's limit for calls, or its caller's own.
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
    ) -> Result<QuotaStatus, Denial> {
        let (scope, who) = whose(caller.into(), workspace);
        let mut count = Count::new(limiters, now);
        let (limit, parts) = (self.calls_per_workspace, &["call", scope, who]);
        count.take(&One { scope, name: who, of: What::Calls, limit, parts })?;
        count.end(lack)
    }

    /// Counts a request without a caller on a public route, by client address.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn take_public(
        &self,
        limiters: &Limiters,
        limits: &RouteLimits,
        client: IpAddr,
        now: Now,
    ) -> Result<QuotaStatus, Denial> {
        count_client(&self.of_public(limits), limiters, client, now)
    }

    /// Counts a request whose caller is not authenticated, by client address.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn take_stranger(
        &self,
        limiters: &Limiters,
        client: IpAddr,
        now: Now,
    ) -> Result<QuotaStatus, Denial> {
        count_client(&self.of_stranger(), limiters, client, now)
    }
}

impl RouteLimits {
    /// From what the operator wrote.
    pub fn new(written: &config::Config, route: &config::Route) -> Self {
        let limits = &written.rate_limit;
        let plugin = route
            .plugin
            .as_ref()
            .and_then(|name| Some((Label::from(name), written.plugins.get(name)?.rate_limit?)));
        let bucket = route.options.bucket.as_ref();
        let of_bucket = |each| bucket.map_or(each, |name| limits.bucket(name, each));
        Self {
            route: (&route.name).into(),
            per_caller: limits.per_caller,
            own: route.options.rate_limit,
            plugin,
            per_workspace: limits.per_workspace,
            bucket: bucket.map(|name| Bucket {
                name: name.into(),
                written: limits.buckets.get(name).map(|written| written.value),
                least: config::RateLimit::least(name),
            }),
            per_client: of_bucket(limits.per_client),
        }
    }

    /// The workspace's limit where this route counts.
    fn of_workspace(&self, workspace: Option<&Workspace>) -> config::Limit {
        let own = workspace.and_then(|w| w.declared.as_ref()).and_then(|d| d.rate_limit);
        let each = own.unwrap_or(self.per_workspace);
        self.bucket.as_ref().map_or(each, |bucket| bucket.limit(each))
    }
}

/// Who is charged for a request: its workspace, or its caller if it is for none.
fn whose<'a>(caller: Who<'a>, workspace: Option<&'a Workspace>) -> (&'static str, &'a Label) {
    match workspace {
        Some(workspace) => ("workspace", &workspace.name),
        None => ("caller", caller.subject),
    }
}

fn count_client(
    OfClient { parts, of, limit }: &OfClient<'_>,
    limiters: &Limiters,
    client: IpAddr,
    now: Now,
) -> Result<QuotaStatus, Denial> {
    let (of, limit) = (*of, *limit);
    match limiters.take_stranger(*parts, limit, client, now) {
        Ok(remaining) => Ok(QuotaStatus::new("client", of.into(), limit, remaining)),
        Err(retry_after) => {
            let status = QuotaStatus::new("client", of.into(), limit, 0);
            let name = Label::lossy(&client.to_string());
            Err(Denial::RateLimited(Over::boxed(status, &name, retry_after)))
        }
    }
}

/// Counts one request against several limits.
struct Count<'a> {
    limiters: &'a Limiters,
    now: Now,
    tightest: Option<QuotaStatus>,
    /// The leases that a token was taken from.
    taken: SmallVec<[Arc<Lease>; 4]>,
    /// The denial for limits that the store must be asked about, and the batch.
    lacking: Option<(Denial, u64)>,
}

impl<'a> Count<'a> {
    fn new(limiters: &'a Limiters, now: Now) -> Self {
        Self { limiters, now, tightest: None, taken: SmallVec::new(), lacking: None }
    }

    fn take(&mut self, one: &One<'_>) -> Result<(), Denial> {
        let (limiters, now) = (self.limiters, self.now);
        let One { scope, name, of, limit, parts } = *one;
        let over = |retry_after| {
            let status = QuotaStatus::new(scope, of.into(), limit, 0);
            Denial::RateLimited(Over::boxed(status, name, retry_after))
        };
        let key = limiters.key(&parts, limit);
        let Some(leases) = &limiters.leases else {
            let remaining = limiters.take(key, limit, now).map_err(over)?;
            self.stand(QuotaStatus::new(scope, of.into(), limit, remaining));
            return Ok(());
        };
        let lease = leases.of(key, |number| Lease::new(stored_as(parts, limit), number, limit));
        match leases.take(&lease, now) {
            Taken::Token { remaining } => {
                self.stand(QuotaStatus::new(scope, of.into(), limit, remaining));
                self.taken.push(lease);
                Ok(())
            }
            Taken::Over(retry_after) => Err(over(retry_after)),
            Taken::Closed => Err(Denial::LimitsUnavailable),
            // The question about the wider limits goes into the same batch.
            Taken::Lacking(batch) => {
                self.lacking = Some((over(limit.rate.interval()), batch));
                Ok(())
            }
        }
    }

    fn stand(&mut self, status: QuotaStatus) {
        if self.tightest.as_ref().is_none_or(|tightest| status.remaining <= tightest.remaining) {
            self.tightest = Some(status);
        }
    }

    fn end(self, lack: &mut Option<Lack>) -> Result<QuotaStatus, Denial> {
        let Some((denial, batch)) = self.lacking else {
            // It counts against its workspace's limit at least: if it did not, it would not pass.
            return self.tightest.ok_or(Denial::Internal);
        };
        if let Some(leases) = &self.limiters.leases {
            self.taken.iter().for_each(|lease| leases.put_back(lease));
        }
        *lack = Some(Lack::Tokens { batch });
        Err(denial)
    }
}

/// The name of a limit in the store. It does not reveal whose it is, and a changed limit has another name.
fn stored_as(parts: &[&str], limit: config::Limit) -> String {
    let mut text = parts.join("\n");
    text.push_str(&format!("\n{} {}", limit.rate, limit.burst()));
    format!("{}:{}", parts[0], &hex::write(digest(&SHA256, text.as_bytes()).as_ref())[..32])
}

#[cfg(test)]
mod tests {
    use std::{sync::LazyLock, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{Policy, limits::leases::Leases};

    fn limits(rate: &str, burst: u32) -> RateLimits {
        let limit =
            config::Limit { rate: rate.parse().unwrap(), burst: std::num::NonZeroU32::new(burst) };
        RateLimits { per_client: limit, calls_per_workspace: limit }
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
        let denied = call().unwrap_err();
        assert_eq!(denied.to_string(), "caller `listener:out` is over its rate limit of calls");
        assert!(limits.take_stranger(&limiters, ADA, after(0)).is_ok());
    }

    const PORTAL: &str = "version: stagedoor/v1
listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}}
workspaces: {named: {payments: {}, web: {rate_limit: {rate: 9000/m, burst: 900}}, slow: {rate_limit: {rate: 10/m, burst: 2}}}}
upstreams: {portal: {url: 'http://127.0.0.1:1'}}
presets: [{preset: backstage, upstream: portal}, {preset: jenkins, upstream: portal}]
";

    fn portal(more: &str) -> Policy {
        let loaded = config::parse("s.yaml", &format!("{PORTAL}{more}"));
        Policy::new(&loaded.unwrap_or_else(|wrong| panic!("{wrong}")).config, "test")
    }

    fn route<'a>(policy: &'a Policy, name: &str) -> &'a crate::pipeline::routes::Route {
        let found = policy.routes.all().iter().find(|route| *route.name == *name);
        found.unwrap_or_else(|| panic!("no route {name}"))
    }

    fn workspace(name: &str) -> Workspace {
        Workspace { name: Label::lossy(name), declared: None }
    }

    /// How many pass immediately.
    fn at_once(policy: &Policy, limiters: &Limiters, name: &str, who: &Workspace) -> u32 {
        let (route, caller) = (route(policy, name), Caller::supposed(Label::lossy("ada")));
        let take = || match route.options.public {
            true => policy.rate_limits.take_public(limiters, &route.limits, ADA, after(0)),
            false => {
                let who = Some(who);
                policy.rate_limits.take(limiters, &route.limits, &caller, who, after(0), &mut None)
            }
        };
        (0..20_000).take_while(|_| take().is_ok()).count() as u32
    }

    #[test]
    fn what_one_bucket_refuses_costs_no_other_anything() {
        let policy = portal("");
        let alone = || Limiters::sharing(Arc::new(Leases::new(config::OnStoreError::Share)));
        for limiters in [Limiters::default(), alone()] {
            let payments = workspace("payments");
            for (name, burst) in [
                ("backstage.frontend", 1000),
                ("backstage.sign-in-start", 200),
                ("backstage.webhooks", 300),
                ("backstage.readiness", 200),
                ("backstage.jwks", 200),
                ("backstage.catalog", 300),
                ("jenkins.projects", 10),
                ("jenkins.rebuild", 10),
                // These share what was used up above.
                ("backstage.search", 0),
                ("backstage.liveness", 0),
                ("backstage.scaffolder-run", 0),
            ] {
                assert_eq!(at_once(&policy, &limiters, name, &payments), burst, "{name}");
            }
        }
    }

    #[test]
    fn what_is_not_written_is_no_narrower_than_what_is() {
        let wide = "rate_limit: {per_workspace: {rate: 9000/m, burst: 500}, per_client: {rate: 9000/m, burst: 2000}}\n";
        let narrow = "rate_limit: {per_workspace: {rate: 10/m, burst: 2}, per_client: {rate: 10/m, burst: 2}}\n";
        let written = "rate_limit: {per_workspace: {rate: 9000/m, burst: 500}, buckets: {pages: {rate: 10/m, burst: 3}}}\n";
        let check = |more: &str, name: &str, who: &str, burst: u32| {
            let policy = portal(more);
            let named = Label::lossy(who);
            let mut who = workspace(who);
            who.declared = policy.workspaces.declared(&named);
            let passed = at_once(&policy, &Limiters::default(), name, &who);
            assert_eq!(passed, burst, "{name} of {named} with {more}");
        };
        check(wide, "backstage.catalog", "payments", 500);
        check(wide, "backstage.frontend", "payments", 2000);
        check(wide, "jenkins.projects", "payments", 500);
        check(narrow, "backstage.catalog", "payments", 300);
        check(narrow, "backstage.webhooks", "payments", 300);
        check(narrow, "jenkins.projects", "payments", 2);
        check(narrow, "backstage.jwks", "payments", 2);
        check(written, "backstage.catalog", "payments", 3);
        // A workspace's own limit replaces `per_workspace`.
        check(narrow, "backstage.catalog", "web", 900);
        check(narrow, "jenkins.projects", "web", 900);
        check(written, "backstage.catalog", "web", 3);
        check(wide, "jenkins.projects", "slow", 2);
        check(wide, "backstage.catalog", "slow", 300);
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

        #[test]
        fn a_request_is_decided_as_if_there_were_no_other_bucket(
            asked in proptest::collection::vec((0usize..4, 0u64..400), 1..300),
        ) {
            const ROUTES: [&str; 4] = ["backstage.readiness", "backstage.oidc-discovery", "jenkins.projects", "jenkins.rebuild"];
            static POLICY: LazyLock<Policy> = LazyLock::new(|| portal("rate_limit: {per_workspace: {rate: 60/m, burst: 3}, per_client: {rate: 60/m, burst: 3}, buckets: {probes: {rate: 120/m, burst: 2}}}\n"));
            let policy = &*POLICY;
            let (caller, payments) = (Caller::supposed(Label::lossy("ada")), workspace("payments"));
            let run = |only: Option<usize>| {
                let (limiters, mut elapsed) = (Limiters::default(), 0);
                let mut passed = Vec::new();
                for (which, gap) in &asked {
                    elapsed += gap;
                    if only.is_some_and(|only| only != *which) {
                        continue;
                    }
                    let (route, limits) = (route(policy, ROUTES[*which]), &policy.rate_limits);
                    let taken = match route.options.public {
                        true => limits.take_public(&limiters, &route.limits, ADA, after(elapsed)),
                        false => limits.take(&limiters, &route.limits, &caller, Some(&payments), after(elapsed), &mut None),
                    };
                    passed.push((*which, taken.is_ok()));
                }
                passed
            };
            let together = run(None);
            for only in 0..ROUTES.len() {
                let of_it: Vec<_> = together.iter().copied().filter(|(which, _)| *which == only).collect();
                prop_assert_eq!(of_it, run(Some(only)));
            }
        }
    }
}
