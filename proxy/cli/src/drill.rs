//! `stagedoor drill`: breaks things around a private copy of the proxy, and reports what callers saw.

mod aims;
mod ask;
mod child;
mod copy;
mod fault;
mod flood;
mod http;
mod load;
mod measured;
mod names;
mod records;
mod redis;
mod report;
mod run;
mod stand_ins;
mod test_bed;
mod tokens;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum, value_parser};
use config::Config;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    task::JoinSet,
};

use self::{
    fault::Fault,
    report::{Report, Row},
    run::{Outcome, Pace},
};
use proxy::lifecycle::reload;

/// Start private copies of the proxy with your config, break what is around them, and report what callers
/// saw.
///
/// Everything outside is replaced by stand-ins on loopback: upstreams, issuers, called hosts, DNS. Nothing of
/// yours is contacted, listened on or written to. Exit code 3 if a promise was broken.
#[derive(Args)]
pub(super) struct Drill {
    /// The config file.
    #[arg(short, long, env = "STAGEDOOR_CONFIG")]
    config: PathBuf,
    /// Only these faults, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
    /// How long each fault lasts.
    #[arg(long = "for", default_value = "5s")]
    time: config::Duration,
    /// The rate of calls to each copy.
    #[arg(long, default_value = "50/s")]
    rate: config::Rate,
    /// Faults to drill at the same time, each with its own copy.
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u8).range(1..=16))]
    at_once: u8,
    /// Name each route and host that was not driven. Default: they are counted by reason.
    #[arg(long, conflicts_with = "json")]
    not_driven: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Keep the folder with the copies, their logs and their records.
    #[arg(long)]
    keep: bool,
}

/// A promise was broken.
const BROKEN: u8 = 3;
/// The exit code that shells use after SIGINT.
const INTERRUPTED: u8 = 130;
/// How long running tasks have to end.
const END: Duration = Duration::from_secs(5);

impl Drill {
    pub(super) fn run(self) -> ExitCode {
        certs::provider();
        let loaded = match reload::load(&self.config) {
            Ok(loaded) => loaded,
            Err(problems) => {
                problems.iter().for_each(|problem| crate::say::out(format_args!("{problem}")));
                return ExitCode::from(1);
            }
        };
        match self.drilled(loaded.config) {
            Ok(Some(report)) => {
                super::say::text(&match self.json {
                    true => report.json(),
                    false => report.text(self.not_driven),
                });
                let failed = u8::from(report.has_failed());
                ExitCode::from(if report.broken().is_empty() { failed } else { BROKEN })
            }
            Ok(None) => ExitCode::from(INTERRUPTED),
            Err(message) => {
                crate::say::err(format_args!("{message}"));
                ExitCode::from(2)
            }
        }
    }

    /// `None` if it was interrupted.
    fn drilled(&self, config: Config) -> Result<Option<Report>, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut folder =
            tempfile::Builder::new().prefix("stagedoor-drill-").tempdir().map_err(told)?;
        folder.disable_cleanup(self.keep);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(told)?;
        let report = runtime.block_on(async {
            let mut ends = signal(SignalKind::terminate()).map_err(told)?;
            tokio::select! {
                report = self.all(Arc::new(config), folder.path()) => Ok(Some(report)),
                _ = tokio::signal::ctrl_c() => Ok(None),
                _ = ends.recv() => Ok(None),
            }
        });
        // Ends every remaining copy; after that, nothing writes to the folder any more.
        runtime.shutdown_timeout(END);
        if self.keep {
            crate::say::err(format_args!("the copies are in `{}`", folder.path().display()));
        }
        report
    }

    async fn all(&self, config: Arc<Config>, folder: &Path) -> Report {
        let faults: Vec<Fault> = match self.only.is_empty() {
            true => Fault::value_variants().to_vec(),
            false => self.only.clone(),
        };
        let every = self.rate.interval();
        let pace = Pace { time: *self.time, every, rate: self.rate };
        let room = Arc::new(Semaphore::new(self.at_once.into()));
        let mut rows: Vec<Option<Row>> = faults.iter().map(|_| None).collect();
        let mut in_flight = JoinSet::new();
        for (index, fault) in faults.iter().copied().enumerate() {
            if let Some(why) = fault.cannot_be(&config) {
                rows[index] = Some(Row::not(fault, why));
                continue;
            }
            let (config, room) = (Arc::clone(&config), Arc::clone(&room));
            let folder = folder.join(index.to_string());
            in_flight.spawn(async move {
                let _place = room.acquire_owned().await;
                (index, fault, run::drill(fault, config, &folder, pace).await)
            });
        }
        let (config, time, folder) = (Arc::clone(&config), *self.time, folder.join("limits"));
        let flooded = self.only.is_empty().then(|| {
            let room = Arc::clone(&room);
            tokio::spawn(async move {
                let _place = room.acquire_owned().await;
                flood::drill(&config, &folder, time).await
            })
        });
        let mut report = Report {
            rows: Vec::new(),
            driven: 0,
            left: Vec::new(),
            notes: Vec::new(),
            limits: None,
        };
        let mut notes: Vec<Vec<String>> = vec![Vec::new(); faults.len()];
        while let Some(ended) = in_flight.join_next().await {
            let Ok((index, fault, result)) = ended else { continue };
            rows[index] = Some(match result {
                Ok(outcome) => {
                    let Outcome { row, driven, left, .. } = outcome;
                    if driven >= report.driven {
                        (report.driven, report.left) = (driven, left);
                    }
                    notes[index] = outcome.notes;
                    row
                }
                Err(why) => Row::failed(fault, why),
            });
        }
        if let Some(flooded) = flooded {
            let ended = || Err("it ended by itself".to_owned());
            report.limits = Some(flooded.await.unwrap_or_else(|_| ended()));
        }
        let all = rows.into_iter().zip(faults);
        let ended = |(row, fault): (Option<Row>, Fault)| {
            row.unwrap_or_else(|| Row::failed(fault, "it ended by itself".to_owned()))
        };
        report.rows = all.map(ended).collect();
        // Most are the same for each copy.
        for note in notes.into_iter().flatten() {
            if !report.notes.contains(&note) {
                report.notes.push(note);
            }
        }
        report
    }
}
