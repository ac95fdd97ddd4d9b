//! One fault from beginning to end: a copy, the calm, the fault, the recovery, and the promises.

mod shared;

use std::{num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use config::{Config, Limit, ListenerKind, Rate};

use super::{
    aims::{self, Aim, Skipped},
    ask::{Client, Saw},
    copy::Counting,
    fault::Fault,
    load::{Load, Made, Phase},
    measured::Measured,
    records,
    report::{Drilled, Row},
    test_bed::TestBed,
};
use crate::counted;

/// How hard and how long.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// The time of a fault.
    pub(super) time: Duration,
    /// The time between two calls.
    pub(super) every: Duration,
    /// The rate of calls.
    pub(super) rate: Rate,
}

impl Pace {
    /// A limit that the drill never reaches: twice its rate, with a burst for the first tries.
    fn twice(self) -> Limit {
        let Rate { count, per } = self.rate;
        let rate = Rate { count: count.saturating_mul(TWO), per };
        let burst = ROUND_MAX.as_secs_f64() / rate.interval().as_secs_f64();
        Limit { rate, burst: NonZeroU32::new((burst as u32).max(BURST_MIN)) }
    }
}

const TWO: NonZeroU32 = NonZeroU32::new(2).expect("it is not zero");
/// At a low rate, too, everything is tried at first without a pause.
const BURST_MIN: u32 = 1000;

/// The maximum of the calm before a fault.
const CALM_MAX: Duration = Duration::from_secs(2);
/// How long requests from before a fault have to finish before it begins, and how long those within it have
/// to be decided before it ends.
const MOMENT: Duration = Duration::from_millis(200);
/// How long a recovery may take, beyond a breaker's rest.
const PATIENCE: Duration = Duration::from_secs(12);
/// The longest time until everything was requested once.
const ROUND_MAX: Duration = Duration::from_secs(60);
const STARTS_MAX: u32 = 5;
/// The minimum success rate under a fault that must not matter, in percent: the rest may fail for other
/// reasons.
const NOT_ALL: f64 = 95.0;

/// A fault, drilled.
pub(super) struct Outcome {
    pub(super) row: Row,
    /// The number of targets that were driven.
    pub(super) driven: usize,
    pub(super) left: Vec<Skipped>,
    /// How the copy differs.
    pub(super) notes: Vec<String>,
}

/// Drills one fault in its own folder.
pub(super) async fn drill(
    fault: Fault,
    written: Arc<Config>,
    folder: &Path,
    pace: Pace,
) -> Result<Outcome, String> {
    let counting = || match fault {
        Fault::RedisDown => Counting::Shared(pace.twice()),
        _ => Counting::Nothing,
    };
    let mut test_bed = start(&written, folder, counting).await?;
    let (mint, name) = (Arc::clone(&test_bed.mint), test_bed.certificate());
    let client = Client::new(&test_bed.authority, name, mint, fault.is_of_connections())?;
    let client = Arc::new(client);
    let (aims, left) = driven(&test_bed, &client).await;
    let notes = std::mem::take(&mut test_bed.copy.notes);
    let driven = aims.len();
    let touched =
        |aim: &Aim| fault.touches(aim.nature) && fault.touches_whom(&aim.ways[0], &test_bed.mint);
    if !aims.iter().any(touched) {
        let row = Row::not(fault, "nothing that it would break can be driven");
        return Ok(Outcome { row, driven, left, notes });
    }
    let (made, back) = broken_and_mended(fault, &mut test_bed, &client, &aims, pace).await?;
    let mut drilled = ended(test_bed, &client).await?;
    drilled.measured = Measured::of(&made);
    drilled.back_after = back.map(|back| (back.as_secs_f64() * 10.0).round() / 10.0);
    drilled.broken.extend(fault.allowed(&written));
    drilled.broken.extend(promises(fault, &drilled, &made));
    if let (Fault::RedisDown, Some(store)) = (fault, &written.store) {
        drilled.broken.extend(shared::promises(store.on_error, &drilled, &made));
    }
    Ok(Outcome { row: Row::ran(fault, drilled), driven, left, notes })
}

