//! How much each workspace, plugin, caller and client may ask for.

use std::{num::NonZeroU32, time::Duration};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Located, Name, Rate};

/// A rate, and the burst that may exceed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The sustained rate of requests, for example `100/m`. Requests over it get 429 `rate_limited` with
    /// `Retry-After`.
    pub rate: Rate,
    /// Requests that may come together before the rate applies. Default: a tenth of the rate's count, at
    /// least 1.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
}

impl Limit {
    /// So many a minute, with a burst. For numbers of ours, which are not zero.
    const fn each_minute(count: u32, burst: u32) -> Self {
        let count = NonZeroU32::new(count).expect("a default rate is not zero");
        Self { rate: Rate { count, per: Duration::from_secs(60) }, burst: NonZeroU32::new(burst) }
    }

    /// The burst, with its default filled in.
    pub fn burst(self) -> NonZeroU32 {
        let tenth = NonZeroU32::new(self.rate.count.get() / 10).unwrap_or(NonZeroU32::MIN);
        self.burst.unwrap_or(tenth)
    }

    /// What lets through whatever one of both does.
    #[must_use]
    pub fn or_wider(self, other: Self) -> Self {
        let slower = self.rate.interval() > other.rate.interval();
        Self {
            rate: if slower { other.rate } else { self.rate },
            burst: Some(self.burst().max(other.burst())),
        }
    }
}

/// The limits that requests count against. Each level can only restrict further: a request must stay within
/// all of them.
///
/// Each request of a known caller counts once at the level of its workspace: in its route's bucket, or
/// against `per_workspace`. Limits of callers, plugins and routes apply in addition. Each request without a
/// caller, on a public route, counts once for its client's address: against the route's own `rate_limit`, in
/// its route's bucket, or against `per_client`. `stagedoor explain` shows which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// How many requests each workspace may send, all its callers together, on routes without a bucket:
    /// plugin backends and actions. A workspace over its limit does not affect others. Requests without a
    /// workspace count per caller, at this rate. Default: 100/m with a burst of 10.
    pub per_workspace: Limit,
    /// How many requests each caller may send, in all workspaces together. Default: no such limit.
    pub per_caller: Option<Limit>,
    /// How many requests each client address (for IPv6, each /64) may send on public routes that have neither
    /// a bucket nor their own `rate_limit`, and with tokens that do not verify, so that an unknown client
    /// cannot keep Stagedoor busy with signatures. Default: 600/m with a burst of 200.
    pub per_client: Limit,
    /// Limits separate from `per_workspace` and `per_client`, by name, so that traffic on some routes does
    /// not use up the limit of others. A route joins one with its `bucket`; presets have their own.
    ///
    /// For each workspace: `pages` (preset `backstage`: what its own pages read, that is the catalog,
    /// permissions, search, settings, notifications, signals, events, TechDocs and the scaffolder), 1800/m
    /// with a burst of 300: three people who open three pages at the same time send about 150 requests. And
    /// one for the reads of each plugin's preset (`argocd`, `azure-devops`, `grafana`, `harbor`, `jenkins`,
    /// `jira`, `kubernetes`, `pagerduty`, `sonarqube`, `spacelift`, `vault`, and `proxy` and `other-plugins`
    /// of preset `backstage`), each as large as `per_workspace`. Their actions count against
    /// `per_workspace` itself.
    ///
    /// For each client address, on public routes of preset `backstage`: `frontend` (the app's files, and CORS
    /// preflights) 6000/m with a burst of 1000; `probes` (readiness, liveness, health) 600/m with a burst of
    /// 200; `webhooks` 1200/m with a burst of 300; `sign-in` 600/m with a burst of 200.
    ///
    /// Write `pages: {rate: 6000/m, burst: 1000}` to change one, or add a name of your own for your own
    /// routes. A bucket that you do not write is never lower than `per_workspace` (the workspace's own, if
    /// it has one) or `per_client`: raising those raises it.
    pub buckets: IndexMap<Name, Located<Limit>>,
}

