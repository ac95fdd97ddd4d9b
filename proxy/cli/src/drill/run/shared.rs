//! The promises about limits while the shared Redis is unreachable.

use config::OnStoreError;

use super::{
    super::{
        ask::Saw,
        load::{Made, Phase},
        report::Drilled,
    },
    NOT_ALL,
};
use crate::counted;

/// How many seconds it may take to reconnect and to admit callers as before.
const BACK: f64 = 2.0;

/// The promises that were broken, in a sentence each.
pub(super) fn promises(on_error: OnStoreError, drilled: &Drilled, made: &[Made]) -> Vec<String> {
    let is_closed = on_error == OnStoreError::Closed;
    let failed: Vec<&Saw> = made
        .iter()
        .filter(|made| made.phase != Phase::Calm)
        .filter_map(|made| made.saw.as_ref())
        .filter(|saw| match saw {
            Saw::Answer { code: Some(code), .. } if is_closed && code == "limits_unavailable" => {
                false
            }
            Saw::Answer { status, .. } => *status >= 500,
            _ => false,
        })
        .collect();
    let mut broken = Vec::new();
    if let Some(first) = failed.first() {
        let calls = counted(failed.len() as u64, "call");
        broken.push(format!("{calls} failed because of a Redis, the first with {}", first.label()));
    }
    let admitted = drilled.measured.admitted.filter(|_| !is_closed);
    if let Some(admitted) = admitted.filter(|admitted| *admitted < NOT_ALL) {
        broken.push(format!(
            "only {admitted} % were admitted, although this fault should not matter"
        ));
    }
    if let Some(back) = drilled.back_after.filter(|back| *back > BACK) {
        broken.push(format!(
            "callers were admitted as before only {back} s after its return, not within {BACK} s"
        ));
    }
    match drilled.store.and_then(|store| store.found_after) {
        Some(after) if after <= BACK => {}
        Some(after) => broken
            .push(format!("it was found only {after} s after its return, not within {BACK} s")),
        None => broken.push("it was not found again after its return".to_owned()),
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::drill::{measured::Measured, report::StoreSeen};

    #[test]
    fn nothing_changes_unless_the_operator_wants_it() {
        let check =
            |on_error, admitted, [back, found]: [Option<f64>; 2], code: &str, expected: &[&str]| {
                let drilled = Drilled {
                    measured: Measured { admitted: Some(admitted), ..Measured::default() },
                    back_after: back,
                    store: Some(StoreSeen { tokens_leased: 1, found_after: found }),
                    ..Drilled::default()
                };
                let answer = Saw::Answer { status: 503, code: Some(code.to_owned()) };
                let saw = if code.is_empty() { Saw::Good } else { answer };
                let made = Made {
                    phase: Phase::Fault,
                    began: Instant::now(),
                    saw: Some(saw),
                    took: Duration::ZERO,
                    action: false,
                };
                assert_eq!(promises(on_error, &drilled, &[made]), expected);
            };
        let soon = [Some(0.3), Some(0.9)];
        check(OnStoreError::Share, 100.0, soon, "", &[]);
        check(OnStoreError::Closed, 0.0, soon, "limits_unavailable", &[]);
        let failed = "1 call failed because of a Redis, the first with 503 limits_unavailable";
        check(OnStoreError::Open, 100.0, soon, "limits_unavailable", &[failed]);
        let failed = "1 call failed because of a Redis, the first with 503 breaker_open";
        check(OnStoreError::Closed, 100.0, soon, "breaker_open", &[failed]);
        let few = "only 90 % were admitted, although this fault should not matter";
        check(OnStoreError::Share, 90.0, soon, "", &[few]);
        let back = "callers were admitted as before only 2.1 s after its return, not within 2 s";
        let found = "it was found only 3 s after its return, not within 2 s";
        check(OnStoreError::Share, 100.0, [Some(2.1), Some(3.0)], "", &[back, found]);
        let never = "it was not found again after its return";
        check(OnStoreError::Share, 100.0, [Some(0.0), None], "", &[never]);
    }
}
