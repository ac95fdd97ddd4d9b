//! A source elsewhere that says, while Stagedoor runs, which workspaces and plugins there are.

mod answer;
mod json;
mod lay;
mod orbit;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use answer::{ControlDocument, ControlVersion, PluginDocument, WorkspaceDocument};

use crate::{Duration, Located, Name, Size, Url};

/// A source that is polled for workspaces, their members, plugins and limits. What it says is laid over the
/// files and cannot widen anything that they say; docs/control.md explains which wins. It cannot say anything
/// else: no listener, issuer, upstream, route, credential, egress rule or place for records.
///
/// The files must be a complete config without it. It is polled once before Stagedoor listens, then every
/// `interval`, at SIGHUP and at `POST /reload`. While it is unreachable or sends something unusable, its last
/// good response stays in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The URL to poll with GET, for example `https://orbit.example.com/api/plugins/config`. `https`, or
    /// `http` on this machine. Redirects are not followed. When the URL changes, the last response is no
    /// longer in force.
    pub url: Located<Url>,
    /// What its responses look like.
    #[serde(default)]
    pub format: ControlFormat,
    /// For `format: orbit`, which lists only what is on: the plugins that it decides about. They are off
    /// wherever a response does not list them; other plugins in a response are ignored.
    #[serde(default)]
    pub plugins: Vec<Located<Name>>,
    /// File with the token to send (`Authorization: Bearer`). It is read again for each poll, so it can be
    /// rotated. A trailing newline is ignored. Default: none is sent.
    #[serde(default)]
    pub token_file: Option<Located<PathBuf>>,
    /// PEM file of CAs for the source, instead of the system's.
    #[serde(default)]
    pub ca: Option<Located<PathBuf>>,
    /// How often it is polled, give or take a tenth. After a failure it is polled again after 1 s, then 2 s,
    /// 4 s and so on, up to this.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// How long a response may take, to its last byte. `POST /reload` and the start wait for it.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// How large a response may be.
    #[serde(default = "response_max")]
    pub response_max: Size,
    /// Where the last good response is kept, for a start while the source is unreachable. Only what was
    /// understood is kept, not what was sent. Its folder must exist; keep it as private as the config,
    /// because write access to it is write access to workspaces. Default: nowhere; `before_first_response` then says
    /// what happens at such a start.
    #[serde(default)]
    pub cache_file: Option<Located<PathBuf>>,
    /// What happens after a start until the source has responded, if no response was kept (`cache_file`).
    #[serde(default)]
    pub before_first_response: BeforeFirstResponse,
    /// If the source has not confirmed the state in force for this long, `stagedoor_control_stale` is 1, and
    /// the log says so once.
    #[serde(default = "stale_after")]
    pub stale_after: Duration,
}

/// What happens until a control source has responded for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BeforeFirstResponse {
    /// The plugins that the source decides about are off: those that `plugins` names, or, with `format:
    /// stagedoor`, all plugins of routes, listeners and rules. Requests to them get 403 `plugin_disabled`;
    /// requests that belong to no plugin pass.
    #[default]
    PluginsOff,
    /// The files alone count: a plugin that the source would switch off is on until the source says so.
    Files,
}

/// What the responses of a control source look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ControlFormat {
    /// Our own format, described in docs/control.md.
    #[default]
    Stagedoor,
    /// The format of Orbit's `GET /api/plugins/config`: for each plugin a list with an entry for each
    /// workspace that has it. Only `workspace_id` and `enabled` are read from an entry; the secrets next to
    /// them are neither kept nor shown.
    Orbit,
}

impl ControlFormat {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stagedoor => "stagedoor",
            Self::Orbit => "orbit",
        }
    }
}

impl Control {
    /// Whether an answer to one is an answer to the other.
    pub fn is_same_source(&self, other: &Self) -> bool {
        (&*self.url, self.format) == (&*other.url, other.format)
    }
}

fn interval() -> Duration {
    Duration::from_secs(60)
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn response_max() -> Size {
    Size::mebibytes(1)
}

fn stale_after() -> Duration {
    Duration::from_secs(300)
}
