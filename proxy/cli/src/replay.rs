//! `stagedoor replay`: what another config would have decided about recorded requests.

mod tally;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use filters::{Policy, replay::record::Record};

use self::tally::Tally;
use super::lines;
use proxy::{lifecycle::reload, observability::audit::read::Line};

/// Decide recorded requests again with another config, and show which decisions would differ.
///
/// Callers are taken from the records: their tokens are not verified again. Rate limits, breakers, paces and
/// idempotency keys are left out, because they depend on earlier traffic. What the records do not contain is
/// counted with the reason, and never guessed. Exit code 3 if something that `--fail-on` names is found.
#[derive(Args)]
pub(super) struct Replay {
    /// Files of audit records; a folder means all of its segments.
    #[arg(long, required = true, num_args = 1..)]
    audit: Vec<PathBuf>,
    /// The config to try.
    #[arg(long, value_name = "FILE")]
    candidate: PathBuf,
    /// Only records from this time on, in UTC: `2026-11-24`, `2026-11-24T12:00`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Only records before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Exit with an error if any of these are found.
    #[arg(long, value_delimiter = ',')]
    fail_on: Vec<FailOn>,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// A refused request would pass.
    NewAllows,
    /// A request that passed would be refused.
    NewDenies,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Replay {
    pub(super) fn run(self) -> ExitCode {
        match self.replayed() {
            Ok(code) => code,
            Err(message) => {
                crate::say::err(format_args!("{message}"));
                ExitCode::from(2)
            }
        }
    }

    fn replayed(self) -> Result<ExitCode, String> {
        let loaded = reload::load(&self.candidate).map_err(|problems| problems.to_string())?;
        let digest = reload::digest(&loaded);
        let mut replay = filters::Replay::new(Policy::new(&loaded.config, &digest));
        let mut tally = Tally::default();
        let files = lines::each(&self.audit, |line| {
            // A line without an end is torn, even if it happens to be whole.
            let record = match line {
                Line::Whole(line) => Record::read(line),
                Line::TooLong | Line::Torn(_) => None,
            };
            let Some(record) = record else {
                tally.unreadable += 1;
                return;
            };
            if self.is_asked_for(&record.time) {
                let decided = replay.decide(&record);
                tally.take(&record, decided);
            }
        })?;
        let told = match self.output {
            Output::Table => tally.table(&self.candidate, &digest, files),
            Output::Json => tally.json(&digest, files),
        };
        crate::say::text(&told);
        let fails = self.fail_on.iter().any(|on| match on {
            FailOn::NewAllows => tally.new_allows.total > 0,
            FailOn::NewDenies => tally.new_denies.total > 0,
        });
        Ok(ExitCode::from(if fails { 3 } else { 0 }))
    }

    fn is_asked_for(&self, time: &str) -> bool {
        // Times of records are all written alike, so their texts are in the order of time.
        self.since.as_deref().is_none_or(|since| time >= since)
            && self.until.as_deref().is_none_or(|until| time < until)
    }
}

/// The beginning of a time as records have it.
fn time(text: &str) -> Result<String, String> {
    let shape = b"0000-00-00T00:00:00.000000";
    let text = text.strip_suffix('Z').unwrap_or(text);
    let fits = (10..=shape.len()).contains(&text.len())
        && text.bytes().zip(shape).all(|(b, shape)| match shape {
            b'0' => b.is_ascii_digit(),
            other => b == *other,
        });
    if fits { Ok(text.to_owned()) } else { Err("write `2026-11-24` or `2026-11-24T12:00`".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_beginning_of_one() {
        let check = |text: &str, fits: bool| assert_eq!(time(text).is_ok(), fits, "{text}");
        check("2026-11-24", true);
        check("2026-11-24T12", true);
        check("2026-11-24T12:00:00Z", true);
        check("2026-11-24T12:00:00.000001Z", true);
        check("yesterday", false);
        check("2026", false);
        check("2026-11-24 12:00", false);
        check("2026-11-24T12:00:00+01:00", false);
    }
}
