//! The addresses that an upstream has now, and those among them that may be used.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{Address, Attempt, Change, Condition, Fault};
use crate::{
    Now,
    upstream::balance::{self, Candidate, Pick},
};

/// The addresses that an upstream has now. Choosing one takes no lock: the usable ones are computed when
/// something changes, and swapped.
#[derive(Default)]
pub struct Pool {
    view: ArcSwap<View>,
    turn: AtomicUsize,
    /// Locked while the usable addresses are recomputed.
    changing: Mutex<()>,
}

#[derive(Default)]
struct View {
    all: Vec<Arc<Address>>,
    usable: Vec<Arc<Address>>,
}

/// The status of an address, for operators.
#[derive(Clone, Copy, Debug)]
pub struct AddressStatus {
    /// The address.
    pub at: SocketAddr,
    /// Its condition.
    pub condition: Condition,
    /// Whether it is used: if all addresses are out, all are used.
    pub used: bool,
    /// How many exchanges with it are in progress.
    pub in_flight: usize,
}

impl Pool {
    /// Replaces the addresses. Exchanges with former ones continue.
    pub fn replace(&self, all: Vec<Arc<Address>>) {
        let _one = self.changing.lock();
        let usable = usable(&all);
        self.view.store(Arc::new(View { all, usable }));
    }

    /// The addresses.
    pub fn addresses(&self) -> Vec<Arc<Address>> {
        self.view.load().all.clone()
    }

    /// How many addresses there are.
    pub fn len(&self) -> usize {
        self.view.load().all.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether these, in order, are the addresses.
    pub fn holds(&self, found: &[SocketAddr]) -> bool {
        self.view.load().all.iter().map(|address| &address.at).eq(found)
    }

    /// An exchange's turn, so that each begins with another address.
    pub fn turn(&self) -> usize {
        self.turn.fetch_add(1, Relaxed)
    }

    /// An attempt at the only address, if there is just one.
    pub fn only(&self) -> Option<Attempt> {
        match self.view.load().all.as_slice() {
            [only] => Some(only.begin()),
            _ => None,
        }
    }

    /// Begins an attempt at an address that may be used and has not failed the exchange; or else at one
    /// that is out, rather than at one that just failed. `None` if there is no address.
    pub fn choose(&self, pick: &Pick<'_>) -> Option<Attempt> {
        let view = self.view.load();
        let chosen = balance::choose(&view.usable, pick)
            .or_else(|| balance::choose(&view.all, pick))
            .or_else(|| balance::choose(&view.usable, &Pick { tried: &[], ..*pick }));
        chosen.map(Address::begin)
    }

    /// Reports a failed attempt; later reports of the same one do not count. `Some` if the address is
    /// ejected for it.
    pub fn failed(
        &self,
        attempt: &mut Attempt,
        fault: Fault,
        rules: &config::OutlierDetection,
        now: Now,
    ) -> Option<Change> {
        if std::mem::replace(&mut attempt.told, true) {
            return None;
        }
        let address = &attempt.address;
        let failures = address.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < rules.consecutive_failures
            || out_max(self.len(), rules.ejection_percent_max) == 0
        {
            return None;
        }
        self.eject(address, fault, rules, now)
    }

    fn eject(
        &self,
        address: &Address,
        fault: Fault,
        rules: &config::OutlierDetection,
        now: Now,
    ) -> Option<Change> {
        let _one = self.changing.lock();
        let all = &self.view.load().all;
        let may_go = out_max(all.len(), rules.ejection_percent_max);
        let out = all.iter().filter(|one| one.condition() != Condition::Healthy).count();
        let here = all.iter().any(|one| one.at == address.at);
        if !here || out >= may_go || address.condition() != Condition::Healthy {
            return None;
        }
        let change = address.eject(fault, rules, now);
        self.refresh();
        Some(change)
    }

    /// Reports a health check. `Some` if that changed the condition.
    pub fn checked(
        &self,
        address: &Address,
        went: Result<(), ()>,
        rules: &config::HealthCheck,
        now: Now,
    ) -> Option<Change> {
        let _one = self.changing.lock();
        let change = address.checked(went, rules, now)?;
        self.refresh();
        // The address may have been removed.
        let all = &self.view.load().all;
        all.iter().any(|one| one.at == address.at).then_some(change)
    }

    /// Ends ejections that are over; `checks` are the rules of health checks, if there are any.
    pub fn expire(&self, checks: Option<&config::HealthCheck>, now: Now) -> Vec<Change> {
        let _one = self.changing.lock();
        let all = &self.view.load().all;
        let changes = all.iter().filter_map(|address| address.expire(checks, now)).collect();
        // This includes changes by another config's pool, which has the same addresses for some time.
        self.refresh();
        changes
    }

    /// The addresses whose check is due, each once in an interval. `roll` is random, from 0 to 1.
    pub fn due(
        &self,
        rules: &config::HealthCheck,
        now: Duration,
        mut roll: impl FnMut() -> f64,
    ) -> Vec<Arc<Address>> {
        let view = self.view.load();
        let due = view.all.iter().filter(|one| one.is_due(*rules.interval, now, roll()));
        due.cloned().collect()
    }

    /// The status of each address.
    pub fn facts(&self) -> Vec<AddressStatus> {
        let view = self.view.load();
        let facts = view.all.iter().map(|address| AddressStatus {
            at: address.at,
            condition: address.condition(),
            used: view.usable.iter().any(|one| one.at == address.at),
            in_flight: address.in_flight(),
        });
        facts.collect()
    }

    /// Recomputes the usable addresses.
    fn refresh(&self) {
        let last = self.view.load();
        if last.all.len() < 2 {
            return;
        }
        let usable = usable(&last.all);
        if !usable.iter().map(|one| one.at).eq(last.usable.iter().map(|one| one.at)) {
            self.view.store(Arc::new(View { all: last.all.clone(), usable }));
        }
    }
}

/// If all are out, all are used: if all fail together, the fault is more likely with the judgement.
fn usable(all: &[Arc<Address>]) -> Vec<Arc<Address>> {
    let healthy = |address: &&Arc<Address>| address.condition() == Condition::Healthy;
    let healthy: Vec<_> = all.iter().filter(healthy).cloned().collect();
    if healthy.is_empty() { all.to_vec() } else { healthy }
}

/// How many of `count` addresses may be out when one is ejected.
fn out_max(count: usize, percent: u8) -> usize {
    if count < 2 || percent == 0 {
        return 0;
    }
    (count * usize::from(percent) / 100).max(1)
}

#[cfg(test)]
mod tests {
    use config::{Balance, BalanceKind};
    use proptest::prelude::*;

