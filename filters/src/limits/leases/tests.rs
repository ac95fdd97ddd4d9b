//! Replicas beside a store that counts as the script in Redis does.

use proptest::prelude::*;

use super::{model::Store, *};

/// Replicas of one limit.
struct Harness {
    store: Store,
    replicas: Vec<(Leases, Arc<Lease>)>,
    limit: config::Limit,
    let_through: u64,
}

fn limit(rate: &str, burst: u32) -> config::Limit {
    config::Limit { rate: rate.parse().unwrap(), burst: std::num::NonZeroU32::new(burst) }
}

fn after(micros: u64) -> Now {
    // Not at the very start.
    Now::default().plus(Duration::from_secs(3600) + Duration::from_micros(micros))
}

impl Harness {
    fn new(limit: config::Limit, replicas: u32, on_error: OnStoreError) -> Self {
        let replica = |_| {
            let leases = Leases::new(on_error);
            leases.found(replicas);
            let lease = leases.of(7, |number| Lease::new("workspace:a".to_owned(), number, limit));
            (leases, lease)
        };
        let replicas = (0..replicas).map(replica).collect();
        Self { store: Store::default(), replicas, limit, let_through: 0 }
    }

    /// A request, and the questions that it causes. `None` if it would wait for an answer that is lost.
    fn ask(&mut self, replica: usize, at: u64, lost: bool) -> Taken {
        let mut taken = self.take(replica, at);
        for _ in 0..3 {
            self.exchange(replica, at, lost);
            if !matches!(taken, Taken::Lacking(_)) {
                break;
            }
            taken = self.take(replica, at);
        }
        if matches!(taken, Taken::Token { .. }) {
            self.let_through += 1;
        }
        taken
    }

    fn take(&self, replica: usize, at: u64) -> Taken {
        let (leases, lease) = &self.replicas[replica];
        leases.take(lease, after(at))
    }

    fn exchange(&mut self, replica: usize, at: u64, lost: bool) {
        let (leases, _) = &self.replicas[replica];
        if !leases.is_due(Waker::noop()) || !leases.is_there() {
            return;
        }
        let batch = leases.begin(after(at));
        if batch.questions.is_empty() {
            return;
        }
        self.store.round_trips += 1;
        let store = &mut self.store;
        let answers: Vec<LeaseGrant> =
            batch.questions.iter().map(|asked| store.answer(replica, asked, at as f64)).collect();
        if lost {
            let (leases, _) = &self.replicas[replica];
            leases.lost();
            leases.found(self.replicas.len() as u32);
        } else {
            leases.end(&batch, &answers, after(at), after(at));
        }
    }

    /// What may pass in this time, without what is held in advance.
    fn budget(&self, micros: u64) -> f64 {
        let each = self.limit.rate.interval().as_micros() as f64;
        f64::from(self.limit.burst().get()) + micros as f64 / each
    }

    /// What all replicas together may hold in advance.
    fn ahead(&self) -> f64 {
        let each = self.limit.burst().get() / 4 / self.replicas.len() as u32;
        f64::from(each.max(1)) * self.replicas.len() as f64
    }
}

#[test]
fn a_slow_limit_is_counted_one_by_one() {
    let mut stage = Harness::new(limit("60/m", 4), 3, OnStoreError::Share);
    let remaining = |taken| match taken {
        Taken::Token { remaining } => Some(remaining),
        _ => None,
    };
    assert_eq!(remaining(stage.ask(0, 0, false)), Some(3));
    assert_eq!(remaining(stage.ask(1, 0, false)), Some(2));
    assert_eq!(remaining(stage.ask(2, 0, false)), Some(1));
    assert_eq!(remaining(stage.ask(0, 0, false)), Some(0));
    let over = Taken::Over(Duration::from_millis(600));
    assert_eq!(stage.ask(1, 400_000, false), over);
    let asked = stage.store.round_trips;
    // It knows until when, and does not ask again.
    assert_eq!(stage.ask(1, 400_000, false), over);
    assert_eq!(stage.store.round_trips, asked);
    assert_eq!(remaining(stage.ask(1, 1_000_000, false)), Some(0));
}

#[test]
fn a_busy_limit_needs_one_question_for_fifty_requests_and_no_waiting() {
    let mut stage = Harness::new(limit("20000/s", 2000), 3, OnStoreError::Share);
    let mut waited = 0;
    // 10000/s for two seconds.
    for n in 0..20_000_u64 {
        let (replica, at) = (n as usize % 3, n * 100);
        if matches!(stage.take(replica, at), Taken::Lacking(_)) {
            waited += 1;
            stage.exchange(replica, at, false);
            assert!(matches!(stage.take(replica, at), Taken::Token { .. }));
        }
        // Answers are delayed.
        if n % 10 == 9 {
            (0..3).for_each(|replica| stage.exchange(replica, at, false));
        }
    }
    assert!(stage.store.round_trips < 20_000 / 50, "{}", stage.store.round_trips);
    assert!(waited < 50, "{waited}");
}

