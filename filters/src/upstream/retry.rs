//! Whether an attempt that failed may be repeated, and when.
//!
//! Only reads are: what an action did before it failed is unknown. Each attempt counts for the breaker and
//! needs a new permit, and the budget keeps a failing upstream from getting a multiple of its load.

use std::time::Duration;

use http::Method;

use crate::Now;

/// The attempts of an exchange, and the failure of the last.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// The number of attempts.
    pub made: u32,
    /// When the exchange began.
    pub began: Now,
    /// The upstream's `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The fraction of the longest wait, from 0 to 1: so that requests that failed together are not retried
    /// together.
    pub jitter: f64,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// The total for all attempts.
const WHOLE: Duration = Duration::from_secs(10);

/// Statuses after which another attempt may succeed.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// Whether a request may be sent twice at all.
pub fn is_safe(class: config::Class, options: &config::RouteOptions, method: &Method) -> bool {
    class == config::Class::Read
        && !options.unsafe_get
        && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl Attempts {
    /// How long to wait before the next attempt. `None` if there is none. `whole` is the exchange's
    /// deadline.
    pub fn wait(&self, rules: config::Retries, whole: Duration, now: Now) -> Option<Duration> {
        if self.made >= rules.attempts_max {
            return None;
        }
        let longest = FIRST.saturating_mul(1 << self.made.saturating_sub(1).min(8)).min(LONGEST);
        let wait = longest.mul_f64(self.jitter.clamp(0.0, 1.0));
        let wait = self.retry_after.map_or(wait, |asked| asked.max(wait));
        let took = now.elapsed.saturating_sub(self.began.elapsed);
        (took.saturating_add(wait) < WHOLE.min(whole)).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: config::Retries = config::Retries { attempts_max: 4, budget_percent: 20 };

    fn wait(made: u32, took: u64, asked: Option<u64>, jitter: f64) -> Option<u128> {
        let retry_after = asked.map(Duration::from_secs);
        let attempts = Attempts { made, began: Now::default(), retry_after, jitter };
        let now = Now::default().plus(Duration::from_millis(took));
        attempts.wait(RULES, Duration::from_secs(15), now).map(|wait| wait.as_millis())
    }

    #[test]
    fn waits_double_and_there_are_only_so_many() {
        let longest = [1, 2, 3, 4].map(|made| wait(made, 0, None, 1.0));
        assert_eq!(longest, [Some(100), Some(200), Some(400), None]);
        assert_eq!(wait(2, 0, None, 0.5), Some(100));
        assert_eq!(wait(1, 0, None, 0.0), Some(0));
    }

    #[test]
    fn the_upstreams_retry_after_is_waited_for_if_there_is_time() {
        assert_eq!(wait(1, 0, Some(3), 1.0), Some(3000));
        assert_eq!(wait(1, 8000, Some(3), 1.0), None);
        assert_eq!(wait(1, 0, Some(u64::MAX), 1.0), None);
        assert_eq!(wait(1, 9950, None, 1.0), None, "all together ten seconds");
        let attempts = Attempts { made: 1, began: Now::default(), retry_after: None, jitter: 1.0 };
        let late = Now::default().plus(Duration::from_millis(950));
        assert_eq!(attempts.wait(RULES, Duration::from_secs(1), late), None, "and the exchange's");
    }

    proptest! {
        #[test]
        fn a_wait_never_leads_beyond_the_time_there_is(
            made in 0u32..40, took in 0u64..20_000, asked in proptest::option::of(any::<u64>()), jitter in any::<f64>()
        ) {
            if let Some(wait) = wait(made, took, asked, jitter) {
                prop_assert!(u128::from(took) + wait <= 10_000);
                prop_assert!(asked.is_none_or(|asked| wait >= u128::from(asked) * 1000));
            }
        }
    }
}
