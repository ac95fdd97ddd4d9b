//! Delays requests, so that an upstream never gets more than its quota.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{Denial, Label, Now};

/// When the next request may go to each upstream. Stored by name, so it outlives a reload.
#[derive(Default)]
pub struct Paces(Mutex<HashMap<Label, Pace>>);

/// The pace of one upstream (GCRA: a rate with a burst is one moment).
#[derive(Clone, Copy, Default)]
struct Pace {
    /// When the whole burst is available again.
    whole_at: Duration,
    /// Until when the upstream refuses everything, by its own response.
    backoff_until: Duration,
}

/// The pacing rules of an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    limit: config::Limit,
    interval: Duration,
    burst: u32,
    wait_max: Duration,
}

/// A response's fields about the upstream's quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpstreamQuota<'a> {
    /// The status.
    pub status: u16,
    /// `Retry-After` (RFC 9110 10.2.3).
    pub retry_after: Option<&'a str>,
    /// `X-RateLimit-Remaining`.
    pub remaining: Option<&'a str>,
    /// `X-RateLimit-Reset`, in seconds since 1970.
    pub reset: Option<&'a str>,
}

/// The longest time that a response can hold back requests.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// The time if a response reports a spent quota without a time.
const BACKOFF: Duration = Duration::from_secs(60);
/// Above this number, upstreams of former configs are dropped.
const UPSTREAMS_MAX: usize = 10_000;

impl From<config::Pace> for Rules {
    fn from(written: config::Pace) -> Self {
        let limit = written.limit();
        Self {
            limit,
            interval: limit.rate.interval(),
            burst: limit.burst().get(),
            wait_max: *written.wait_max,
        }
    }
}

impl Paces {
    /// Takes the next slot, and returns how long to wait for it.
    ///
    /// # Errors
    /// [`Denial::PaceExceeded`] if that is too long. No slot is taken then.
    pub(crate) fn pacing_delay(
        &self,
        upstream: &Label,
        rules: &Rules,
        now: Now,
    ) -> Result<Duration, Denial> {
        let now = now.elapsed;
        let mut all = self.0.lock();
        if all.len() >= UPSTREAMS_MAX && !all.contains_key(upstream) {
            all.retain(|_, pace| pace.whole_at > now || pace.backoff_until > now);
        }
        let pace = all.entry(upstream.clone()).or_default();
        let free_at = pace.whole_at.saturating_sub(rules.interval * (rules.burst - 1));
        let wait = free_at.max(pace.backoff_until).saturating_sub(now);
        if wait > rules.wait_max {
            let (upstream, limit) = (upstream.clone(), rules.limit);
            return Err(Denial::PaceExceeded { upstream, limit, retry_after: wait });
        }
        pace.whole_at = pace.whole_at.max(now + wait) + rules.interval;
        Ok(wait)
    }

    /// Records a response's quota: while it is spent, nothing more is sent.
    pub fn note(&self, upstream: &Label, upstream_quota: &UpstreamQuota<'_>, now: Now) {
        let Some(held) = upstream_quota.spent_for(now) else { return };
        if let Some(pace) = self.0.lock().get_mut(upstream) {
            pace.backoff_until = pace.backoff_until.max(now.elapsed + held);
        }
    }

    /// How long nothing is sent to the upstream because of its responses.
    pub fn held(&self, upstream: &Label, now: Now) -> Duration {
        let pace = self.0.lock().get(upstream).copied().unwrap_or_default();
        pace.backoff_until.saturating_sub(now.elapsed)
    }
}

impl UpstreamQuota<'_> {
    /// How long the quota is spent, if it is.
    fn spent_for(&self, now: Now) -> Option<Duration> {
        if !matches!(self.status, 429 | 403) {
            return None;
        }
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let none_left = number(self.remaining) == Some(0);
        let reset = number(self.reset).filter(|_| none_left);
        let until_reset = reset.map(|reset| reset.saturating_sub(now.unix_seconds()));
        let seconds = number(self.retry_after).or(until_reset);
        match seconds {
            Some(seconds) => Some(Duration::from_secs(seconds).min(BACKOFF_MAX)),
            None if self.status == 429 || none_left => Some(BACKOFF),
            // A refusal that says nothing about a quota.
            None => None,
        }
    }
}

