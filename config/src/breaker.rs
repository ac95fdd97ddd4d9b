//! When an upstream is left alone for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Leaves an upstream alone after repeated failures. Counted for each upstream; for each plugin
/// where several plugins share one; for the `hosts` of its routes where they differ and
/// `preserve_host` is set; and for each value of a route's `breaker_by`. While it is open, requests get
/// 503 `breaker_open` with `Retry-After`.
///
/// A failure is a refused or broken connection, a timeout, or a 5xx status that `ignore` does not
/// excuse. It is none if the answer says by `Proxy-Status` (RFC 9209) that a gateway on the way made it
/// (another Stagedoor, for example): what is behind that gateway has a breaker there. Nor is it one if the
/// client was slow.
///
/// If it is open because nothing answers, the upstream is looked for every second, by its `health_check`
/// or else by a connection; once it is there, requests pass again, whatever is left of `rest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// The time that is looked at.
    pub window: Duration,
    /// Exchanges that must have ended within `window` before the breaker may open.
    pub requests_min: u32,
    /// Share of failures, in percent, at which it opens.
    pub failure_percent: u8,
    /// How long it stays open at the longest, and for all of that if the upstream answers badly. One that
    /// came back less than a minute ago is given 1s, as it may be starting.
    pub rest: Duration,
    /// Requests let through at once after the rest; one failure opens it again, this many
    /// successes close it.
    pub probes: u32,
    /// Answers that are no failure although their status is 5xx.
    pub ignore: Vec<IgnoredFailure>,
}

/// An answer that does not count as a failure of the upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IgnoredFailure {
    /// The status, 500 to 599.
    pub status: u16,
    /// Only if the answer's `Content-Type` begins with this, for example `application/json`:
    /// the upstream itself spoke, not something in front of it.
    #[serde(default)]
    pub content_type: Option<String>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            requests_min: 5,
            failure_percent: 60,
            rest: Duration::from_secs(30),
            probes: 3,
            ignore: Vec::new(),
        }
    }
}
