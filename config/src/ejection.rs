//! When one address of an upstream is left alone for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Leaves one address of an upstream alone after failures in a row: of connections, timeouts and what
/// its `breaker` counts as a failure. For upstreams whose name has several addresses; where there is
/// one, the breaker alone decides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Failures in a row after which an address is ejected.
    pub failures: u32,
    /// For how long: this, after the second time twice this, and so on.
    pub base: Duration,
    /// At most for so long. An address that was not ejected for this time begins at `base` again.
    pub longest: Duration,
    /// The share of the addresses, in percent, that may be out when one is ejected, those that a
    /// `health_check` found unhealthy among them. Of two or more one always may. 0 ejects none.
    pub percent_max: u8,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            percent_max: 50,
        }
    }
}
