//! The state of a control source: its last response, when, and the last requests.

use std::time::Duration;

use config::{ControlDocument, Loaded};
use filters::Now;

/// The state of the source.
#[derive(Default)]
pub(super) struct SourceStatus {
    pub(super) held: Option<StoredResponse>,
    /// When it was last polled.
    pub(super) asked: Option<Duration>,
    /// Since when it is waited for.
    pub(super) awaited: Duration,
    pub(super) failures: u32,
    pub(super) failing: Option<String>,
    pub(super) stale_told: bool,
}

/// The last good response.
#[derive(Clone)]
pub(super) struct StoredResponse {
    pub(super) of: config::Control,
    pub(super) answer: ControlDocument,
    pub(super) etag: Option<String>,
    pub(super) confirmed: Confirmed,
}

/// When the source last confirmed it.
#[derive(Clone, Copy)]
pub(super) struct Confirmed {
    pub(super) at: Now,
    /// How long ago that was already, `at` then.
    pub(super) before: Duration,
}

impl SourceStatus {
    pub(super) fn held_of(&self, files: &Loaded) -> Option<&StoredResponse> {
        let control = files.config.control.as_ref()?;
        self.held.as_ref().filter(|held| held.of.is_same_source(control))
    }

    /// The response for these files; not one for another list of plugins, or stored elsewhere.
    pub(super) fn answer_to(&self, files: &Loaded) -> Option<&StoredResponse> {
        let control = files.config.control.as_ref()?;
        self.held_of(files).filter(|held| {
            (&held.of.plugins, &held.of.cache_file) == (&control.plugins, &control.cache_file)
        })
    }

    pub(super) fn is_stale(&self, control: &config::Control, now: Now) -> bool {
        let held = self.held.as_ref().filter(|held| held.of.is_same_source(control));
        let age = held.map_or(now.elapsed.saturating_sub(self.awaited), |h| h.confirmed.age(now));
        age > *control.stale_after
    }

    pub(super) fn went_well(&mut self) {
        if self.failing.take().is_some() || self.stale_told {
            tracing::info!("the control source responds again");
        }
        (self.failures, self.stale_told) = (0, false);
    }

    /// What is in force without a response.
    pub(super) fn then(&self, files: &Loaded) -> &'static str {
        match self.held_of(files) {
            Some(_) => "its last good response stays in force",
            None if files.config.control.as_ref().is_some_and(keeps_plugins_off) => {
                "the plugins that it decides about are off until it responds"
            }
            None => "only the files are in force until it responds",
        }
    }
}

fn keeps_plugins_off(control: &config::Located<config::Control>) -> bool {
    control.before_first_response == config::BeforeFirstResponse::PluginsOff
}

impl Confirmed {
    pub(super) fn age(self, now: Now) -> Duration {
        self.before + now.elapsed.saturating_sub(self.at.elapsed)
    }

    pub(super) fn unix_seconds(self) -> u64 {
        self.at.unix.saturating_sub(self.before).as_secs()
    }
}
