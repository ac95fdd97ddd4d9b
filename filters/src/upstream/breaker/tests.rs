use std::time::Duration;

use proptest::prelude::*;

use super::{Outcome::*, *};

struct Rig(Breakers, config::Breaker, Handle);

fn rig() -> Rig {
    let key = Key { upstream: Label::lossy("dxcp"), plugin: None, host: None, part: None };
    Rig(Breakers::default(), config::Breaker::default(), Handle::new(key))
}

impl Rig {
    fn ask(&self, seconds: f64) -> Result<Permit, Denial> {
        let now = Now::default().plus(Duration::from_secs_f64(seconds));
        self.0.admit(&self.2, None, &self.1, now)
    }
    fn end(&self, permit: Permit, outcome: Outcome, seconds: f64) -> Option<Position> {
        let now = Now::default().plus(Duration::from_secs_f64(seconds));
        permit.report(outcome, &self.1, now).map(|t| t.to)
    }
    fn run(&self, outcome: Outcome, seconds: f64) -> Option<Position> {
        self.end(self.ask(seconds).unwrap(), outcome, seconds)
    }
    fn opened(&self) {
        self.opened_by(Failure, 1.0);
    }
    fn opened_by(&self, outcome: Outcome, seconds: f64) {
        (0..4).for_each(|_| assert_eq!(self.run(outcome, seconds), None));
        assert_eq!(self.run(outcome, seconds), Some(Position::Open));
    }
    fn found(&self, there: bool, seconds: f64) -> Vec<Position> {
        let now = Now::default().plus(Duration::from_secs_f64(seconds));
        self.0.found(&self.2.key.upstream, there, now).into_iter().map(|moved| moved.to).collect()
    }
    fn is_sought(&self, seconds: f64) -> bool {
        let now = Now::default().plus(Duration::from_secs_f64(seconds));
        self.0.sought(now) == std::slice::from_ref(&self.2.key.upstream)
    }
    fn status(&self, seconds: f64) -> Status {
        self.0.statuses(Now::default().plus(Duration::from_secs_f64(seconds)))[0].1
    }
}

#[test]
fn it_opens_at_five_exchanges_of_which_sixty_percent_failed() {
    let rig = rig();
    assert_eq!(rig.run(Success, 0.0), None);
    assert_eq!(rig.run(Success, 0.5), None);
    assert_eq!(rig.run(Failure, 1.0), None);
    assert_eq!(rig.run(Failure, 1.0), None);
    assert_eq!(rig.run(Failure, 1.0), Some(Position::Open));
    let denied = rig.ask(2.0).err().unwrap();
    assert_eq!(denied.retry_after(), Some(Duration::from_secs(29)));
    assert_eq!(denied.status(), 503);
}

#[test]
fn retries_are_a_share_of_all_requests_and_a_few_a_second() {
    let rig = rig();
    let again = |seconds: f64| {
        let now = Now::default().plus(Duration::from_secs_f64(seconds));
        (0..1000).map_while(|_| rig.0.readmit(&rig.2, None, &rig.1, 20, now)).count()
    };
    assert_eq!(again(0.0), 0);
    assert_eq!(again(1.0), 3);
    (0..50).for_each(|_| drop(rig.ask(1.0)));
    assert_eq!(again(1.0), 10);
    (0..5000).for_each(|_| drop(rig.ask(1.0)));
    assert_eq!(again(1.0), 100, "no more are saved up");
    assert_eq!(again(10_000.0), 100);
}

#[test]
fn an_open_breaker_lets_nothing_through_again() {
    let rig = rig();
    rig.opened();
    let now = Now::default().plus(Duration::from_secs(5));
    assert!(rig.0.readmit(&rig.2, None, &rig.1, 100, now).is_none());
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let rig = rig();
    (0..4).for_each(|_| assert_eq!(rig.run(Failure, 0.0), None));
    assert_eq!(rig.run(Failure, 10.5), None);
}

#[test]
fn after_the_rest_three_probes_decide() {
    let rig = rig();
    rig.opened();
    let probes: Vec<_> = (0..3).map(|_| rig.ask(31.5).unwrap()).collect();
    assert!(rig.ask(31.5).is_err(), "a fourth probe waits");
    let ends: Vec<_> = probes.into_iter().map(|p| rig.end(p, Success, 32.0)).collect();
    assert_eq!(ends, [None, None, Some(Position::Closed)]);
    assert_eq!(rig.run(Failure, 32.0), None, "a closed breaker begins anew");
}

