//! How fast an upstream may be asked, so that its own quota is never overdrawn.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Limit, Rate};

/// How fast requests may go to an upstream, from all callers together.
///
/// A poller that is refused may conclude that what it polls is gone; one that waits gets its response. When
/// the upstream itself says that its quota is spent (429 or 403 with `Retry-After`, or with
/// `X-RateLimit-Remaining: 0` and `X-RateLimit-Reset`), nothing more is sent until then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// A rate somewhat below its quota: `4500/h` if it grants 5000.
    pub rate: Rate,
    /// Requests that may go out together before the pace applies. Default: a tenth of the rate's count, at
    /// least 1.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
    /// How long a request may wait for its turn. One that would wait longer gets 429 `pace_exceeded`
    /// immediately, with `Retry-After`. It must be shorter than the `total` timeout of each of its routes.
    #[serde(default = "ten_seconds")]
    pub wait_max: Duration,
}

impl Pace {
    /// The rate with its burst.
    pub fn limit(self) -> Limit {
        Limit { rate: self.rate, burst: self.burst }
    }
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}
