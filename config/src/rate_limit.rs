//! How much each workspace, plugin, caller and client may ask for.

use std::{num::NonZeroU32, time::Duration};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Located, Name, Rate};

/// A rate with the burst that passes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Requests over a longer time, for example `100/m`. Refused requests get 429 `rate_limited`
    /// with `Retry-After`.
    pub rate: Rate,
    /// Requests that may come at once before the rate holds. Default: a tenth of the rate's count,
    /// at least 1.
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

/// The limits every request counts against. Each level may only tighten: a request must fit all.
///
/// Each request of a known caller counts once at the level of its workspace: in the bucket of its route,
/// or against `each_workspace`. Limits of callers, plugins and routes come on top. Each request without
/// a caller, on a public route, counts once for its client's address: against the route's own
/// `rate_limit`, in the bucket of its route, or against `each_client`. `stagedoor explain` shows which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// What each workspace may ask for, all its callers together, on routes that are in no bucket:
    /// plugin backends and actions. A workspace over its limit does not slow another one. Requests
    /// without a workspace are counted per caller at this rate. Default: 100/m with a burst of 10.
    pub each_workspace: Limit,
    /// What each caller may ask for, whatever the workspace. Default: no limit of its own.
    pub each_caller: Option<Limit>,
    /// What each client address (an IPv6 client counts by its /64) may ask for on public routes
    /// that are in no bucket and have no `rate_limit` of their own, and with tokens that do not verify,
    /// so that a stranger cannot make Stagedoor verify signatures all day. Default: 600/m with a burst
    /// of 200.
    pub each_client: Limit,
    /// Shares apart from `each_workspace` and `each_client`, by name. What one route asks for is then
    /// nothing that another lacks. A route is in one by its `bucket`; presets come with theirs.
    ///
    /// Of each workspace: `pages` (preset `backstage`: what its own pages read, that is the catalog, permissions,
    /// search, settings, notifications, signals, events, TechDocs, the scaffolder), 1800/m with a
    /// burst of 300: three people who open three pages at once ask some 150 times. And one for
    /// the reads of each plugin's preset (`argocd`, `azure-devops`, `grafana`, `harbor`, `jenkins`, `jira`,
    /// `kubernetes`, `pagerduty`, `sonarqube`, `spacelift`, `vault`, and `proxy` and `other-plugins` of preset
    /// `backstage`), each as large as `each_workspace`. Their actions count against `each_workspace` itself.
    ///
    /// Of each client address, on public routes of preset `backstage`: `frontend` (the app's files,
    /// and questions of CORS) 6000/m with a burst of 1000; `probes` (readiness, liveness, health)
    /// 600/m with a burst of 200; `webhooks` 1200/m with a burst of 300; `sign-in` 600/m with a
    /// burst of 200.
    ///
    /// Write `pages: {rate: 6000/m, burst: 1000}` to change one, or a name of your own for routes of
    /// yours. What you do not write is never narrower than `each_workspace` (of the workspace, if it has
    /// its own) or `each_client`: raising those raises these.
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
            each_workspace: Limit::each_minute(100, 10),
            each_caller: None,
            each_client: Limit::each_minute(600, 200),
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
        assert_eq!(limits.bucket("pages", limits.each_workspace), pages);
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
        for each in [limits.each_workspace, limits.each_client] {
            let numbers = format!("{} with a burst of {}", each.rate, each.burst());
            assert!(manual.contains(&format!("Default: {numbers}")), "{numbers}");
        }
    }
}