#[test]
fn one_failed_probe_opens_it_again() {
    let rig = rig();
    rig.opened();
    let (first, late) = (rig.ask(31.5).unwrap(), rig.ask(31.5).unwrap());
    assert_eq!(rig.end(first, Failure, 32.0), Some(Position::Open));
    assert_eq!(rig.end(late, Success, 33.0), None, "a late probe is not believed");
    assert!(rig.ask(61.0).is_err());
    assert!(rig.ask(62.5).is_ok());
}

#[test]
fn a_probe_that_was_never_sent_is_given_back() {
    let rig = rig();
    rig.opened();
    (0..10).for_each(|_| drop(rig.ask(31.5).unwrap()));
    assert_eq!(rig.run(Success, 31.5), None);
}

#[test]
fn an_unreachable_engine_is_not_an_unreachable_control_plane() {
    let mut rules = config::Breaker::default();
    rules.ignore.push(config::IgnoredFailure {
        status: 503,
        content_type: Some("application/json".to_owned()),
    });
    assert!(!is_failure(503, Some("application/JSON; charset=utf-8"), &rules));
    assert!(is_failure(503, Some("text/html"), &rules));
    assert!(is_failure(503, None, &rules));
    assert!(is_failure(500, Some("application/json"), &rules));
    assert!(!is_failure(499, None, &rules));
}

