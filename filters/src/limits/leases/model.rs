//! A store that counts as the script in Redis does, for tests and simulations.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{LeaseGrant, Question};

/// As `proxy/src/replicas/store/count.lua`. Times are microseconds.
#[derive(Default)]
pub struct Store {
    /// By the limit's name.
    pub budgets: HashMap<String, Budget>,
    /// Counted by the caller.
    pub round_trips: u64,
    /// The number of questions.
    pub questions: u64,
    /// Replicas that ever asked.
    there: HashSet<usize>,
}

/// The budget of a limit.
#[derive(Default)]
pub struct Budget {
    /// When it is whole again.
    pub whole_at: Option<f64>,
    /// What replicas hold, what they had spent then, and until when.
    pub held: HashMap<usize, (i64, i64, f64)>,
}

/// How long a replica's tokens are reserved for it.
const RESERVED: f64 = 2_000_000.0;

impl Store {
    /// Answers a replica's question about a limit.
    pub fn answer(&mut self, replica: usize, question: &Question, at: f64) -> LeaseGrant {
        self.questions += 1;
        self.there.insert(replica);
        let lease = &question.lease;
        let interval = lease.interval.as_secs_f64() * 1e6;
        let full = interval * f64::from(lease.burst);
        let budget = self.budgets.entry(lease.name.to_string()).or_default();
        let (mut back, mut soonest) = (0, f64::INFINITY);
        budget.held.retain(|holder, (held, _, until)| {
            let lasts = *until > at;
            back += if lasts { 0 } else { *held };
            if lasts && *holder != replica && *held > 0 {
                soonest = soonest.min(*until);
            }
            lasts
        });
        let (left, spent) = (i64::from(question.left), question.spent.cast_signed());
        back += match budget.held.get(&replica) {
            Some((held, known, _)) => held - (spent - known) - left,
            None => -(left + spent - question.acked.cast_signed()),
        };
        let mut whole = budget.whole_at.unwrap_or(at);
        // What was spent and is reported late is charged even above the burst; a debt includes all that.
        let mut late = (full / 4.0).max(self.there.len() as f64 * interval);
        if budget.whole_at.is_none() || question.carried {
            whole = whole.max(at + f64::from(question.debt) * interval);
            late = 0.0;
        }
        if back < 0 {
            whole = whole.max(at);
        }
        whole = (whole - back as f64 * interval).clamp(at, at + full + late);
        // None, if that is below 0.
        let free = ((full - (whole - at)) / interval + 1e-6).floor() as u32;
        let granted = question.ask.min(free);
        whole += f64::from(granted) * interval;
        budget.whole_at = Some(whole);
        budget.held.insert(replica, (left + i64::from(granted), spent, at + RESERVED));
        let wait = (whole + interval - at - full).max(0.0);
        let micros = |micros: f64| Duration::from_secs_f64(micros / 1e6);
        let again = micros(wait.min(soonest - at));
        LeaseGrant { granted, rest: free - granted, wait: micros(wait), again }
    }
}
