//! A source elsewhere that says, while Stagedoor runs, which workspaces and plugins there are.

mod answer;
mod json;
mod lay;
mod orbit;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use answer::{Answer, AnswerVersion, SaidOfPlugin, SaidOfWorkspace};

use crate::{Duration, Located, Name, Size, Url};

/// A source that is asked over and over for workspaces, who is in them, which plugins they have, and
/// their limits. What it says is laid over the files, and widens nothing that they write;
/// docs/control.md has who wins. It can say nothing else: no listener, issuer, upstream, route, credential, egress
/// rule or place for records.
///
/// The files must be a whole config without it. It is asked once before Stagedoor listens, then at
/// every `every`, at SIGHUP and at `POST /reload`. While it is away, or answers with what cannot be
/// used, its last good answer stays in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Where it is asked, with GET: the whole address, for example
    /// `https://orbit.example.com/api/plugins/config`. `https`, or `http` on this machine. Redirects
    /// are not followed. With another one the last answer is not in force any more.
    pub url: Located<Url>,
    /// What its answers look like.
    #[serde(default)]
    pub shape: Shape,
    /// For `shape: orbit`, which lists only what is on: the plugins that it decides about. They are
    /// off wherever an answer does not list them; of other plugins in an answer nothing is taken.
    #[serde(default)]
    pub plugins: Vec<Located<Name>>,
    /// File of the token to ask with (`Authorization: Bearer`). It is read anew each time, so that it
    /// can be rotated. A line end after it is not part of it. Default: none is sent.
    #[serde(default)]
    pub token_file: Option<Located<PathBuf>>,
    /// PEM file of CAs for the source, instead of the system's.
    #[serde(default)]
    pub ca: Option<Located<PathBuf>>,
    /// How often it is asked, give or take a tenth. After a failure it is asked again after 1 s, then
    /// 2 s, 4 s and so on, up to this.
    #[serde(default = "every")]
    pub every: Duration,
    /// How long an answer may take, to its last byte. `POST /reload` and the start wait for one.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// How large an answer may be.
    #[serde(default = "answer_max")]
    pub answer_max: Size,
    /// Where the last good answer is kept, for a start while the source is unreachable: what of it was
    /// understood, not what was sent. Its folder must exist; keep it as private as the config, for
    /// whoever writes it writes workspaces. Default: nowhere, and then `until_answered` says what holds
    /// at such a start.
    #[serde(default)]
    pub keep_file: Option<Located<PathBuf>>,
    /// What holds at a start until the source has answered, if no answer was kept (`keep_file`).
    #[serde(default)]
    pub until_answered: UntilAnswered,
    /// When the source has not confirmed for this long what is in force,
    /// `stagedoor_control_stale` is 1, and the log says so once.
    #[serde(default = "stale_after")]
    pub stale_after: Duration,
}

/// What holds until a control source has answered for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UntilAnswered {
    /// The plugins that the source decides about are off: those that `plugins` names, with `shape:
    /// stagedoor` all that routes, listeners and rules are of. Requests to them get 403
    /// `plugin_disabled`; what is of no plugin passes.
    #[default]
    PluginsOff,
    /// The files alone: a plugin that the source would switch off is on until it says so.
    Files,
}

/// What the answers of a control source look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Our own, as docs/control.md has it.
    #[default]
    Stagedoor,
    /// What Orbit's `GET /api/plugins/config` answers: for each plugin a list with an entry for each
    /// workspace that has it. Nothing but `workspace_id` and `enabled` is read of an entry: the
    /// secrets beside them are neither kept nor shown.
    Orbit,
}

impl Shape {
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
        (&*self.url, self.shape) == (&*other.url, other.shape)
    }
}

fn every() -> Duration {
    Duration::from_secs(60)
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn answer_max() -> Size {
    Size::mebibytes(1)
}

fn stale_after() -> Duration {
    Duration::from_secs(300)
}
