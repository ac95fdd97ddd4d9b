//! How much each workspace, plugin, caller and client may ask for.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Rate;

/// A rate with the burst that passes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Requests over a longer time, for example `100/m`. Refused requests get 429 `rate_limited`
    /// with `Retry-After`.
    pub rate: Rate,
    /// Requests that may come at once before the rate holds. Default: a tenth of the rate's count,
    /// at least 1.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
}

impl Limit {
    /// The burst, with its default filled in.
    pub fn burst(self) -> NonZeroU32 {
        let tenth = NonZeroU32::new(self.rate.count.get() / 10).unwrap_or(NonZeroU32::MIN);
        self.burst.unwrap_or(tenth)
    }
}

/// The limits every request counts against. Each level may only tighten: a request must fit all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// What each workspace may ask for, all its callers together. A workspace over its limit does
    /// not slow another one. Requests without a workspace are counted per caller at this rate.
    pub each_workspace: Limit,
    /// What each caller may ask for, whatever the workspace. Default: no limit of its own.
    pub each_caller: Option<Limit>,
    /// What each client address (an IPv6 client counts by its /64) may ask for on public routes
    /// and with tokens that do not verify, so that a stranger cannot make Stagedoor verify
    /// signatures all day. Default: 600/m with a burst of 200.
    pub each_client: Limit,
}

impl Default for RateLimit {
    fn default() -> Self {
        let limit = |count: u32, burst: u32| Limit {
            rate: Rate {
                count: NonZeroU32::new(count).expect("a default rate is not zero"),
                per: std::time::Duration::from_secs(60),
            },
            burst: NonZeroU32::new(burst),
        };
        Self { each_workspace: limit(100, 10), each_caller: None, each_client: limit(600, 200) }
    }
}