/// The calm, the fault and the recovery: all calls, and how long the recovery took.
async fn broken_and_mended(
    fault: Fault,
    test_bed: &mut TestBed,
    client: &Arc<Client>,
    aims: &[Aim],
    pace: Pace,
) -> Result<(Vec<Made>, Option<Duration>), String> {
    // Everything is requested at least once.
    let round = pace.every.saturating_mul(u32::try_from(aims.len()).unwrap_or(u32::MAX));
    if round > ROUND_MAX {
        let all = aims.len();
        return Err(format!("{all} routes and hosts take too long at this rate; raise `--rate`"));
    }
    let load = Load::begin(Arc::clone(client), aims, pace.every);
    load.go_on(Phase::Calm, (pace.time / 2).min(CALM_MAX).max(round)).await;
    load.go_on(Phase::Between, MOMENT).await;
    fault.begin(test_bed).await?;
    load.go_on(Phase::Fault, fault.lasts(pace.time, &test_bed.copy.config)).await;
    load.go_on(Phase::Between, MOMENT).await;
    fault.end(test_bed).await?;
    let patience = patience(&test_bed.copy.config) + round * 2;
    let (back, found) = tokio::join!(load.recovered(patience), test_bed.find_redis());
    found?;
    Ok((load.end().await, back))
}

/// Stops a copy, and checks what it leaves.
pub(super) async fn ended(mut test_bed: TestBed, client: &Client) -> Result<Drilled, String> {
    let mut drilled = Drilled {
        actions_twice: test_bed.stand_ins.twice(),
        reached: test_bed.stand_ins.trapped(),
        broken: std::mem::take(&mut test_bed.broken),
        store: test_bed.store,
        ..Drilled::default()
    };
    let listeners = test_bed.copy.config.listeners.iter();
    let forward: Vec<String> = listeners
        .filter(|(_, listener)| listener.kind == ListenerKind::Forward)
        .map(|(name, _)| name.to_string())
        .collect();
    let records = test_bed.records();
    let (was_running, last) = (test_bed.child.is_running(), test_bed.child.said());
    // Calls in progress need their stand-ins until the end.
    let TestBed { child, stand_ins, .. } = test_bed;
    let stopped = child.stop().await;
    drop(stand_ins);
    match stopped {
        _ if !was_running => drilled.broken.push(format!("the proxy ended by itself:\n{last}")),
        Err(why) => drilled.broken.push(why),
        Ok(()) => {}
    }
    let (lost, told) = records::lost(&records, &client.answered(), &forward)?;
    (drilled.records_lost, drilled.records_lost_told) = (lost, told);
    drilled.records_wrong = records::verify(&records).err();
    Ok(drilled)
}

/// Starts a copy; again if another process got one of its ports meanwhile.
pub(super) async fn start(
    written: &Config,
    folder: &Path,
    counting: impl Fn() -> Counting<Limit>,
) -> Result<TestBed, String> {
    for _ in 1..STARTS_MAX {
        match TestBed::start(written, folder, counting()).await {
            Err(error) if error.contains("cannot listen on") => {
                std::fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
            }
            started => return started,
        }
    }
    TestBed::start(written, folder, counting()).await
}

/// How long a recovery may take.
fn patience(config: &Config) -> Duration {
    let rests = config
        .upstreams
        .iter()
        .map(|(name, upstream)| *config.breaker(name, upstream).open_duration);
    rests.max().unwrap_or_default() + PATIENCE
}

