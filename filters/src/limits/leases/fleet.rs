//! Many replicas and workspaces beside one store, in virtual time: what sharing limits costs, and how exact it is.
//!
//! Requests arrive at random (Poisson), at any replica, for workspaces of which few are busy (Zipf). Each
//! replica asks the store as the proxy does: one batch is in flight at a time, while the next is collected.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    num::NonZeroU32,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use config::{Limit, OnStoreError};

use super::{Batch, Lease, LeaseGrant, Leases, Taken, model::Store};
use crate::Now;

/// The parameters of a simulation, which is deterministic.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Replicas, among which requests are spread evenly.
    pub replicas: u32,
    /// Workspaces: the nth sends 1/n as many requests as the first.
    pub workspaces: u32,
    /// The limit of each workspace.
    pub limit: Limit,
    /// Requests per second, in total.
    pub rate: f64,
    /// The simulated time.
    pub lasts: Duration,
    /// The time from a question to its answer.
    pub round_trip: Duration,
    /// Beyond the first thousand workspaces, only one in this many is simulated, and represents as many.
    pub one_in: u32,
}

/// The results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Requests.
    pub requests: f64,
    /// Those that waited for the store.
    pub waited: f64,
    /// Questions to the store.
    pub questions: f64,
    /// Simulated batches. With `one_in` above 1 there would have been more.
    pub round_trips: u64,
    /// Heartbeats of replicas that had nothing to ask for a second.
    pub beats: u64,
    /// Requests that passed.
    pub through: f64,
    /// Those that a single counter would have let pass.
    pub ideal: f64,
    /// The largest excess of a workspace over burst + rate × time.
    pub above: f64,
    /// The same for the busiest workspace.
    pub first: Hot,
}

/// The results of one workspace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hot {
    /// Its requests.
    pub requests: u64,
    /// Those that passed.
    pub through: u64,
    /// Those that a single counter would have let pass.
    pub ideal: u64,
    /// Questions about its limit.
    pub questions: u64,
}

impl Scene {
    /// One workspace with this many requests per second, for a minute.
    pub fn hot(replicas: u32, limit: Limit, rate: f64) -> Self {
        Self {
            replicas,
            workspaces: 1,
            limit,
            rate,
            lasts: Duration::from_secs(60),
            round_trip: Duration::from_millis(1),
            one_in: 1,
        }
    }

    /// What all replicas together may hold ahead.
    pub fn ahead(&self) -> f64 {
        let each = (self.limit.burst().get() / super::lease::BURST_PARTS / self.replicas).max(1);
        f64::from(each) * f64::from(self.replicas)
    }

    /// Plays it.
    pub fn play(&self) -> Seen {
        let mut fleet = Fleet::new(*self);
        let (end, mut at) = (self.lasts.as_micros() as f64, 0.0);
        loop {
            at += -fleet.dice.fraction().ln() * 1e6 / self.rate;
            if at >= end {
                break;
            }
            fleet.come(at as u64);
        }
        fleet.settle(end as u64);
        fleet.seen()
    }

    fn weight(&self, workspace: u32) -> f64 {
        if workspace < WHOLE { 1.0 } else { f64::from(self.one_in) }
    }
}

/// `count` for each `per`, with a burst.
///
/// # Panics
/// If the rate is none.
pub fn limit(rate: &str, burst: u32) -> Limit {
    let rate = rate.parse().expect("the rate is written here");
    Limit { rate, burst: NonZeroU32::new(burst) }
}

/// Leases of this many limits, each used once.
pub fn used_once(limits: u32) -> Leases {
    let leases = Leases::new(OnStoreError::Share);
    leases.found(1);
    for n in 0..limits {
        let name = format!("workspace:{n:032}");
        let lease =
            leases.of(u64::from(n), |number| Lease::new(name, number, limit("6000/m", 600)));
        leases.take(&lease, now(0));
    }
    leases
}

/// Workspaces that are always simulated.
const WHOLE: u32 = 1000;
const BEAT: u64 = 1_000_000;

struct Fleet {
    scene: Scene,
    dice: Dice,
    /// The cumulated share of requests up to each workspace.
    shares: Vec<f64>,
    store: Store,
    replicas: Vec<Replica>,
    counts: HashMap<u32, Count>,
    /// The next events: when, in which order, and at which replica.
    steps: BinaryHeap<Reverse<(u64, u64, usize)>>,
    order: u64,
    seen: Seen,
}

struct Replica {
    leases: Leases,
    of: HashMap<u32, Arc<Lease>>,
    flight: Option<Flight>,
    /// The requests that wait, with the batch that they wait for.
    waiting: Vec<(u32, u64)>,
    asked_at: u64,
}

