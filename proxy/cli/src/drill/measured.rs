//! The results of calls, in numbers.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    ask::Saw,
    load::{Made, Phase},
};

/// What a fault did to callers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Measured {
    /// Calls in the calm, during the fault and after it.
    pub(super) calls: [usize; 3],
    /// How many were admitted during the fault, in percent of those in the calm.
    pub(super) admitted: Option<f64>,
    pub(super) admitted_reads: Option<f64>,
    pub(super) admitted_actions: Option<f64>,
    /// What callers saw during the fault, and how often.
    pub(super) saw: BTreeMap<String, usize>,
    /// What those who were admitted waited beyond the calm, in milliseconds.
    pub(super) added_p50: Option<f64>,
    pub(super) added_p99: Option<f64>,
}

impl Measured {
    pub(super) fn of(made: &[Made]) -> Self {
        let of = |phase| made.iter().filter(move |made| made.phase == phase);
        let phases = [Phase::Calm, Phase::Fault, Phase::Recovery];
        let mut saw = BTreeMap::new();
        for made in of(Phase::Fault) {
            let label = made.saw.as_ref().map_or_else(|| "no response".to_owned(), Saw::label);
            *saw.entry(label).or_default() += 1;
        }
        let share = |phase, which: &dyn Fn(&Made) -> bool| {
            let all = of(phase).filter(|made| which(made));
            let good = all.clone().filter(|made| made.saw == Some(Saw::Good)).count();
            let all = all.count();
            (all > 0).then(|| good as f64 / all as f64)
        };
        let admitted = |which: &dyn Fn(&Made) -> bool| {
            let calm = share(Phase::Calm, which).filter(|calm| *calm > 0.0)?;
            Some((share(Phase::Fault, which)? / calm * 1000.0).round() / 10.0)
        };
        let added = |share: f64| {
            let waited = |phase| waited(of(phase), share);
            let added = waited(Phase::Fault)?.as_secs_f64() - waited(Phase::Calm)?.as_secs_f64();
            Some((added * 10_000.0).round() / 10.0)
        };
        Self {
            calls: phases.map(|phase| of(phase).count()),
            admitted: admitted(&|_| true),
            admitted_reads: admitted(&|made| !made.action),
            admitted_actions: admitted(&|made| made.action),
            saw,
            added_p50: added(0.5),
            added_p99: added(0.99),
        }
    }
}

/// What this share of the good calls did not wait longer than.
fn waited<'a>(made: impl Iterator<Item = &'a Made>, share: f64) -> Option<Duration> {
    let good = made.filter(|made| made.saw == Some(Saw::Good));
    let mut all: Vec<Duration> = good.map(|made| made.took).collect();
    all.sort_unstable();
    let last = all.len().checked_sub(1)?;
    Some(all[(last as f64 * share).round() as usize])
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn admitted_calls_are_reported_relative_to_the_calm() {
        let made = |phase, good: bool, ms: u64, action: bool| Made {
            phase,
            began: Instant::now(),
            saw: Some(if good {
                Saw::Good
            } else {
                Saw::Answer { status: 503, code: Some("breaker_open".to_owned()) }
            }),
            took: Duration::from_millis(ms),
            action,
        };
        let all = [
            made(Phase::Calm, true, 2, false),
            made(Phase::Calm, true, 4, false),
            made(Phase::Calm, false, 9, true),
            made(Phase::Calm, true, 3, true),
            made(Phase::Fault, true, 10, false),
            made(Phase::Fault, false, 1, false),
            made(Phase::Fault, false, 1, true),
        ];
        let found = Measured::of(&all);
        assert_eq!(found.calls, [4, 3, 0]);
        assert_eq!((found.admitted, found.admitted_reads), (Some(44.4), Some(50.0)));
        assert_eq!(found.admitted_actions, Some(0.0));
        assert_eq!((found.added_p50, found.added_p99), (Some(7.0), Some(6.0)));
        let saw = [("200".to_owned(), 1), ("503 breaker_open".to_owned(), 2)];
        assert_eq!(found.saw, BTreeMap::from(saw));
        assert_eq!(Measured::of(&[]).admitted, None);
    }
}
