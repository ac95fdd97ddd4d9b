//! What an exchange reports to the breaker and the upstream's address: whose fault its end was.

use std::time::Duration;

use super::{breaker::Outcome, health::Fault};
use crate::Denial;

/// How an exchange ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Why it was denied, if it was.
    pub denial: Option<&'a Denial>,
    /// The outcome by its response, if one began.
    pub response: Option<Outcome>,
    /// Whether the upstream closed because it had to wait for the client: see [`gave_up_on_client`].
    pub excused: bool,
}

impl End<'_> {
    /// The outcome for the breaker. `None` if the end says nothing about the upstream.
    pub fn outcome(self) -> Option<Outcome> {
        match self.denial {
            Some(_) if self.excused => None,
            Some(denial) if denial.is_upstream_failure() => Some(Outcome::Failure),
            _ => self.response,
        }
    }
}

/// The outcome by the kind of fault: an upstream that does not respond recovers differently than one with
/// failing responses.
pub fn by_fault(outcome: Outcome, fault: Fault) -> Outcome {
    match (outcome, fault) {
        (Outcome::Failure, Fault::Connect | Fault::Reset | Fault::Timeout) => Outcome::Silence,
        (outcome, _) => outcome,
    }
}

/// How long an upstream had to wait for its client.
#[derive(Clone, Copy, Debug)]
pub struct ClientWait {
    /// Whether the whole request had been received.
    pub request_ended: bool,
    /// How long the upstream waited for more of it.
    pub waited: Duration,
    /// How long we wait for an upstream.
    pub patience: Duration,
}

/// Whether an upstream closed because it had waited for the client for longer than we would have waited for
/// it.
pub fn gave_up_on_client(denial: &Denial, wait: ClientWait) -> bool {
    let broke = matches!(denial, Denial::UpstreamReset { .. } | Denial::UpstreamMalformed { .. });
    broke && !wait.request_ended && wait.waited >= wait.patience
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Label;

    fn reset() -> Denial {
        Denial::UpstreamReset { upstream: Label::lossy("portal") }
    }

    fn outcome(
        denial: Option<&Denial>,
        response: Option<Outcome>,
        excused: bool,
    ) -> Option<Outcome> {
        End { denial, response, excused }.outcome()
    }

    #[test]
    fn a_denial_by_the_upstreams_fault_is_its_failure_whatever_its_response() {
        for response in [None, Some(Outcome::Success), Some(Outcome::Failure)] {
            assert_eq!(outcome(Some(&reset()), response, false), Some(Outcome::Failure));
        }
    }

    #[test]
    fn clients_faults_and_our_refusals_do_not_count_for_the_upstream() {
        for denial in [Denial::BodyTimeout, Denial::BodyMalformed, Denial::CallerMissing] {
            assert_eq!(outcome(Some(&denial), None, false), None, "{denial}");
            // It had responded successfully.
            assert_eq!(
                outcome(Some(&denial), Some(Outcome::Success), false),
                Some(Outcome::Success)
            );
        }
        assert_eq!(outcome(Some(&reset()), Some(Outcome::Failure), true), None);
        assert_eq!(outcome(None, None, false), None);
    }

    #[test]
    fn only_a_failure_can_be_silence() {
        assert_eq!(by_fault(Outcome::Failure, Fault::Timeout), Outcome::Silence);
        assert_eq!(by_fault(Outcome::Failure, Fault::Connect), Outcome::Silence);
        assert_eq!(by_fault(Outcome::Failure, Fault::Status), Outcome::Failure);
        assert_eq!(by_fault(Outcome::Success, Fault::Reset), Outcome::Success);
    }

    #[test]
    fn an_upstream_is_excused_that_waited_for_its_client_longer_than_we_would_for_it() {
        let second = Duration::from_secs(1);
        let wait = |request_ended, waited| ClientWait { request_ended, waited, patience: second };
        assert!(gave_up_on_client(&reset(), wait(false, second)));
        assert!(!gave_up_on_client(&reset(), wait(false, second / 2)));
        assert!(!gave_up_on_client(&reset(), wait(true, second)));
        let unreachable = Denial::UpstreamUnreachable { upstream: Label::lossy("portal") };
        assert!(!gave_up_on_client(&unreachable, wait(false, second)));
    }
}
