//! Time as an argument, so that no decision reads a clock.

use std::time::Duration;

/// The time of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since the process started. Never goes backwards.
    pub elapsed: Duration,
    /// Time since 1970-01-01 UTC, by the wall clock.
    pub unix: Duration,
}

impl Now {
    /// Whole seconds since 1970-01-01 UTC.
    pub fn unix_seconds(self) -> u64 {
        self.unix.as_secs()
    }

    /// The moment `later` from now.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self { elapsed: self.elapsed + later, unix: self.unix + later }
    }
}
