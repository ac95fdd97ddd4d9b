//! Who may act for which workspace, and which plugins it has.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Limit, Located, Name};

/// The workspaces, and how a request says which one it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workspaces {
    /// How a request chooses its workspace, tried in this order. A choice counts only if the caller
    /// is a member. A listener's own `workspace` comes before all of them.
    pub choose_by: Vec<Choice>,
    /// Whether a workspace that only a token names (its `workspaces` claim) exists. `false`: 403
    /// `workspace_unknown`.
    pub undeclared: bool,
    /// The workspaces, by name.
    pub named: IndexMap<Name, Located<Workspace>>,
}

impl Default for Workspaces {
    fn default() -> Self {
        Self {
            choose_by: vec![Choice::Header, Choice::Path, Choice::OnlyMembership],
            undeclared: false,
            named: IndexMap::new(),
        }
    }
}

/// One way to choose a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The header `headers.workspace`, by default `X-Orbit-Workspace-Id`.
    Header,
    /// The parameter `{workspace}` of the route's path.
    Path,
    /// The caller's workspace, if it is a member of exactly one.
    OnlyMembership,
}

/// One workspace. A caller is a member if its token names the workspace (`claims.workspaces`), or
/// by one of the lists here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workspace {
    /// Members of these groups are members, for example `group:default/payments-dev`.
    pub groups: Vec<String>,
    /// These callers are members, by their subject.
    pub callers: Vec<String>,
    /// Plugins switched on (`true`) or off (`false`) here, whatever `plugins` says of them.
    pub plugins: IndexMap<Name, bool>,
    /// What is its own in the systems behind, by kind, for routes that ask for it (`resources`):
    /// `{spacelift-stack: [pay-prod, pay-dev-*]}`. A `*` at the end stands for anything.
    pub resources: IndexMap<Name, Vec<String>>,
    /// A limit of its own instead of `rate_limit.each_workspace`.
    pub rate_limit: Option<Limit>,
}