    use super::*;
    use crate::{Label, upstream::health::Health};

    struct Rig {
        health: Health,
        pool: Pool,
        rules: config::OutlierDetection,
        check: config::HealthCheck,
    }

    fn at(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 80).into()
    }

    fn seconds(seconds: f64) -> Now {
        Now::default().plus(Duration::from_secs_f64(seconds))
    }

    fn rig(count: u8) -> Rig {
        let rules = config::OutlierDetection {
            consecutive_failures: 3,
            ..config::OutlierDetection::default()
        };
        let check = serde_json::from_value(serde_json::json!({"path": "/"})).unwrap();
        let rig = Rig { health: Health::default(), pool: Pool::default(), rules, check };
        rig.found(count);
        rig
    }

    impl Rig {
        fn found(&self, count: u8) {
            let found: Vec<_> = (1..=count).map(at).collect();
            self.pool.replace(self.health.of(&Label::lossy("up"), &found));
        }
        fn address(&self, n: u8) -> Arc<Address> {
            let all = &self.pool.view.load().all;
            Arc::clone(all.iter().find(|address| address.at == at(n)).unwrap())
        }
        fn fail(&self, attempt: &mut Attempt, now: f64) -> Option<Change> {
            self.pool.failed(attempt, Fault::Reset, &self.rules, seconds(now))
        }
        fn fails(&self, n: u8, times: u32, now: f64) -> Option<Change> {
            let one = |_| self.fail(&mut self.address(n).begin(), now);
            (0..times).filter_map(one).last()
        }
        fn succeeds(&self, n: u8) {
            self.address(n).begin().succeeded();
        }
        fn checked(&self, n: u8, went: Result<(), ()>, now: f64) -> Option<&'static str> {
            let change = self.pool.checked(&self.address(n), went, &self.check, seconds(now));
            change.map(|change| change.to.name())
        }
        fn expire(&self, now: f64) -> Vec<(SocketAddr, &'static str)> {
            let changes = self.pool.expire(Some(&self.check), seconds(now));
            changes.iter().map(|change| (change.at, change.to.name())).collect()
        }
        fn used(&self) -> Vec<SocketAddr> {
            self.pool.facts().iter().filter(|facts| facts.used).map(|facts| facts.at).collect()
        }
        fn until(&self, n: u8) -> Option<f64> {
            let facts = self.pool.facts();
            let facts = facts.iter().find(|facts| facts.at == at(n))?;
            facts.condition.until().map(|until| until.elapsed.as_secs_f64())
        }
    }

    #[test]
    fn failures_in_a_row_eject_an_address_for_a_while() {
        let rig = rig(2);
        assert_eq!(rig.fails(1, 2, 0.0), None);
        rig.succeeds(1);
        assert_eq!(rig.fails(1, 2, 0.0), None, "not in a row");
        let change = rig.fails(1, 1, 10.0).unwrap();
        assert_eq!((change.at, change.to.name(), rig.until(1)), (at(1), "ejected", Some(40.0)));
        assert_eq!(change.to.fault(), Some(Fault::Reset));
        assert_eq!(rig.used(), [at(2)]);
        assert_eq!(rig.expire(39.9), []);
        assert_eq!(rig.expire(40.0), [(at(1), "healthy")]);
        assert_eq!(rig.used(), [at(1), at(2)]);
    }

    #[test]
    fn an_attempt_counts_once() {
        let rig = rig(2);
        let mut attempt = rig.address(1).begin();
        for _ in 0..9 {
            assert_eq!(rig.fail(&mut attempt, 0.0), None);
        }
    }

    #[test]
    fn the_more_often_it_is_ejected_the_longer() {
        let rig = rig(2);
        let mut now = 0.0;
        let mut rests = Vec::new();
        for _ in 0..12 {
            rig.fails(1, 3, now).unwrap();
            let until = rig.until(1).unwrap();
            rests.push(until - now);
            now = until;
            rig.expire(now);
        }
        assert_eq!(rests[..3], [30.0, 60.0, 90.0]);
        assert_eq!(rests[9..], [300.0; 3]);
        rig.fails(1, 3, now + 299.0).unwrap();
        assert_eq!(rig.until(1), Some(now + 599.0));
        rig.expire(now + 599.0);
        rig.fails(1, 3, now + 900.0).unwrap();
        assert_eq!(rig.until(1), Some(now + 930.0), "it was well for long");
    }

    #[test]
    fn one_of_two_may_go_and_half_of_many_and_the_only_one_never() {
        let gone = |count: u8, percent_max: u8| {
            let mut rig = rig(count);
            rig.rules.ejection_percent_max = percent_max;
            (1..=count).filter(|n| rig.fails(*n, 9, 0.0).is_some()).count()
        };
        assert_eq!([1, 2, 3, 4, 9].map(|count| gone(count, 50)), [0, 1, 1, 2, 4]);
        assert_eq!([gone(2, 10), gone(20, 10), gone(2, 0)], [1, 2, 0]);
    }

    #[test]
    fn if_all_are_out_all_are_used() {
        let mut rig = rig(3);
        rig.rules.ejection_percent_max = 100;
        rig.fails(1, 3, 0.0).unwrap();
        rig.fails(2, 3, 0.0).unwrap();
        assert_eq!(rig.used(), [at(3)]);
        (0..3).for_each(|_| _ = rig.checked(3, Err(()), 0.0));
        assert_eq!(rig.used(), [at(1), at(2), at(3)]);
    }

    #[test]
    fn checks_find_an_address_unhealthy_and_well_again() {
        let rig = rig(2);
        let none: [Option<&str>; 2] = [None; 2];
        assert_eq!([(); 2].map(|()| rig.checked(1, Err(()), 0.0)), none);
        assert_eq!(rig.checked(1, Ok(()), 0.0), None);
        assert_eq!([(); 2].map(|()| rig.checked(1, Err(()), 0.0)), none, "not in a row");
        assert_eq!(rig.checked(1, Err(()), 0.0), Some("unhealthy"));
        assert_eq!(rig.used(), [at(2)]);
        assert_eq!(rig.expire(1e6), [], "time alone makes nobody well");
        assert_eq!(rig.fails(2, 9, 0.0), None, "half of them are out already");
        assert_eq!(rig.checked(1, Ok(()), 0.0), None);
        assert_eq!(rig.checked(1, Ok(()), 0.0), Some("healthy"));
        assert_eq!(rig.used(), [at(1), at(2)]);
    }

    #[test]
    fn checks_that_succeed_after_an_ejection_end_it() {
        let rig = rig(2);
        assert_eq!(rig.checked(1, Ok(()), 0.0), None);
        rig.fails(1, 3, 0.0).unwrap();
        assert_eq!(rig.checked(1, Ok(()), 1.0), None, "one was before");
        assert_eq!(rig.checked(1, Ok(()), 2.0), Some("healthy"));
        assert_eq!(rig.fails(1, 2, 2.0), None, "it begins anew");
        assert!(rig.fails(1, 1, 2.0).is_some());
        assert_eq!(rig.until(1), Some(62.0));
    }

    #[test]
    fn without_checks_no_address_stays_unhealthy() {
        let rig = rig(2);
        (0..3).for_each(|_| _ = rig.checked(1, Err(()), 0.0));
        let changes = rig.pool.expire(None, seconds(1.0));
        assert_eq!(changes, [Change { at: at(1), to: Condition::Healthy }]);
    }

    #[test]
    fn what_is_known_outlives_a_reload_and_is_forgotten_when_the_name_leads_elsewhere() {
        let mut rig = rig(2);
        rig.fails(1, 3, 0.0).unwrap();
        rig.pool = Pool::default();
        rig.found(3);
        assert_eq!(rig.used(), [at(2), at(3)]);
        rig.pool.replace(rig.health.of(&Label::lossy("up"), &[at(2)]));
        rig.found(2);
        assert_eq!(rig.used(), [at(1), at(2)]);
        rig.health.keep(|_| false);
        assert!(rig.health.0.lock().is_empty());
    }

    #[test]
    fn results_of_a_removed_address_eject_nothing() {
        let rig = rig(3);
        let mut late: Vec<_> = (0..5).map(|_| rig.address(3).begin()).collect();
        let gone = rig.address(3);
        rig.found(2);
        for attempt in &mut late {
            assert_eq!(rig.fail(attempt, 0.0), None);
        }
        assert_eq!(gone.in_flight(), 5);
        drop(late);
        assert_eq!(gone.in_flight(), 0);
    }

    #[test]
    fn each_address_is_checked_about_once_in_an_interval() {
        let rig = rig(3);
        let mut count = 0;
        for tenth in 0..1000u32 {
            let now = Duration::from_millis(100) * tenth;
            count += rig.pool.due(&rig.check, now, || f64::from(tenth % 7) / 7.0).len();
        }
        assert!((24..36).contains(&count), "{count} checks in ten intervals");
    }

    #[test]
    fn an_attempt_at_one_that_is_out_is_better_than_at_one_that_just_failed() {
        let rig = rig(2);
        rig.fails(1, 3, 0.0).unwrap();
        let chosen = |tried: &[SocketAddr]| {
            let balance = Balance { kind: BalanceKind::RoundRobin, by: None };
            let pick = Pick { balance, turn: 0, roll: 0, key: None, tried };
            rig.pool.choose(&pick).map(|attempt| attempt.at())
        };
        assert_eq!(chosen(&[]), Some(at(2)));
        assert_eq!(chosen(&[at(2)]), Some(at(1)));
        assert_eq!(chosen(&[at(1), at(2)]), Some(at(2)));
    }

    proptest! {
        #[test]
        fn whatever_happens_some_are_used_and_no_more_are_ejected_than_may_be(
            count in 1u8..8, percent: u8, steps in prop::collection::vec((0u8..8, 0u8..4), 0..200),
        ) {
            let mut rig = rig(count);
            rig.rules.ejection_percent_max = percent % 101;
            for (step, (n, what)) in steps.into_iter().enumerate() {
                let (n, now) = (n % count + 1, step as f64);
                match what {
                    0 => rig.succeeds(n),
                    1 => _ = rig.fails(n, 3, now),
                    2 => _ = rig.checked(n, if step % 3 == 0 { Ok(()) } else { Err(()) }, now),
                    _ => _ = rig.expire(now),
                }
                let facts = rig.pool.facts();
                let out = facts.iter().filter(|f| f.condition != Condition::Healthy).count();
                let ejected = facts.iter().filter(|f| f.condition.until().is_some()).count();
                prop_assert!(ejected <= out_max(facts.len(), rig.rules.ejection_percent_max));
                let used: Vec<_> = facts.iter().filter(|f| f.used).collect();
                prop_assert!(!used.is_empty());
                let well = used.iter().all(|f| f.condition == Condition::Healthy);
                prop_assert!(well && used.len() + out == facts.len() || out == facts.len());
            }
        }
    }
}
