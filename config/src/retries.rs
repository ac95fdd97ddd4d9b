//! Whether a read that failed is asked again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Retries a failed read (GET, HEAD or OPTIONS of class `read`): the connection failed or broke before the
/// response, or the status is 502, 503 or 504. Actions are never retried.
///
/// The waits between attempts are random, up to 100 ms, then 200 ms and so on to 2 s, or as long as
/// `Retry-After` says; all attempts together take at most 10 s, and at most the exchange's `total` timeout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Attempts in total, including the first. 1 disables retries.
    pub attempts_max: u32,
    /// Retries allowed, in percent of the requests to the upstream; three a second are always allowed. This
    /// keeps retries from multiplying the load on a failing upstream.
    pub budget_percent: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts_max: 3, budget_percent: 20 }
    }
}