#[test]
fn over_a_minute_the_whole_limit_is_used_and_no_more() {
    for (rate, burst, per_second) in [("6000/m", 600, 1000), ("100/m", 10, 200), ("600/m", 60, 11)]
    {
        let mut stage = Harness::new(limit(rate, burst), 3, OnStoreError::Share);
        for n in 0..per_second * 60 {
            stage.ask(n as usize % 3, n * 1_000_000 / per_second, false);
        }
        let through = stage.let_through as f64;
        let most = stage.budget(60_000_000).min(60.0 * per_second as f64);
        assert!(through <= most + 1.0, "{rate}: {through} of {most}");
        assert!(through >= most * 0.98 - 1.0, "{rate}: {through} of {most}");
        assert!(stage.store.round_trips <= per_second * 60, "{}", stage.store.round_trips);
    }
}

#[test]
fn where_the_budget_is_spent_there_is_no_question_for_each_request() {
    let mut stage = Harness::new(limit("6000/m", 600), 3, OnStoreError::Share);
    for n in 0..100_000_u64 {
        stage.ask(n as usize % 3, n * 100, false);
    }
    assert!(stage.store.round_trips < 100_000 / 50, "{}", stage.store.round_trips);
}

#[test]
fn what_a_dead_replica_held_is_given_back() {
    let mut stage = Harness::new(limit("1/h", 12), 1, OnStoreError::Share);
    for n in 0..4 {
        stage.ask(0, n * 1000, false);
    }
    let before = stage.store.budgets["workspace:a"].held[&0];
    assert!(before.0 > 0, "it holds nothing");
    let taken = before.1 + before.0;
    // Another one, after the first died.
    let leases = Leases::new(OnStoreError::Share);
    leases.found(1);
    let lease = leases.of(7, |number| Lease::new("workspace:a".to_owned(), number, stage.limit));
    stage.replicas.push((leases, lease));
    let mut through = 0;
    for n in 0..20 {
        through += i64::from(matches!(stage.ask(1, 100_000 + n, false), Taken::Token { .. }));
    }
    assert!(through <= 12 - taken);
    for n in 0..20 {
        through +=
            i64::from(matches!(stage.ask(1, 3_600_000 + n * 60_000, false), Taken::Token { .. }));
    }
    // Everything recorded as held: it may have spent some of that without reporting it.
    assert!(through >= 12 - taken + before.0 && through <= 12, "{through}");
}

#[test]
fn while_the_store_is_unreachable_each_has_its_share_and_none_asks() {
    let through = |on_error, replicas| {
        let mut stage = Harness::new(limit("600/m", 60), replicas, on_error);
        stage.replicas.iter().for_each(|(leases, _)| leases.lost());
        for n in 0..60_000_u64 {
            let taken = stage.ask(n as usize % replicas as usize, n * 1000, false);
            assert!(!matches!(taken, Taken::Lacking(_)));
        }
        assert_eq!(stage.store.round_trips, 0);
        stage.let_through
    };
    assert!((655..=660).contains(&through(OnStoreError::Share, 3)));
    assert!((655..=660).contains(&through(OnStoreError::Share, 1)));
    assert!((3 * 655..=3 * 660).contains(&through(OnStoreError::Open, 3)));
    assert_eq!(through(OnStoreError::Closed, 3), 0);
}

#[test]
fn the_loss_of_a_store_and_its_return_are_no_burst() {
    for forgetful in [false, true] {
        let mut stage = Harness::new(limit("600/m", 60), 3, OnStoreError::Share);
        let run = |stage: &mut Harness, from: u64, to: u64| {
            let before = stage.let_through;
            for n in from..to {
                stage.ask(n as usize % 3, n * 1000, false);
            }
            stage.let_through - before
        };
        assert!((157..=161).contains(&run(&mut stage, 0, 10_000)));
        stage.replicas.iter().for_each(|(leases, _)| leases.lost());
        let away = run(&mut stage, 10_000, 20_000);
        assert!((95..=103).contains(&away), "{away}");
        if forgetful {
            stage.store = Store::default();
        }
        stage.replicas.iter().for_each(|(leases, _)| leases.found(3));
        let back = run(&mut stage, 20_000, 30_000);
        assert!((92..=103).contains(&back), "{back}");
    }
}

