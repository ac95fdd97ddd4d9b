//! What is answered when the upstream cannot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Size};

/// Keeps the last good answer (200) to each GET, for each caller in each workspace, and gives it
/// again when the upstream fails or its breaker is open: then with `Age` and `Cache-Status`. All checks
/// are passed as ever. What says `no-store`, `no-cache` or `must-revalidate`, sets a cookie or is part of
/// a whole is not kept, nor what is empty. A reload forgets what was kept. Never for `authority: delivery`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// How long an answer may be given instead of a new one.
    #[serde(default = "five_minutes")]
    pub ttl: Duration,
    /// A larger answer is not kept. All that is kept takes `process.fallback_memory` at most.
    #[serde(default = "one_mebibyte")]
    pub bytes_max: Size,
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn one_mebibyte() -> Size {
    Size::mebibytes(1)
}
