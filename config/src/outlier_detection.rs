//! When one address of an upstream is left alone for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Takes one address of an upstream out after consecutive failures: failed connections, timeouts, and
/// whatever its `breaker` counts as a failure. For upstreams whose name has several addresses; with a single
/// address, the breaker alone decides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Consecutive failures after which an address is ejected.
    pub consecutive_failures: u32,
    /// For how long the first time; twice as long the second time, and so on.
    pub base_ejection_time: Duration,
    /// The longest ejection. An address that was not ejected for this time starts at `base_ejection_time` again.
    pub ejection_time_max: Duration,
    /// The share of addresses, in percent, that may be out when one is ejected, including those that a
    /// `health_check` found unhealthy. Of two or more, one always may be ejected. 0 ejects none.
    pub ejection_percent_max: u8,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection_time: Duration::from_secs(30),
            ejection_time_max: Duration::from_secs(300),
            ejection_percent_max: 50,
        }
    }
}