/// Tries each aim once in each way, and keeps the way that is admitted.
async fn driven(test_bed: &TestBed, client: &Client) -> (Vec<Aim>, Vec<Skipped>) {
    let (all, mut left) = aims::all(&test_bed.copy.config, &test_bed.mint);
    let mut aims = Vec::new();
    for mut aim in all {
        let mut why = String::new();
        let mut found = None;
        for way in &aim.ways {
            match client.make(way).await {
                Saw::Good => {
                    found = Some(way.clone());
                    break;
                }
                other => why = other.label(),
            }
        }
        match found {
            Some(way) => {
                aim.ways = vec![way];
                aims.push(aim);
            }
            None => left.push(Skipped {
                of: aim.of,
                why: format!("no caller that a drill can act as is let through: {why}"),
            }),
        }
    }
    (aims, left)
}

/// The promises that were broken, in a sentence each.
fn promises(fault: Fault, drilled: &Drilled, made: &[Made]) -> Vec<String> {
    let untold = drilled.records_lost.saturating_sub(drilled.records_lost_told);
    let unkept = made.iter().filter(|made| {
        let let_through = made.action && made.saw == Some(Saw::Good);
        fault == Fault::AuditFull && made.phase == Phase::Fault && let_through
    });
    let count = |count: usize, what: &str| (count > 0).then(|| counted(count as u64, what));
    let mut broken = Vec::new();
    broken.extend(
        count(untold, "exchange")
            .map(|them| format!("{them} with a response, neither recorded nor reported as lost")),
    );
    broken.extend(
        count(unkept.count(), "action")
            .map(|them| format!("{them} passed, but could not be recorded")),
    );
    broken.extend(
        drilled.records_wrong.as_ref().map(|wrong| format!("the records are not whole: {wrong}")),
    );
    broken.extend(
        count(drilled.actions_twice, "action")
            .map(|them| format!("{them} sent to an upstream twice")),
    );
    broken.extend(
        count(drilled.reached, "connection")
            .map(|them| format!("a poisoned address was reached, by {them}")),
    );
    if drilled.back_after.is_none() {
        broken.push("callers were not admitted as before".to_owned());
    }
    let admitted = drilled.measured.admitted.filter(|_| fault.must_not_matter());
    if let Some(admitted) = admitted.filter(|admitted| *admitted < NOT_ALL) {
        broken.push(format!(
            "only {admitted} % were admitted, although this fault should not matter"
        ));
    }
    broken
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn what_was_promised_is_held_against_what_was_seen() {
        let well = || Drilled { back_after: Some(0.0), ..Drilled::default() };
        let check = |fault, drilled: Drilled, made: &[Made], expected: &[&str]| {
            assert_eq!(promises(fault, &drilled, made), expected);
        };
        check(Fault::UpstreamReset, well(), &[], &[]);
        let told = Drilled { records_lost: 3, records_lost_told: 3, ..well() };
        check(Fault::AuditFull, told, &[], &[]);
        let untold = Drilled { records_lost: 3, records_lost_told: 2, ..well() };
        let sentence = "1 exchange with a response, neither recorded nor reported as lost";
        check(Fault::AuditFull, untold, &[], &[sentence]);
        let twice = Drilled { actions_twice: 2, ..well() };
        check(Fault::UpstreamReset, twice, &[], &["2 actions sent to an upstream twice"]);
        let lasting = Drilled::default();
        check(Fault::IdpDown, lasting, &[], &["callers were not admitted as before"]);
        let measured = Measured { admitted: Some(94.9), ..Measured::default() };
        let kept_out = || Drilled { measured: measured.clone(), ..well() };
        let sentence = "only 94.9 % were admitted, although this fault should not matter";
        check(Fault::JwksRotated, kept_out(), &[], &[sentence]);
        check(Fault::Upstream500, kept_out(), &[], &[]);
        let acted = |phase| Made {
            phase,
            began: Instant::now(),
            saw: Some(Saw::Good),
            took: Duration::ZERO,
            action: true,
        };
        let made = [acted(Phase::Calm), acted(Phase::Between), acted(Phase::Fault)];
        let sentence = "1 action passed, but could not be recorded";
        check(Fault::AuditFull, well(), &made, &[sentence]);
        check(Fault::IdpDown, well(), &made, &[]);
    }
}
