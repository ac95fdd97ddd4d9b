//! The one place that reads clocks.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime},
};

use filters::Now;

/// The present moment.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    Now {
        elapsed: START.get_or_init(Instant::now).elapsed(),
        unix: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
    }
}
