//! An issuer's outage: logged once, with a limited rate of requests meanwhile.

use std::time::Duration;

use filters::Label;
use governor::clock::{Clock, Reference};

use crate::net::allowance::{Allowance, Elapsed, Rate};

/// The recent state of an issuer.
pub(super) struct Outage<C: Clock = Elapsed> {
    /// Why the last fetch failed, if it did.
    failing: Option<String>,
    allowance: Allowance<C>,
}

/// Failed fetches in a row, and then one for each interval.
const FETCHES: Rate = Rate::new(3, Duration::from_secs(10));

impl Default for Outage {
    fn default() -> Self {
        Self { failing: None, allowance: Allowance::new(FETCHES) }
    }
}

impl<C: Clock + Clone> Outage<C>
where
    C::Instant: Reference,
{
    /// Whether a request may be sent now.
    pub(super) fn may_ask(&self) -> bool {
        self.allowance.take()
    }

    /// Why the last fetch failed, if it did.
    pub(super) fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    /// Records the result of a fetch, and logs it if it is news.
    pub(super) fn note(&mut self, name: &Label, failure: Option<&str>) {
        let Some(cause) = failure else {
            // A token's lifetime is the issuer's choice, so only failures limit the rate.
            self.allowance.refill(FETCHES);
            if self.failing.take().is_some() {
                tracing::info!(credential = %name, "tokens can be fetched again");
            }
            return;
        };
        if self.failing.as_deref() != Some(cause) {
            tracing::warn!(credential = %name, cause, "no token could be fetched, keeping the last one until it expires");
            self.failing = Some(cause.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_failing_issuer_gets_three_requests_and_then_a_few_until_it_responds() {
        let name = Label::lossy("dxcp");
        let clock = FakeRelativeClock::default();
        let mut outage = Outage { failing: None, allowance: Allowance::by(FETCHES, clock.clone()) };
        let mut asked_after = |seconds: u64, answers: bool| {
            clock.advance(Duration::from_secs(seconds));
            let mut count = 0;
            while count < 5 && outage.may_ask() {
                count += 1;
                outage.note(&name, (!answers).then_some("away"));
            }
            (count, outage.failing().is_some())
        };
        assert_eq!(asked_after(0, false), (3, true));
        assert_eq!(asked_after(9, false), (0, true));
        assert_eq!(asked_after(1, false), (1, true));
        assert_eq!(asked_after(10, true), (5, false));
    }
}