impl Rules {
    /// The rules that all routes of an upstream share.
    pub(crate) fn of(upstream: &config::Upstream) -> Option<Arc<Self>> {
        upstream.pace.map(|pace| Arc::new(pace.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(text: &str) -> Rules {
        serde_json::from_str::<config::Pace>(text).unwrap().into()
    }

    fn at(ms: u64) -> Now {
        Now { elapsed: Duration::from_millis(ms), unix: Duration::from_secs(1_000_000) }
    }

    #[test]
    fn the_burst_passes_immediately_and_the_rest_is_delayed() {
        let (paces, up) = (Paces::default(), Label::lossy("up"));
        let rules = rules(r#"{"rate": "2/s", "burst": 2, "wait_max": "1s"}"#);
        let turn = |ms| paces.pacing_delay(&up, &rules, at(ms)).map(|wait| wait.as_millis());
        assert_eq!([turn(0), turn(0), turn(0), turn(0)].map(Result::unwrap), [0, 0, 500, 1000]);
        let retry_after = Duration::from_millis(1500);
        let refused =
            Denial::PaceExceeded { upstream: up.clone(), limit: rules.limit, retry_after };
        assert_eq!(turn(0), Err(refused), "it would wait too long");
        assert_eq!(turn(500).unwrap(), 1000, "nor did that take a turn");
        assert_eq!(turn(9000).unwrap(), 0);
        let other = paces.pacing_delay(&Label::lossy("other"), &rules, at(0));
        assert_eq!(other, Ok(Duration::ZERO), "each upstream has its own");
    }

    #[test]
    fn an_upstream_with_a_spent_quota_gets_nothing_until_its_reset() {
        let (paces, up) = (Paces::default(), Label::lossy("up"));
        let rules = rules(r#"{"rate": "100/s", "wait_max": "5s"}"#);
        let upstream_quota = |upstream_quota: UpstreamQuota<'_>| {
            paces.0.lock().clear();
            paces.pacing_delay(&up, &rules, at(0)).unwrap();
            paces.note(&up, &upstream_quota, at(0));
            paces.held(&up, at(0)).as_secs()
        };
        let with = |status, retry_after, remaining, reset| {
            upstream_quota(UpstreamQuota { status, retry_after, remaining, reset })
        };
        assert_eq!(with(429, Some("3"), None, None), 3);
        assert_eq!(paces.pacing_delay(&up, &rules, at(1000)).unwrap(), Duration::from_secs(2));
        assert_eq!(with(403, Some("7"), None, None), 7, "as GitHub's secondary limits");
        assert!(paces.pacing_delay(&up, &rules, at(0)).is_err());
        assert_eq!(with(403, None, Some("0"), Some("1000042")), 42);
        assert_eq!(with(403, None, Some("17"), Some("1000042")), 0, "no more than a refusal");
        assert_eq!(with(429, None, None, None), 60);
        assert_eq!(with(429, Some("Wed, 21 Oct 2015 07:28:00 GMT"), None, None), 60);
        assert_eq!(with(429, Some("99999999999"), None, None), 3600);
        assert_eq!(with(200, Some("3"), Some("0"), Some("1000042")), 0);
    }

    proptest! {
        #[test]
        fn no_time_holds_more_turns_than_burst_and_rate(arrivals in proptest::collection::vec(0u64..3000, 1..100)) {
            let (paces, up) = (Paces::default(), Label::lossy("up"));
            let rules = rules(r#"{"rate": "10/s", "burst": 3, "wait_max": "2s"}"#);
            let mut arrivals = arrivals;
            arrivals.sort_unstable();
            let goes = |ms: &u64| paces.pacing_delay(&up, &rules, at(*ms)).ok().map(|wait| ms + wait.as_millis() as u64);
            let mut gone: Vec<u64> = arrivals.iter().filter_map(goes).collect();
            gone.sort_unstable();
            for (from, first) in gone.iter().enumerate() {
                for (nth, last) in gone[from..].iter().enumerate() {
                    prop_assert!((nth as u64) < 3 + (last - first) / 100);
                }
            }
        }
    }
}
