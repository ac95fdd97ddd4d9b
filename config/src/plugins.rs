//! Which plugins are on, and for how many workspaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Limit;

/// One plugin. A plugin that is not listed is on everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plugin {
    /// The share of workspaces for which it is on, in percent: raise it 10, 50, 100. A workspace that has it
    /// at 10 still has it at 50. A workspace's own `plugins` entry comes first. Where it is off, requests get
    /// 403 `plugin_disabled`.
    pub enabled_percent: Percent,
    /// How many requests each workspace may send to this plugin.
    pub rate_limit: Option<Limit>,
}

impl Default for Plugin {
    fn default() -> Self {
        Self { enabled_percent: Percent(100), rate_limit: None }
    }
}

/// 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Percent(#[schemars(range(max = 100))] pub u8);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            percent @ 0..=100 => Ok(Self(u8::try_from(percent).expect("0 to 100 fits in a byte"))),
            more => Err(serde::de::Error::custom(format!(
                "`{more}` is not a percentage; write 0 to 100"
            ))),
        }
    }
}