/// A batch in flight. It has its answers once it has reached the store.
struct Flight {
    batch: Batch,
    sent: u64,
    answers: Option<Vec<LeaseGrant>>,
}

/// What passes for one workspace, and what one counter would let pass (GCRA).
#[derive(Default)]
struct Count {
    hot: Hot,
    whole_at: f64,
}

impl Fleet {
    fn new(scene: Scene) -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = Vec::with_capacity(scene.workspaces as usize);
        for n in 1..=scene.workspaces {
            sum += 1.0 / f64::from(n);
            shares.push(sum);
        }
        shares.iter_mut().for_each(|share| *share /= sum);
        let replica = |_| {
            let leases = Leases::new(OnStoreError::Share);
            leases.found(scene.replicas);
            let (of, waiting) = (HashMap::new(), Vec::new());
            Replica { leases, of, flight: None, waiting, asked_at: 0 }
        };
        Self {
            scene,
            dice: Dice(1),
            shares,
            store: Store::default(),
            replicas: (0..scene.replicas).map(replica).collect(),
            counts: HashMap::new(),
            steps: BinaryHeap::new(),
            order: 0,
            seen: Seen::default(),
        }
    }

    /// A request.
    fn come(&mut self, at: u64) {
        self.settle(at);
        let share = self.dice.fraction();
        let workspace = self.shares.partition_point(|sum| *sum < share) as u32;
        let replica = self.dice.below(self.scene.replicas);
        if workspace >= WHOLE && !workspace.is_multiple_of(self.scene.one_in) {
            return;
        }
        let weight = self.scene.weight(workspace);
        self.seen.requests += weight;
        let count = self.counts.entry(workspace).or_default();
        count.hot.requests += 1;
        if count.ideal(&self.scene.limit, at as f64) {
            self.seen.ideal += weight;
        }
        if !self.take(replica, workspace, at) {
            self.seen.waited += weight;
        }
        self.begin(replica, at);
    }

    /// Whether a request is decided.
    fn take(&mut self, replica: usize, workspace: u32, at: u64) -> bool {
        let there = &mut self.replicas[replica];
        let lease = there.of.entry(workspace).or_insert_with(|| {
            let name = format!("workspace:{workspace}");
            Arc::new(Lease::new(name, u64::from(workspace), self.scene.limit))
        });
        match there.leases.take(lease, now(at)) {
            Taken::Lacking(batch) => {
                there.waiting.push((workspace, batch));
                return false;
            }
            Taken::Token { .. } => self.pass(workspace, at),
            Taken::Over(_) | Taken::Closed => {}
        }
        true
    }

    fn pass(&mut self, workspace: u32, at: u64) {
        self.seen.through += self.scene.weight(workspace);
        let count = self.counts.entry(workspace).or_default();
        count.hot.through += 1;
        let limit = self.scene.limit;
        let most = f64::from(limit.burst().get()) + at as f64 / interval(&limit);
        self.seen.above = self.seen.above.max(count.hot.through as f64 - most);
    }

    /// Sends what is due, if nothing is in flight.
    fn begin(&mut self, replica: usize, at: u64) {
        let there = &mut self.replicas[replica];
        if there.flight.is_some() || !there.leases.is_due(Waker::noop()) {
            return;
        }
        let batch = there.leases.begin(now(at));
        if batch.questions.is_empty() {
            return self.end(replica, batch.number, at);
        }
        self.seen.round_trips += 1;
        self.seen.beats += (at - there.asked_at) / BEAT;
        there.asked_at = at;
        there.flight = Some(Flight { batch, sent: at, answers: None });
        self.step(replica, at);
    }

    /// Half a round trip later it is at the store, or back.
    fn step(&mut self, replica: usize, at: u64) {
        self.order += 1;
        let then = at + self.scene.round_trip.as_micros() as u64 / 2;
        self.steps.push(Reverse((then, self.order, replica)));
    }

    /// Processes all events until then.
    fn settle(&mut self, until: u64) {
        while let Some(Reverse((at, ..))) = self.steps.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, replica))) = self.steps.pop() else { return };
            let Some(mut flight) = self.replicas[replica].flight.take() else { continue };
            let Some(answers) = flight.answers else {
                flight.answers = Some(self.answer(replica, &flight.batch, at));
                self.replicas[replica].flight = Some(flight);
                self.step(replica, at);
                continue;
            };
            let there = &self.replicas[replica];
            there.leases.end(&flight.batch, &answers, now(flight.sent), now(at));
            self.end(replica, flight.batch.number, at);
        }
    }

    fn answer(&mut self, replica: usize, batch: &Batch, at: u64) -> Vec<LeaseGrant> {
        let mut answers = Vec::with_capacity(batch.questions.len());
        for question in &batch.questions {
            let workspace = question.lease.number as u32;
            self.seen.questions += self.scene.weight(workspace);
            self.counts.entry(workspace).or_default().hot.questions += 1;
            answers.push(self.store.answer(replica, question, at as f64));
        }
        answers
    }

    /// The requests that waited for it are decided again.
    fn end(&mut self, replica: usize, number: u64, at: u64) {
        for (workspace, batch) in std::mem::take(&mut self.replicas[replica].waiting) {
            if batch > number {
                self.replicas[replica].waiting.push((workspace, batch));
            } else {
                self.take(replica, workspace, at);
            }
        }
        self.begin(replica, at);
    }

    fn seen(mut self) -> Seen {
        let end = self.scene.lasts.as_micros() as u64;
        let idle = |replica: &Replica| end.saturating_sub(replica.asked_at) / BEAT;
        self.seen.beats += self.replicas.iter().map(idle).sum::<u64>();
        self.seen.first = self.counts.get(&0).map(|count| count.hot).unwrap_or_default();
        self.seen
    }
}

