//! Floods each configured limit, with other callers alongside.

use std::{
    collections::HashSet,
    fmt::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use config::Config;
use http::HeaderMap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    aims::{self, Aim},
    ask::{Call, Client, Saw},
    copy::Counting,
    run,
};

/// What floods met.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) met: Vec<FloodResult>,
    /// The promises that were broken.
    pub(super) broken: Vec<String>,
}

/// What a flood met.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct FloodResult {
    /// What the limit is of.
    pub(super) share: String,
    /// The target.
    pub(super) of: String,
    /// How many passed until one did not.
    pub(super) passed: usize,
    /// `RateLimit-Policy` of the refusal, if there was one and it can be seen.
    pub(super) policy: Option<String>,
    pub(super) refused: bool,
    /// `Retry-After` of the refusal, in seconds.
    pub(super) retry_after: Option<u64>,
    /// Whether a caller was admitted after waiting for that time.
    pub(super) admitted_again: Option<bool>,
}

/// The number of concurrent calls.
const SIDE_BY_SIDE: usize = 16;
/// The maximum of calls in one flood, because each call is recorded.
const CALLS_MAX: usize = 20_000;
/// A longer `Retry-After` is not waited for.
const PATIENCE: u64 = 3;
/// All headers of a refusal (`draft-ietf-httpapi-ratelimit-headers`, and the older ones).
const HEADERS: [&str; 6] = [
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// Floods one aim of each share for at most `time`, one after the other.
pub(super) async fn drill(
    written: &Config,
    folder: &Path,
    time: Duration,
) -> Result<Limits, String> {
    let test_bed = run::start(written, folder, || Counting::AsWritten).await?;
    let (mint, name) = (Arc::clone(&test_bed.mint), test_bed.certificate());
    let client = Arc::new(Client::new(&test_bed.authority, name, mint, false)?);
    let (all, _) = aims::all(&test_bed.copy.config, &test_bed.mint);
    let mut shares = HashSet::new();
    let mut floods = Vec::new();
    for aim in all {
        if shares.contains(&aim.share) {
            continue;
        }
        if let Some(call) = admitted(&client, &aim).await {
            shares.insert(aim.share.clone());
            floods.push((aim, call));
        }
    }
    let mut limits = Limits::default();
    // With a limit for each caller, what it uses up anywhere is missing everywhere.
    let apart = written.rate_limit.per_caller.is_none();
    for (index, (aim, call)) in floods.iter().enumerate() {
        let (met, whole) = flood(&client, aim, call, time).await;
        if met.refused && !whole {
            limits.broken.push(format!("a refusal by {} is missing headers", met.share));
        }
        if met.admitted_again == Some(false) {
            let share = &met.share;
            limits.broken.push(format!("{share}: `Retry-After` was too short"));
        }
        // The next has not been flooded yet.
        if let Some((other, call)) = floods.get(index + 1).filter(|_| apart && met.refused)
            && is_limited(&client.make(call).await)
        {
            let (met, other) = (&met.share, &other.share);
            limits.broken.push(format!("a flood against {met} cost {other} a call"));
        }
        limits.met.push(met);
    }
    let drilled = run::ended(test_bed, &client).await?;
    limits.broken.extend(drilled.broken);
    limits.broken.extend(drilled.records_wrong);
    if drilled.records_lost > drilled.records_lost_told {
        limits.broken.push(format!("{} exchanges are not on record", drilled.records_lost));
    }
    Ok(limits)
}

/// The first way that is admitted.
async fn admitted(client: &Client, aim: &Aim) -> Option<Call> {
    for way in &aim.ways {
        if client.make(way).await == Saw::Good {
            return Some(way.clone());
        }
    }
    None
}

/// Calls until there is a refusal; returns the result, and whether the refusal is complete.
async fn flood(
    client: &Arc<Client>,
    aim: &Aim,
    call: &Call,
    time: Duration,
) -> (FloodResult, bool) {
    let (over, passed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let refusal = Arc::<Mutex<Option<HeaderMap>>>::default();
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..SIDE_BY_SIDE {
        let (client, call) = (Arc::clone(client), call.clone());
        let (over, passed, refusal) =
            (Arc::clone(&over), Arc::clone(&passed), Arc::clone(&refusal));
        all.spawn(async move {
            while !over.load(Ordering::Relaxed) && began.elapsed() < time {
                let (saw, headers) = client.told(&call).await;
                if is_limited(&saw) {
                    over.store(true, Ordering::Relaxed);
                    refusal.lock().get_or_insert(headers);
                } else if passed.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX {
                    over.store(true, Ordering::Relaxed);
                }
            }
        });
    }
    all.join_all().await;
    let refusal = refusal.lock().take();
    let text = |name: &str| Some(refusal.as_ref()?.get(name)?.to_str().ok()?.to_owned());
    let retry_after = text("retry-after").and_then(|text| text.parse().ok());
    let mut admitted_again = None;
    if let Some(seconds) = retry_after.filter(|seconds| *seconds <= PATIENCE) {
        sleep(Duration::from_secs(seconds)).await;
        admitted_again = Some(!is_limited(&client.make(call).await));
    }
    // A forward listener's response is not fully visible.
    let seen = matches!(call, Call::Request { .. });
    let whole = !seen || HEADERS.iter().all(|name| text(name).is_some());
    let met = FloodResult {
        share: aim.share.clone(),
        of: aim.of.clone(),
        passed: passed.load(Ordering::Relaxed),
        policy: text("ratelimit-policy"),
        refused: refusal.is_some(),
        retry_after,
        admitted_again,
    };
    (met, whole)
}

fn is_limited(saw: &Saw) -> bool {
    matches!(saw, Saw::Answer { code: Some(code), .. } if code == "rate_limited")
}

impl Limits {
    /// A line for each.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("\nlimits as written, flooded one after the other:\n");
        for met in &self.met {
            let FloodResult { share, of, passed, .. } = met;
            let _ = match &met.policy {
                _ if !met.refused => {
                    writeln!(
                        text,
                        "  {share}: {passed} passed in the time, and none was refused ({of})"
                    )
                }
                policy => {
                    let policy = policy.as_deref().unwrap_or("its policy is not seen");
                    let wait = met.retry_after.map(|s| format!(", again after {s} s"));
                    let wait = wait.unwrap_or_default();
                    writeln!(text, "  {share}: {passed} passed, then 429{wait}: {policy} ({of})")
                }
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reports_what_passed_and_what_a_refusal_says() {
        let met = |refused: bool| FloodResult {
            share: "bucket `pages` of workspaces".to_owned(),
            of: "route a on edge".to_owned(),
            passed: 301,
            policy: refused.then(|| "\"workspace-pages\";q=1800;w=60".to_owned()),
            refused,
            retry_after: refused.then_some(1),
            admitted_again: refused.then_some(true),
        };
        let limits = Limits { met: vec![met(true), met(false)], broken: Vec::new() };
        let expected = "
limits as written, flooded one after the other:
  bucket `pages` of workspaces: 301 passed, then 429, again after 1 s: \"workspace-pages\";q=1800;w=60 (route a on edge)
  bucket `pages` of workspaces: 301 passed in the time, and none was refused (route a on edge)
";
        assert_eq!(limits.text(), expected);
    }
}
