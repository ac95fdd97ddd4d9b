//! The control source: polled regularly; its last good response stays in force while it is unreachable.

mod follow;
mod last_good;
mod request;
mod schedule;
mod status;

use std::{sync::Arc, time::Duration};

use config::{ControlDocument, Loaded};
use filters::guard::Guard;
use parking_lot::Mutex;

use self::status::{Confirmed, SourceStatus, StoredResponse};
use crate::{
    clock,
    net::{dial::Dial, parent::Parents},
    observability::metrics::Metrics,
};

/// The state of the control source: its last response and the last requests.
pub struct Control {
    metrics: Arc<Metrics>,
    known: Mutex<SourceStatus>,
    /// Notified when the config in force may have another source, or another interval.
    pub changed: tokio::sync::Notify,
}

/// A response that fits the files.
pub struct ControlAnswer {
    held: StoredResponse,
    /// The files with it.
    pub loaded: Loaded,
}

/// Why there is no new response.
pub struct Failure {
    /// One sentence for each thing that is wrong.
    pub messages: Vec<String>,
    /// Whether there was a response, and it was invalid.
    pub refused: bool,
    /// Whether the failure differs from the last.
    pub is_news: bool,
}

/// The status of a control source, for operators.
pub struct ControlStatus {
    /// Its URL.
    pub url: String,
    /// The format of its responses.
    pub format: &'static str,
    /// The `ETag` of its last good response.
    pub etag: Option<String>,
    /// Whether a response is in force.
    pub answered: bool,
    /// When it confirmed that, in seconds since 1970.
    pub confirmed: Option<u64>,
    /// How long ago that was.
    pub age: Option<Duration>,
    /// Whether that is too long ago.
    pub stale: bool,
    /// Why the last request failed, if it did.
    pub failing: Option<String>,
}

