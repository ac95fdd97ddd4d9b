//! Whether a read that failed is asked again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks an upstream again for a read (GET, HEAD or OPTIONS of class `read`) that failed: no connection
/// came about or it broke before the answer, or the status is 502, 503 or 504. Actions are never
/// asked twice.
///
/// The waits between attempts are random, up to 100 ms, then 200 ms and so on to 2 s, or what
/// `Retry-After` says; all attempts together take at most 10 s and the exchange's `whole` timeout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Attempts in all, the first among them. 1 asks once.
    pub attempts_max: u32,
    /// Attempts beyond the first that are allowed, in percent of the requests to the upstream; three
    /// a second are always. So an upstream that is sick does not get a multiple of its load.
    pub budget_percent: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts_max: 3, budget_percent: 20 }
    }
}