#[test]
fn an_unreachable_one_gets_requests_again_as_soon_as_a_probe_reaches_it() {
    let rig = rig();
    rig.opened_by(Silence, 1.0);
    assert_eq!(rig.ask(2.0).err().unwrap().retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(rig.status(2.0).cause, Some(Cause::NoResponse));
    assert_eq!(rig.found(false, 2.0), []);
    assert!(rig.is_sought(2.5));
    assert_eq!(rig.found(true, 3.0), [Position::Closed]);
    assert!(!rig.is_sought(3.0));
    let all: Vec<_> = (0..40).map(|_| rig.ask(3.0).unwrap()).collect();
    assert_eq!(all.len(), 40, "a page asks for much at once");
}

#[test]
fn one_that_accepts_connections_all_the_time_must_show_that_it_responds() {
    let rig = rig();
    rig.opened_by(Silence, 1.0);
    assert_eq!(rig.found(true, 2.0), [Position::HalfOpen]);
    let probes: Vec<_> = (0..3).map(|_| rig.ask(2.0).unwrap()).collect();
    assert!(rig.ask(2.0).is_err());
    assert_eq!(rig.found(true, 2.5), [], "the probes are under way");
    let ends: Vec<_> = probes.into_iter().map(|p| rig.end(p, Success, 3.0)).collect();
    assert_eq!(ends, [None, None, Some(Position::Closed)]);
}

#[test]
fn an_upstream_with_failing_responses_rests_although_it_is_reachable() {
    let rig = rig();
    rig.opened();
    assert!(rig.is_sought(2.0));
    assert_eq!(rig.found(true, 2.0), []);
    assert_eq!(rig.ask(2.0).err().unwrap().retry_after(), Some(Duration::from_secs(29)));
    // It is restarting.
    assert_eq!(rig.found(false, 3.0), []);
    assert_eq!(rig.status(3.0).cause, Some(Cause::NoResponse));
    assert_eq!(rig.found(true, 4.0), [Position::Closed]);
}

#[test]
fn what_happened_most_is_the_cause() {
    let rig = rig();
    (0..3).for_each(|_| assert_eq!(rig.run(Failure, 1.0), None));
    assert_eq!(rig.run(Silence, 1.0), None);
    assert_eq!(rig.run(Silence, 1.0), Some(Position::Open));
    assert_eq!(rig.status(1.0).cause, Some(Cause::Failures));
}

#[test]
fn one_that_is_reachable_again_may_fail_while_it_starts() {
    let rig = rig();
    rig.opened_by(Silence, 1.0);
    rig.found(false, 2.0);
    rig.found(true, 3.0);
    rig.opened_by(Failure, 4.0);
    assert!(rig.ask(4.9).is_err());
    assert_eq!(rig.run(Failure, 5.0), Some(Position::Open));
    for _ in 0..3 {
        rig.run(Success, 6.0);
    }
    assert_eq!(rig.status(6.0).position, Position::Closed);
    // Long after its start its failures count fully.
    rig.opened_by(Failure, 70.0);
    assert!(rig.ask(99.0).is_err());
    assert!(rig.ask(100.0).is_ok());
}

#[test]
fn without_a_probe_the_rest_ends_by_itself() {
    let rig = rig();
    rig.opened_by(Silence, 1.0);
    assert!(rig.ask(30.9).is_err());
    assert!(!rig.is_sought(31.5));
    assert!(rig.ask(31.5).is_ok());
}

#[test]
fn each_part_has_its_own_and_there_are_only_so_many() {
    let Rig(breakers, rules, breaker) = rig();
    let at = |seconds: f64| Now::default().plus(Duration::from_secs_f64(seconds));
    let fails = |part: &str, seconds: f64| {
        let permit = breakers.admit(&breaker, Some(part), &rules, at(seconds)).ok()?;
        permit.report(Failure, &rules, at(seconds)).map(|moved| moved.key.part)
    };
    (0..4).for_each(|_| assert_eq!(fails("dxcp", 1.0), None));
    assert_eq!(fails("dxcp", 1.0), Some(Some(Label::lossy("dxcp"))));
    assert!(breakers.admit(&breaker, Some("dxcp"), &rules, at(1.0)).is_err());
    assert!(breakers.admit(&breaker, Some("echo"), &rules, at(1.0)).is_ok());
    assert!(breakers.admit(&breaker, None, &rules, at(1.0)).is_ok());
    // A client can make up endless names, but the number of breakers is bounded.
    for name in 0..PARTS_MAX * 4 {
        fails(&format!("made-up-{name}"), 2.0);
    }
    let parts = |seconds: f64| {
        breakers.statuses(at(seconds)).iter().filter(|(key, _)| key.part.is_some()).count()
    };
    assert_eq!(parts(2.0), PARTS_MAX);
    assert!(breakers.admit(&breaker, Some("dxcp"), &rules, at(3.0)).is_err(), "it is remembered");
    // Idle ones make room for others.
    fails("another", 20.0);
    assert!(parts(20.0) <= 3, "{}", parts(20.0));
    assert!(breakers.admit(&breaker, Some("dxcp"), &rules, at(20.0)).is_err());
    breakers.keep(|named| *named == breaker.key);
    assert!(parts(20.0) > 0);
    breakers.keep(|_| false);
    assert!(breakers.statuses(at(20.0)).is_empty() && breakers.sought(at(20.0)).is_empty());
}

#[test]
fn the_next_policy_finds_the_same_breaker_and_another_state_has_its_own() {
    let rig = rig();
    rig.opened();
    let next = Handle::new(rig.2.key.clone());
    let admit = |breakers: &Breakers, handle: &Handle| {
        breakers.admit(handle, None, &rig.1, Now::default().plus(Duration::from_secs(2))).is_ok()
    };
    assert!(!admit(&rig.0, &next));
    let other = Breakers::default();
    assert!(admit(&other, &next) && admit(&other, &rig.2));
    assert!(!admit(&rig.0, &next) && !admit(&rig.0, &rig.2));
}

proptest! {
    /// Whatever happens in whatever order: an open breaker lets nothing pass, a half-open one at most its
    /// probes, no breaker is open for longer than `open_duration`, and the count of open ones is right.
    #[test]
    fn a_breaker_keeps_its_promises(steps in prop::collection::vec((0u8..8, 0u64..4000), 0..300)) {
        let rig = rig();
        let mut now = Duration::ZERO;
        let mut under_way = Vec::new();
        let mut opened = None;
        for (what, millis) in steps {
            now += Duration::from_millis(millis);
            let seconds = now.as_secs_f64();
            let outcome = [Success, Failure, Silence][usize::from(what % 3)];
            match what {
                0..=2 => {
                    if let Ok(permit) = rig.ask(seconds) {
                        under_way.push(permit);
                    }
                }
                3..=5 => {
                    if let Some(permit) = under_way.pop()
                        && rig.end(permit, outcome, seconds) == Some(Position::Open)
                    {
                        opened = Some(now);
                    }
                }
                6 => _ = under_way.pop(),
                _ => _ = rig.found(millis % 2 == 0, seconds),
            }
            let Some((_, status)) = rig.0.statuses(Now::default().plus(now)).pop() else { continue };
            prop_assert_eq!(status.cause.is_none(), status.position == Position::Closed);
            prop_assert_eq!(rig.is_sought(seconds), status.position == Position::Open);
            match status.position {
                Position::Open => {
                    prop_assert!(rig.ask(seconds).is_err());
                    prop_assert!(opened.is_some_and(|at| now - at < *rig.1.open_duration));
                }
                Position::HalfOpen => {
                    let all: Vec<_> = (0..10).map_while(|_| rig.ask(seconds).ok()).collect();
                    prop_assert!(all.len() <= rig.1.half_open_requests as usize);
                }
                Position::Closed => prop_assert!(rig.ask(seconds).is_ok()),
            }
        }
    }
}