impl Control {
    /// An empty state.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let known = SourceStatus { awaited: clock::elapsed(), ..SourceStatus::default() };
        Self { metrics, known: Mutex::new(known), changed: tokio::sync::Notify::new() }
    }

    /// The config at the start: with the source's response now, or the stored one, or without one. Returns
    /// the problems as well.
    pub fn begin(&self, files: &Loaded) -> (Loaded, Vec<String>) {
        let mut messages = Vec::new();
        let Some(control) = files.config.control.as_ref() else {
            return (files.clone(), messages);
        };
        let mut begun = None;
        match control.cache_file.as_ref().map(|file| last_good::read(file, control)) {
            Some(Ok(Some(held))) => match self.said(files, held) {
                Ok(said) => {
                    self.known.lock().held = Some(said.held);
                    begun = Some(said.loaded);
                }
                Err(problems) => messages.extend(problems),
            },
            Some(Err(cause)) => messages.push(cause),
            Some(Ok(None)) | None => {}
        }
        // Its own resolver, because that ends with this runtime.
        let dial = Dial::asking(&files.config.process.name_servers);
        let asked = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a thread can have a runtime").block_on(async {
                    let said = self.ask(files, &dial).await?;
                    let Some(said) = said else { return Ok((None, Vec::new())) };
                    let loaded = said.loaded.clone();
                    Ok((Some(loaded), self.hold(said).await))
                })
            });
            asked.join().expect("asking does not panic")
        });
        match asked {
            Ok((fresh, told)) => {
                begun = fresh.or(begun);
                messages.extend(told);
            }
            Err(Failure { messages: told, .. }) => messages.extend(told),
        }
        (begun.unwrap_or_else(|| files.unanswered()), messages)
    }

    /// The files with the last good response of their source, or without one.
    ///
    /// # Errors
    /// Everything that is wrong with both together.
    pub fn last(&self, files: &Loaded) -> Result<Loaded, Vec<String>> {
        let held = self.known.lock().held_of(files).cloned();
        held.map_or_else(|| Ok(files.unanswered()), |held| Ok(self.said(files, held)?.loaded))
    }

    /// Whether there is a response of the source of these files.
    pub fn has_answer(&self, files: &Loaded) -> bool {
        self.known.lock().answer_to(files).is_some()
    }

    /// Polls the source of these files, if they have one. `None` if its response is unchanged.
    ///
    /// # Errors
    /// Why there is no response, or none that can be used.
    pub async fn ask(&self, files: &Loaded, dial: &Dial) -> Result<Option<ControlAnswer>, Failure> {
        let Some(control) = files.config.control.as_ref() else { return Ok(None) };
        let etag = self.known.lock().answer_to(files).and_then(|held| held.etag.clone());
        let guard = Arc::new(Guard::new(&files.config.egress));
        // The parent proxies of the files that name the source, which may not be in force yet.
        let asked = match Parents::of(&files.config) {
            Ok(parents) => {
                let dial = dial.through(Arc::new(parents));
                request::ask(control, etag.as_deref(), &dial, &guard).await
            }
            Err(cause) => Err(cause),
        };
        let now = clock::now();
        let confirmed = Confirmed { at: now, before: Duration::ZERO };
        self.known.lock().asked = Some(now.elapsed);
        match asked {
            Ok(None) => {
                self.metrics.control_fetched("unchanged");
                let mut known = self.known.lock();
                if let Some(held) = &mut known.held {
                    held.confirmed = confirmed;
                }
                known.went_well();
                Ok(None)
            }
            Ok(Some((body, etag))) => {
                let read =
                    ControlDocument::read(control, &body).map_err(|problems| lines(&problems));
                let said = read.and_then(|answer| {
                    let of = control.value.clone();
                    self.said(files, StoredResponse { of, answer, etag, confirmed })
                });
                said.map(Some).map_err(|problems| self.refuse(problems))
            }
            Err(cause) => {
                self.metrics.control_fetched("error");
                let then = self.known.lock().then(files);
                Err(self.failed(vec![format!("control: {cause}; {then}")], false))
            }
        }
    }

    fn said(&self, files: &Loaded, held: StoredResponse) -> Result<ControlAnswer, Vec<String>> {
        let loaded = files.with(&held.answer).map_err(|problems| lines(&problems))?;
        Ok(ControlAnswer { held, loaded })
    }

    /// Makes a response the last good one, once it is in force. Returns the problems in storing it.
    pub async fn hold(&self, said: ControlAnswer) -> Vec<String> {
        self.metrics.control_fetched("ok");
        let keeps = {
            let mut known = self.known.lock();
            let last = known.held.replace(said.held.clone());
            known.went_well();
            let as_it_was = |last: StoredResponse| {
                (last.answer, last.etag) == (said.held.answer.clone(), said.held.etag.clone())
                    && last.of == said.held.of
            };
            !last.is_some_and(as_it_was)
        };
        let Some(file) = said.held.of.cache_file.clone().filter(|_| keeps) else {
            return Vec::new();
        };
        let kept = tokio::task::spawn_blocking(move || last_good::write(&file, &said.held)).await;
        match kept.expect("keeping does not panic") {
            Ok(()) => Vec::new(),
            Err(error) => {
                tracing::error!(%error, "the control source's response is in force, but cannot be kept");
                vec![format!("control: {error}; the response is in force, but not kept")]
            }
        }
    }

    /// A response was invalid, or could not be applied.
    pub fn refuse(&self, problems: Vec<String>) -> Failure {
        self.metrics.control_fetched("refused");
        let problems = problems.into_iter().map(|problem| format!("control: {problem}"));
        self.failed(problems.collect(), true)
    }

    fn failed(&self, messages: Vec<String>, refused: bool) -> Failure {
        let mut known = self.known.lock();
        known.failures = known.failures.saturating_add(1);
        let cause = messages.join("\n");
        let is_news = known.failing.as_ref() != Some(&cause);
        if is_news && refused {
            tracing::error!(problems = ?messages, "the control source's response changes nothing");
        } else if is_news {
            tracing::warn!(cause, "the control source does not respond");
        }
        known.failing = Some(cause);
        Failure { messages, refused, is_news }
    }

    /// These files are in force: a response of another source no longer counts.
    pub fn forget_others(&self, files: &Loaded) {
        let mut known = self.known.lock();
        if known.held_of(files).is_none() && known.held.take().is_some() {
            (known.awaited, known.stale_told) = (clock::elapsed(), false);
        }
        if files.config.control.is_none() {
            *known = SourceStatus { awaited: clock::elapsed(), ..SourceStatus::default() };
        }
    }

    /// How long to wait before the next poll. Logs if the source has been unreachable for too long.
    pub fn wait(&self, control: &config::Control) -> Duration {
        let now = clock::now();
        let mut known = self.known.lock();
        if known.is_stale(control, now) && !known.stale_told {
            known.stale_told = true;
            tracing::warn!(
                url = %*control.url,
                stale_after = %control.stale_after,
                "the control source has not confirmed the state in force for a long time"
            );
        }
        let pace = schedule::pace(*control.interval, known.failures, schedule::random());
        let due = known.asked.map_or(Duration::ZERO, |asked| asked + pace);
        due.saturating_sub(now.elapsed)
    }

    /// The status of the source of these files, for operators.
    pub fn facts(&self, files: &Loaded) -> Option<ControlStatus> {
        let control = files.config.control.as_ref()?;
        let now = clock::now();
        let known = self.known.lock();
        let held = known.held_of(files);
        Some(ControlStatus {
            url: control.url.to_string(),
            format: control.format.name(),
            etag: held.and_then(|held| held.etag.clone()),
            answered: held.is_some(),
            confirmed: held.map(|held| held.confirmed.unix_seconds()),
            age: held.map(|held| held.confirmed.age(now)),
            stale: known.is_stale(control, now),
            failing: known.failing.clone(),
        })
    }
}

fn lines(problems: &config::Problems) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}
