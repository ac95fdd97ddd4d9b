//! The last checks, for requests that go to their upstream: whether one may be sent, and when.

use std::time::Duration;

use super::{exchange::Exchange, judged::Judged, state::State};
use crate::{
    Denial, Now,
    denial::step::Step,
    upstream::breaker::{Outcome, Permit, Transition},
};

/// Permission to send a request to an upstream.
pub struct Dispatched {
    /// The breaker's permit, until an outcome is reported; none if an operator switched the breaker off.
    permit: Option<Permit>,
    /// How long to wait before sending.
    pub pacing_delay: Duration,
}

/// Dispatches a request to its upstream.
///
/// # Errors
/// [`Denial::BreakerOpen`] and [`Denial::PaceExceeded`].
pub fn dispatch(
    state: &State,
    request: &Judged,
    now: Now,
    exchange: &mut Exchange,
) -> Result<Dispatched, Denial> {
    let route = &*request.route;
    exchange.steps.enter(Step::Breaker);
    // Last, so that a request that is refused above does not use up the one probe of an open breaker.
    let permit = match state.switches.are_closed(&request.about(), now) {
        true => None,
        false => Some(state.breakers.admit(
            &route.breaker,
            request.breaker_part(),
            &route.breaker_rules,
            now,
        )?),
    };
    let mut pacing_delay = Duration::ZERO;
    if let Some(pace) = &route.pace {
        exchange.steps.enter(Step::Pace);
        pacing_delay = state.paces.pacing_delay(&route.upstream, pace, now)?;
    }
    exchange.credential.clone_from(&route.credential);
    Ok(Dispatched { permit, pacing_delay })
}

impl Dispatched {
    /// The transition, if it is the probe of an open breaker.
    pub fn moved(&self) -> Option<Transition> {
        self.permit.as_ref().and_then(Permit::moved)
    }

    /// Whether a breaker let it through.
    pub fn has_permit(&self) -> bool {
        self.permit.is_some()
    }

    /// Reports the outcome to the breaker, once. `Some` if that changed its position.
    pub fn report(
        &mut self,
        request: &Judged,
        outcome: Option<Outcome>,
        now: Now,
    ) -> Option<Transition> {
        let permit = self.permit.take()?;
        permit.report(outcome?, &request.route.breaker_rules, now)
    }

    /// Requests permission for another attempt. The failure of the last one has been reported.
    pub fn again(&mut self, state: &State, request: &Judged, now: Now) -> bool {
        let (route, about) = (&*request.route, request.about());
        // An operator may have switched it off since.
        if state.switches.pass(&about, now).is_err() {
            return false;
        }
        let permit = match state.switches.are_closed(&about, now) {
            true => None,
            false => {
                let (part, percent) = (request.breaker_part(), route.retries.budget_percent);
                let rules = &route.breaker_rules;
                match state.breakers.readmit(&route.breaker, part, rules, percent, now) {
                    Some(permit) => Some(permit),
                    None => return false,
                }
            }
        };
        if let Some(pace) = &route.pace {
            match state.paces.pacing_delay(&route.upstream, pace, now) {
                Ok(delay) => self.pacing_delay = delay,
                Err(_) => return false,
            }
        }
        self.permit = permit;
        true
    }
}
