//! The one place that reads clocks.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use filters::Now;

static START: OnceLock<Instant> = OnceLock::new();

/// The present moment.
pub fn now() -> Now {
    let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Now { elapsed: elapsed(), unix }
}

/// Time since the process started: one clock instead of two, where the other is not needed.
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}