impl Count {
    fn ideal(&mut self, limit: &Limit, at: f64) -> bool {
        let interval = interval(limit);
        let then = self.whole_at.max(at) + interval;
        let passes = then <= at + interval * f64::from(limit.burst().get()) + 1e-6;
        if passes {
            self.whole_at = then;
            self.hot.ideal += 1;
        }
        passes
    }
}

/// A deterministic random generator (SplitMix64).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// More than 0, and at most 1.
    fn fraction(&mut self) -> f64 {
        ((self.throw() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, count: u32) -> usize {
        (((self.throw() >> 32) * u64::from(count)) >> 32) as usize
    }
}

/// In microseconds.
fn interval(limit: &Limit) -> f64 {
    limit.rate.interval().as_secs_f64() * 1e6
}

fn now(micros: u64) -> Now {
    // Not at the very start.
    Now::default().plus(Duration::from_secs(3600) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_passes_than_burst_rate_and_what_is_held_ahead() {
        for replicas in [1, 3, 30, 300] {
            for (limit, rate) in [
                (limit("6000/m", 600), 200.0),
                (limit("6000/m", 600), 2000.0),
                (limit("100/m", 10), 50.0),
            ] {
                let scene =
                    Scene { lasts: Duration::from_secs(20), ..Scene::hot(replicas, limit, rate) };
                let seen = scene.play();
                assert!(seen.above <= scene.ahead(), "{scene:?}: {seen:?}");
            }
        }
    }

    /// Tokens that a replica reports only after its lease has ended are still charged.
    #[test]
    fn tokens_reported_late_are_still_charged() {
        let scene = Scene::hot(300, limit("6000/m", 600), 200.0);
        let minutes = |count: u64| Scene { lasts: Duration::from_secs(60 * count), ..scene }.play();
        let (one, three) = (minutes(1), minutes(3));
        assert!(one.above <= scene.ahead() && three.above <= scene.ahead(), "{one:?} {three:?}");
        assert!(three.first.through <= three.first.ideal + scene.ahead() as u64, "{three:?}");
    }

    #[test]
    fn over_a_minute_a_hot_workspace_gets_its_limit_within_two_percent() {
        for (limit, rate) in [
            (limit("6000/m", 600), 90.0),
            (limit("6000/m", 600), 200.0),
            (limit("6000/m", 600), 2000.0),
            (limit("100/m", 10), 10.0),
        ] {
            let first = Scene::hot(3, limit, rate).play().first;
            let (through, ideal) = (first.through as f64, first.ideal as f64);
            assert!((through - ideal).abs() <= ideal * 0.02 + 1.0, "{rate}: {first:?}");
        }
    }

    #[test]
    fn a_hot_workspace_costs_a_round_trip_for_fifty_requests() {
        let play = |burst| Scene::hot(3, limit("75000/m", burst), 1000.0).play();
        let seen = play(1000);
        assert!(seen.round_trips as f64 <= seen.requests / 50.0, "{seen:?}");
        assert!(seen.waited <= seen.requests / 1000.0, "{seen:?}");
        assert_eq!(seen.through, seen.requests);
        // With a smaller burst there are more.
        let each = play(600).requests / play(600).round_trips as f64;
        assert!(each > 35.0 && each < 50.0, "one for {each}");
    }
}
