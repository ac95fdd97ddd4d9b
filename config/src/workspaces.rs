//! Who may act for which workspace, and which plugins it has.

use std::sync::Arc;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{HostPattern, Limit, Located, Name};

/// The workspaces, and how a request names the one it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workspaces {
    /// How a request chooses its workspace, tried in this order; the first that names one counts. If the
    /// request itself names it (`header`, `path`, `host`, `cookie`) and the caller is not a member, the
    /// request is refused (403 `workspace_not_granted`). A fallback (`only_membership`, `claim`, `default`)
    /// that names a workspace of which the caller is not a member is skipped. A listener's own `workspace`
    /// comes before all of them. docs/workspaces.md says what suits Backstage's frontend, kubectl and others.
    pub choose_by: Vec<Choice>,
    /// The cookie that the choice `cookie` reads.
    pub cookie: CookieName,
    /// For the choice `host`: `*.kube.example.com` takes the text in place of `*` as the workspace.
    pub hosts: Vec<Located<HostPattern>>,
    /// The workspace of the choice `default`.
    pub default: Option<Located<Name>>,
    /// Whether a workspace exists that only a token names (in its `workspaces` claim). `false`: 403
    /// `workspace_unknown`. A name counts only if it would be valid in `named`: 1 to 64 letters, digits and
    /// `. _ -`, beginning with a letter or digit, and without two dots in a row.
    pub undeclared: bool,
    /// The workspaces, by name.
    // There may be very many, and a process has its config several times.
    pub named: Arc<IndexMap<Name, Located<Workspace>>>,
}

impl Default for Workspaces {
    fn default() -> Self {
        Self {
            choose_by: vec![Choice::Header, Choice::Path, Choice::OnlyMembership],
            cookie: CookieName("stagedoor-workspace".to_owned()),
            hosts: Vec::new(),
            default: None,
            undeclared: false,
            named: Arc::default(),
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
    /// The cookie `cookie`, for pages and WebSockets, which cannot set headers.
    Cookie,
    /// The request's host, by one of the patterns in `hosts`.
    Host,
    /// The token's claim, by its issuer's `claims.default_workspace`.
    Claim,
    /// `default`.
    Default,
}

/// A cookie's name (RFC 6265 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CookieName(String);

impl std::ops::Deref for CookieName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for CookieName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if (1..=64).contains(&text.len()) && text.bytes().all(token) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!(
            "`{}` is not a cookie name; write for example `stagedoor-workspace`",
            text.escape_debug()
        )))
    }
}

impl JsonSchema for CookieName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CookieName".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"})
    }
}

/// One workspace. A caller is a member if its token names the workspace (`claims.workspaces`) or one of the
/// lists here includes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workspace {
    /// Callers in these groups are members, for example `group:default/payments-dev`.
    pub groups: Vec<String>,
    /// These callers are members, by subject.
    pub callers: Vec<String>,
    /// Plugins switched on (`true`) or off (`false`) here, whatever the top-level `plugins` says.
    pub plugins: IndexMap<Name, bool>,
    /// What it owns in the systems behind, by kind, for routes that check it (`resources`):
    /// `{spacelift-stack: [pay-prod, pay-dev-*]}`. A `*` at the end matches any text.
    pub resources: IndexMap<Name, Vec<String>>,
    /// A limit of its own instead of `rate_limit.per_workspace`.
    pub rate_limit: Option<Limit>,
}