#[test]
fn a_store_that_lost_everything_learns_what_was_spent() {
    let mut stage = Harness::new(limit("60/m", 30), 3, OnStoreError::Share);
    for n in 0..300 {
        stage.ask(n as usize % 3, n * 1000, false);
    }
    assert!((29..=31).contains(&stage.let_through), "{}", stage.let_through);
    stage.store = Store::default();
    for n in 0..3000 {
        stage.ask(n as usize % 3, 300_000 + n * 1000, false);
    }
    assert!((32..=36).contains(&stage.let_through), "{}", stage.let_through);
}

#[test]
fn a_token_that_was_put_back_is_there_again() {
    let mut stage = Harness::new(limit("60/m", 4), 1, OnStoreError::Share);
    assert_eq!(stage.ask(0, 0, false), Taken::Token { remaining: 3 });
    let (leases, lease) = &stage.replicas[0];
    leases.put_back(lease);
    assert_eq!(stage.take(0, 1), Taken::Token { remaining: 3 });
}

#[test]
fn leases_are_forgotten_before_memory_runs_out() {
    let leases = Leases::new(OnStoreError::Share);
    for n in 0..LEASES_MAX * 2 {
        leases.of(n, |number| Lease::new(String::new(), number, limit("1/s", 1)));
    }
    assert!(leases.status().limits <= LEASES_MAX);
}

#[test]
fn a_request_decided_late_is_not_refused_for_later_ones() {
    let limit = limit("100000/s", 10_000);
    let alone = Leases::new(OnStoreError::Share);
    let lease = alone.of(7, |number| Lease::new("workspace:a".to_owned(), number, limit));
    for at in [0, 1_000_000].into_iter().chain((0..2000).map(|late| 1_000_000 - late * 250)) {
        let taken = alone.take(&lease, after(at));
        assert!(matches!(taken, Taken::Token { .. }), "{at}: {taken:?}");
    }
}

#[test]
fn to_look_at_what_is_leased_takes_nothing() {
    let mut stage = Harness::new(limit("10/s", 20), 1, OnStoreError::Share);
    let peek = |stage: &Harness, at| stage.replicas[0].0.peek(7, after(at));
    assert_eq!(peek(&stage, 0), None, "it has not asked yet");
    let mut left = 20;
    for at in 0..40 {
        let taken = stage.ask(0, at, false);
        let looked = peek(&stage, at);
        assert_eq!(peek(&stage, at), looked);
        match taken {
            Taken::Token { .. } => {
                left -= 1;
                assert_eq!(looked, if left > 0 { Some(Ok(left)) } else { looked });
            }
            _ => assert!(matches!(looked, Some(Err(_) | Ok(0))), "{taken:?} {looked:?}"),
        }
    }
    assert_eq!((left, stage.let_through), (0, 20));
    // Without the store this replica's share counts.
    stage.replicas[0].0.lost();
    let looked = peek(&stage, 50).unwrap();
    assert!(looked.is_err(), "it spent its part as well: {looked:?}");
    let alone = Leases::new(OnStoreError::Share);
    let lease = alone.of(7, |number| Lease::new("workspace:a".to_owned(), number, stage.limit));
    for left in (0..20).rev() {
        assert_eq!(alone.peek(7, after(0)), Some(Ok(left + 1)));
        assert_eq!(alone.take(&lease, after(0)), Taken::Token { remaining: left });
    }
    assert_eq!(alone.peek(7, after(0)), Some(Err(Duration::from_millis(100))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Answers are lost, replicas die and come back, and the store forgets nothing.
    #[test]
    fn never_more_passes_than_burst_rate_and_what_is_held_ahead(
        steps in prop::collection::vec((0usize..4, 0u64..30_000, 0u8..100), 1..600),
        burst in 1u32..200,
        replicas in 1u32..5,
    ) {
        let mut stage = Harness::new(limit("100/s", burst), replicas, OnStoreError::Closed);
        let (mut at, mut deaths) = (0, 0.0);
        for (replica, gap, chance) in steps {
            at += gap;
            let replica = replica % replicas as usize;
            if chance == 0 {
                let leases = Leases::new(OnStoreError::Closed);
                leases.found(replicas);
                let limit = stage.limit;
                let lease = leases.of(7, |n| Lease::new("workspace:a".to_owned(), n, limit));
                // In the store it is another.
                stage.store.budgets.values_mut().for_each(|budget| {
                    if let Some(held) = budget.held.remove(&replica) {
                        budget.held.insert(1000 + at as usize, held);
                    }
                });
                stage.replicas[replica] = (leases, lease);
                deaths += 1.0;
            }
            for _ in 0..chance % 20 {
                stage.ask(replica, at, chance == 99);
            }
            let most = stage.budget(at) + stage.ahead() * (1.0 + deaths);
            prop_assert!(stage.let_through as f64 <= most + 1e-6, "{} of {most}", stage.let_through);
        }
    }
}
