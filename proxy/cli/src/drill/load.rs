//! A light, steady load, and the result of each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    aims::Aim,
    ask::{Call, Client, Saw},
};

/// Of what a call was part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    Calm,
    /// A fault begins or ends meanwhile: such a call does not count.
    Between,
    Fault,
    Recovery,
}

/// A call that was made.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) phase: Phase,
    pub(super) began: Instant,
    /// `None` while it is in progress.
    pub(super) saw: Option<Saw>,
    pub(super) took: Duration,
    pub(super) action: bool,
}

/// The load, until it is dropped.
pub(super) struct Load {
    made: Arc<Mutex<Vec<Made>>>,
    phase: Arc<AtomicU8>,
    ending: Arc<AtomicBool>,
    task: JoinSet<()>,
    /// The time in which everything is requested once.
    round: Duration,
}

/// How long the last calls have to end.
const LAST: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(100);
/// How long calls must succeed to count as recovered.
const SURE: Duration = Duration::from_millis(1500);

impl Load {
    /// Requests one after the other, at this interval.
    pub(super) fn begin(client: Arc<Client>, aims: &[Aim], every: Duration) -> Self {
        let calls: Vec<Call> = aims.iter().filter_map(|aim| aim.ways.first().cloned()).collect();
        let round = every * u32::try_from(calls.len()).unwrap_or(u32::MAX);
        let made = Arc::<Mutex<Vec<Made>>>::default();
        let (phase, ending) = (Arc::<AtomicU8>::default(), Arc::<AtomicBool>::default());
        let mut task = JoinSet::new();
        let (noted, now, end) = (Arc::clone(&made), Arc::clone(&phase), Arc::clone(&ending));
        task.spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut in_flight = JoinSet::new();
            for call in calls.iter().cycle() {
                ticks.tick().await;
                if end.load(Ordering::Relaxed) {
                    break;
                }
                while in_flight.try_join_next().is_some() {}
                let (noted, client) = (Arc::clone(&noted), Arc::clone(&client));
                let (call, phase) = (call.clone(), phase_of(now.load(Ordering::Relaxed)));
                in_flight.spawn(async move {
                    let number = {
                        let mut noted = noted.lock();
                        noted.push(Made::begun(phase, &call));
                        noted.len() - 1
                    };
                    let began = Instant::now();
                    let saw = client.make(&call).await;
                    let mut noted = noted.lock();
                    let made = &mut noted[number];
                    (made.saw, made.took) = (Some(saw), began.elapsed());
                });
            }
            let _ = timeout(LAST, in_flight.join_all()).await;
        });
        Self { made, phase, ending, task, round }
    }

    /// Continues for a time as part of a phase.
    pub(super) async fn go_on(&self, phase: Phase, time: Duration) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        sleep(time).await;
    }

    /// Continues until calls succeed as in the calm: returns how long that took, or `None` if it did not
    /// happen within `patience`.
    pub(super) async fn recovered(&self, patience: Duration) -> Option<Duration> {
        self.phase.store(Phase::Recovery as u8, Ordering::Relaxed);
        let ended = Instant::now();
        let sure = SURE.max(self.round * 6 / 5);
        let calm = self.share(Phase::Calm);
        while ended.elapsed() < patience + sure {
            sleep(LOOK).await;
            if let Some(back) = back(&self.made.lock(), ended, Instant::now(), sure, calm) {
                return Some(back);
            }
        }
        None
    }

    fn share(&self, phase: Phase) -> f64 {
        let made = self.made.lock();
        let of_phase = made.iter().filter(|made| made.phase == phase);
        let good = of_phase.clone().filter(|made| made.saw == Some(Saw::Good)).count();
        good as f64 / of_phase.count().max(1) as f64
    }

    /// Ends it; returns all calls.
    pub(super) async fn end(mut self) -> Vec<Made> {
        self.ending.store(true, Ordering::Relaxed);
        while self.task.join_next().await.is_some() {}
        std::mem::take(&mut *self.made.lock())
    }
}

impl Made {
    fn begun(phase: Phase, call: &Call) -> Self {
        let action = matches!(call, Call::Request { action: true, .. });
        Self { phase, began: Instant::now(), saw: None, took: Duration::ZERO, action }
    }
}

fn phase_of(number: u8) -> Phase {
    match number {
        0 => Phase::Calm,
        1 => Phase::Between,
        2 => Phase::Fault,
        _ => Phase::Recovery,
    }
}

/// The first time after `ended` from which, for as long as `sure`, as many calls were good as in the
/// calm.
fn back(
    made: &[Made],
    ended: Instant,
    now: Instant,
    sure: Duration,
    calm: f64,
) -> Option<Duration> {
    // They are in the order in which they began.
    let since = &made[made.partition_point(|made| made.phase != Phase::Recovery)..];
    let after_bad = since.iter().filter(|made| made.saw != Some(Saw::Good));
    let starts = std::iter::once(ended).chain(after_bad.map(|made| made.began + TINY));
    // Older calls were checked before.
    let recent = |start: &Instant| *start + sure <= now && *start + sure + REMEMBERED >= now;
    for start in starts.filter(recent) {
        let first = since.partition_point(|made| made.began < start);
        let last = since.partition_point(|made| made.began <= start + sure);
        let within = &since[first..last];
        if within.iter().any(|made| made.saw.is_none()) {
            continue;
        }
        let good = within.iter().filter(|made| made.saw == Some(Saw::Good)).count();
        if good > 0 && good as f64 / within.len() as f64 >= calm - TOLERATED {
            return Some(start.saturating_duration_since(ended));
        }
    }
    None
}

/// How long a call may be in progress that decides whether an earlier moment was the recovery.
const REMEMBERED: Duration = Duration::from_secs(15);
const TINY: Duration = Duration::from_micros(1);
/// One call in fifty may fail for other reasons.
const TOLERATED: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_back_when_it_stays_good() {
        let ended = Instant::now();
        let made = |ms: u64, saw: Option<Saw>| Made {
            phase: Phase::Recovery,
            began: ended + Duration::from_millis(ms),
            saw,
            took: Duration::ZERO,
            action: false,
        };
        let bad = || Some(Saw::Broken("x".to_owned()));
        let at = |all: &[Made], ms: u64| {
            let now = ended + Duration::from_millis(ms);
            back(all, ended, now, Duration::from_millis(300), 1.0).map(|back| back.as_millis())
        };
        let mut all = vec![made(0, bad()), made(100, Some(Saw::Good)), made(200, bad())];
        all.extend((3..9).map(|n| made(n * 100, Some(Saw::Good))));
        assert_eq!(at(&all, 400), None, "it is too early to tell");
        assert_eq!(at(&all, 900), Some(200));
        assert_eq!(at(&all[1..2], 900), Some(0));
        assert_eq!(at(&[made(100, None)], 900), None, "it is still under way");
    }
}
