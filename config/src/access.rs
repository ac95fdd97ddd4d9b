//! Who may use a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may use a route, in addition to being a member of the workspace. One match is enough; an empty
/// `access` lets every caller of the workspace through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Roles, as named by the issuer's `claims.roles`.
    pub roles: Vec<String>,
    /// Groups, as named by the issuer's `claims.groups` or Backstage's user info, for example
    /// `group:default/payments-dev`.
    pub groups: Vec<String>,
    /// Callers by subject, for example `user:default/ada` or `plugin:scaffolder`.
    pub callers: Vec<String>,
}

impl Access {
    /// Whether anybody in the workspace may pass.
    pub fn is_open(&self) -> bool {
        self.roles.is_empty() && self.groups.is_empty() && self.callers.is_empty()
    }
}

/// What a request does, which its method does not always say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Changes nothing, even when it is a POST.
    Read,
    /// Starts something: a deploy, a trigger, a sync. Never retried, never served from a cache.
    Action,
    /// Administers the system behind. Never passes, for any caller.
    Admin,
}

impl Class {
    /// Its name, in the YAML and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Action => "action",
            Self::Admin => "admin",
        }
    }
}
