//! The delivery status of a sink, for operators.

use std::sync::atomic::{AtomicU64, Ordering};

use config::{Name, ShipKind};
use parking_lot::Mutex;

use super::cursor::Cursor;

/// The status that a sink's task reports.
pub struct DeliveryStatus {
    pub name: Name,
    pub kind: ShipKind,
    /// Records that it has accepted.
    pub shipped: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Records that it refused.
    pub refused: AtomicU64,
    /// Segments that were removed before they were shipped.
    pub lost_segments: AtomicU64,
    now: Mutex<Now>,
}

/// How it is at the moment.
#[derive(Clone, Default)]
pub struct Now {
    /// Whether another process ships there.
    pub elsewhere: bool,
    /// The position after the last line that it has accepted: the segment and the byte.
    pub cursor: Option<(String, u64)>,
    /// Since when it fails, in seconds since 1970, and why.
    pub failing: Option<(u64, String)>,
    /// When the oldest record was written that it does not have, in seconds since 1970.
    pub oldest: Option<u64>,
}

impl DeliveryStatus {
    pub(super) fn new(name: Name, kind: ShipKind) -> Self {
        let (shipped, failures, refused, lost_segments, now) = Default::default();
        Self { name, kind, shipped, failures, refused, lost_segments, now }
    }

    /// How it is at the moment.
    pub fn now(&self) -> Now {
        self.now.lock().clone()
    }

    pub(super) fn elsewhere(&self, is_so: bool) {
        self.now.lock().elsewhere = is_so;
    }

    pub(super) fn at(&self, cursor: &Cursor) {
        self.now.lock().cursor = Some((cursor.segment.clone(), cursor.mark.byte));
    }

    pub(super) fn oldest(&self, seconds: Option<u64>) {
        self.now.lock().oldest = seconds;
    }

    pub(super) fn works(&self) {
        if self.now.lock().failing.take().is_some() {
            tracing::info!(sink = %self.name, "audit records are being shipped again");
        }
    }

    pub(super) fn fails(&self, unix_seconds: u64, cause: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut now = self.now.lock();
        let since = now.failing.as_ref().map_or(unix_seconds, |(since, _)| *since);
        if now.failing.as_ref().is_none_or(|(_, last)| last != cause) {
            tracing::warn!(sink = %self.name, cause, "audit records cannot be shipped; they wait in the folder");
        }
        now.failing = Some((since, cause.to_owned()));
    }
}
