//! Requests that are asked of the upstream once and answered many times.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Size};

/// Answers the same GET once for all who ask it at the same time. Every one of them passes all
/// checks and has its record.
///
/// Two requests are the same if method, path, query and headers are, those aside that only say who
/// asks, from where, and as part of which trace. What is not meant to be shared is not: answers with
/// `Set-Cookie` or `Cache-Control: no-store`, and refusals of the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Coalesce {
    /// Whose requests may be one. `workspace` and `all` are for upstreams that answer everybody the
    /// same, as those do that see only a `credential`.
    #[serde(default, rename = "for")]
    pub among: Among,
    /// How long an answer (200) is given to those who ask later, too. At most a minute. For pages
    /// that poll.
    #[serde(default = "no_time")]
    pub keep: Duration,
    /// A larger answer is not shared.
    #[serde(default = "one_mebibyte")]
    pub bytes_max: Size,
}

/// Whose requests may be one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Among {
    /// Those of one caller in one workspace.
    #[default]
    Caller,
    /// Those of one workspace.
    Workspace,
    /// Everybody's.
    All,
}

fn one_mebibyte() -> Size {
    Size::mebibytes(1)
}

fn no_time() -> Duration {
    Duration::from_secs(0)
}
