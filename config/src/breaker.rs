//! When an upstream is left alone for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// A circuit breaker, which stops requests to an upstream after repeated failures. There is one for each
/// upstream; one for each plugin if several plugins share an upstream; one for the `hosts` of its routes if
/// they differ and `preserve_host` is set; and one for each value of a route's `breaker_by`. While it is
/// open, requests get 503 `breaker_open` with `Retry-After`.
///
/// A failure is a refused or broken connection, a timeout, or a 5xx status that `ignore` does not exclude. A
/// response does not count as a failure if its `Proxy-Status` (RFC 9209) says that a gateway on the way
/// generated it (another Stagedoor, for example), because that gateway has its own breaker for what is behind
/// it. A slow client is no failure either.
///
/// If it is open because the upstream does not respond, Stagedoor probes the upstream every second, with its
/// `health_check` or else with a connection; as soon as the upstream is up, requests pass again, even if
/// `open_duration` is not over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// The time over which exchanges are counted.
    pub window: Duration,
    /// Exchanges that must have ended within `window` before the breaker may open.
    pub requests_min: u32,
    /// The share of failures, in percent, at which it opens.
    pub failure_percent: u8,
    /// How long it stays open at most, and exactly that long if the upstream responds with failures. If the
    /// upstream recovered less than a minute ago, it stays open for 1s, because the upstream may still be
    /// starting.
    pub open_duration: Duration,
    /// Concurrent requests let through after that (half-open). One failure opens it again, this many
    /// successes close it.
    pub half_open_requests: u32,
    /// 5xx responses that do not count as failures.
    pub ignore: Vec<IgnoredFailure>,
}

/// A response that does not count as a failure of the upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IgnoredFailure {
    /// The status, 500 to 599.
    pub status: u16,
    /// Only if the response's `Content-Type` begins with this, for example `application/json`: then it comes
    /// from the upstream itself and not from something in front of it.
    #[serde(default)]
    pub content_type: Option<String>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            requests_min: 5,
            failure_percent: 60,
            open_duration: Duration::from_secs(30),
            half_open_requests: 3,
            ignore: Vec::new(),
        }
    }
}