/// A bucket that presets use.
#[derive(Clone, Copy, Debug)]
pub struct ShippedBucket {
    /// Its name.
    pub name: &'static str,
    /// Its limit. `None`: as large as what it stands apart from.
    pub limit: Option<Limit>,
}

const fn shipped(name: &'static str, count: u32, burst: u32) -> ShippedBucket {
    ShippedBucket { name, limit: Some(Limit::each_minute(count, burst)) }
}

const fn as_each(name: &'static str) -> ShippedBucket {
    ShippedBucket { name, limit: None }
}

/// The buckets that presets use. The manual of [`RateLimit::buckets`] says the same.
pub const BUCKETS: &[ShippedBucket] = &[
    shipped("pages", 1800, 300),
    shipped("frontend", 6000, 1000),
    shipped("probes", 600, 200),
    shipped("webhooks", 1200, 300),
    shipped("sign-in", 600, 200),
    as_each("argocd"),
    as_each("azure-devops"),
    as_each("grafana"),
    as_each("harbor"),
    as_each("jenkins"),
    as_each("jira"),
    as_each("kubernetes"),
    as_each("other-plugins"),
    as_each("pagerduty"),
    as_each("proxy"),
    as_each("sonarqube"),
    as_each("spacelift"),
    as_each("vault"),
];

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_workspace: Limit::each_minute(100, 10),
            per_caller: None,
            per_client: Limit::each_minute(600, 200),
            buckets: IndexMap::new(),
        }
    }
}

impl RateLimit {
    /// What a bucket holds, which stands apart from `each`.
    pub fn bucket(&self, name: &str, each: Limit) -> Limit {
        if let Some(written) = self.buckets.get(name) {
            return written.value;
        }
        Self::least(name).map_or(each, |least| least.or_wider(each))
    }

    /// What a bucket holds at least where nothing is written; `None` if it is as large as what it
    /// stands apart from.
    pub fn least(name: &str) -> Option<Limit> {
        BUCKETS.iter().find(|shipped| shipped.name == name).and_then(|shipped| shipped.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Limit {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_wider_of_two_limits_has_the_faster_rate_and_the_larger_burst() {
        let (slow, fast) =
            (limit(r#"{"rate": "100/m", "burst": 50}"#), limit(r#"{"rate": "2/s"}"#));
        let wider = limit(r#"{"rate": "2/s", "burst": 50}"#);
        assert_eq!(slow.or_wider(fast), wider);
        assert_eq!(fast.or_wider(slow), wider);
    }

    #[test]
    fn a_bucket_is_as_written_and_else_no_narrower_than_what_it_stands_apart_from() {
        let mut limits = RateLimit::default();
        let narrow = limit(r#"{"rate": "10/m", "burst": 1}"#);
        let wide = limit(r#"{"rate": "9000/m", "burst": 900}"#);
        let pages = limit(r#"{"rate": "1800/m", "burst": 300}"#);
        assert_eq!(limits.bucket("pages", limits.per_workspace), pages);
        assert_eq!(limits.bucket("pages", narrow), pages);
        assert_eq!(limits.bucket("pages", wide), wide);
        assert_eq!(limits.bucket("argocd", narrow), narrow);
        let name = Name::new("pages").unwrap();
        limits.buckets.insert(name, Located::nowhere(narrow));
        assert_eq!(limits.bucket("pages", wide), narrow);
    }

    #[test]
    fn the_manual_has_every_bucket_with_its_numbers() {
        let manual = crate::markdown();
        for ShippedBucket { name, limit } in BUCKETS {
            let at = manual.find(&format!("`{name}`")).unwrap_or_else(|| panic!("no `{name}`"));
            let Some(limit) = limit else { continue };
            let numbers = format!("{} with a burst of {}", limit.rate, limit.burst());
            assert!(manual[at..].contains(&numbers), "{name}: {numbers}");
        }
        let limits = RateLimit::default();
        for each in [limits.per_workspace, limits.per_client] {
            let numbers = format!("{} with a burst of {}", each.rate, each.burst());
            assert!(manual.contains(&format!("Default: {numbers}")), "{numbers}");
        }
    }
}
