//! Requests that are asked of the upstream once and answered many times.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Size};

/// Request coalescing: sends identical concurrent GETs to the upstream once. Each of them passes all checks
/// and has its own record.
///
/// Two requests are identical if method, path, query and headers are equal, except for headers that only say
/// who calls, from where, and in which trace. Some responses are never shared: those with `Set-Cookie` or
/// `Cache-Control: no-store`, and refusals by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Coalesce {
    /// Whose requests may be coalesced. `workspace` and `all` are for upstreams that respond to every caller
    /// in the same way, such as those that see only a `credential`.
    #[serde(default)]
    pub scope: CoalesceScope,
    /// How long a response (200) is also given to later requests. At most a minute. For pages that poll.
    #[serde(default = "no_time")]
    pub ttl: Duration,
    /// A larger response is not shared.
    #[serde(default = "one_mebibyte")]
    pub bytes_max: Size,
}

/// Whose requests may be coalesced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CoalesceScope {
    /// Those of one caller in one workspace.
    #[default]
    Caller,
    /// Those of one workspace.
    Workspace,
    /// Those of all callers.
    All,
}

fn one_mebibyte() -> Size {
    Size::mebibytes(1)
}

fn no_time() -> Duration {
    Duration::from_secs(0)
}
