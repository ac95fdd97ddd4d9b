//! What is answered when the upstream cannot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Size};

/// Keeps the last good response (200) to each GET, for each caller in each workspace, and serves it stale
/// when the upstream fails or its breaker is open, with `Age` and `Cache-Status`. All checks still apply.
/// Responses that say `no-store`, `no-cache` or `must-revalidate`, set a cookie, are partial or have no body
/// are not kept. A reload drops what was kept. Never for `authority: delivery`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// How long a kept response may be served.
    #[serde(default = "five_minutes")]
    pub ttl: Duration,
    /// A larger response is not kept. All kept responses together take at most `process.fallback_memory`.
    #[serde(default = "one_mebibyte")]
    pub bytes_max: Size,
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn one_mebibyte() -> Size {
    Size::mebibytes(1)
}
