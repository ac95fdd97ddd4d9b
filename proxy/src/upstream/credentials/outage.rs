//! Whether an issuer fails: told once, and asked at most so often meanwhile.

use std::time::Duration;

use filters::Label;

use crate::net::fetch::Allowance;

/// How an issuer has been answering.
#[derive(Default)]
pub(super) struct Outage {
    /// Why the last fetch failed, if it did.
    failing: Option<String>,
    allowance: Allowance,
}

/// Failed fetches in a row, and then one for each interval.
const FETCHES: (u32, Duration) = (3, Duration::from_secs(10));

impl Outage {
    /// Whether it may be asked now.
    pub(super) fn may_ask(&mut self, now: Duration) -> bool {
        self.allowance.take(now, FETCHES)
    }

    /// Why the last fetch failed, if it did.
    pub(super) fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    /// Notes how a fetch went, and tells when that is news.
    pub(super) fn note(&mut self, name: &Label, failure: Option<&str>) {
        let Some(cause) = failure else {
            // How long a token lives is the issuer's choice: only failures are held back.
            self.allowance = Allowance::default();
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
    use super::*;

    #[test]
    fn an_issuer_that_fails_is_asked_three_times_and_then_now_and_again_until_it_answers() {
        let name = Label::lossy("dxcp");
        let mut outage = Outage::default();
        let mut asked = |seconds: u64, answers: bool| {
            let mut count = 0;
            while count < 5 && outage.may_ask(Duration::from_secs(seconds)) {
                count += 1;
                outage.note(&name, (!answers).then_some("away"));
            }
            (count, outage.failing().is_some())
        };
        assert_eq!(asked(100, false), (3, true));
        assert_eq!(asked(109, false), (0, true));
        assert_eq!(asked(110, false), (1, true));
        assert_eq!(asked(120, true), (5, false));
    }
}
