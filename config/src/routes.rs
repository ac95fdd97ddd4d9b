//! Which request goes where, and what it must be to go there.

use std::{borrow::Cow, fmt, str::FromStr};

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{
    Access, Class, Coalesce, Fallback, GraphqlRule, Limit, Located, Name, PathTemplate, Size,
    Timeouts,
};

/// Which requests go where. A request that no route takes gets 403 `route_unknown`, never 404.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, in records and metrics.
    pub name: Name,
    /// The listeners it is on. Default: all reverse listeners.
    #[serde(default)]
    pub listeners: Vec<Located<Name>>,
    /// The hosts it is for: `portal.example.com`, or `*.example.com` for one label more. Default:
    /// any host.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// The methods, for example `[GET, POST]`, or `[ANY]`, which is all but TRACE. HEAD goes where GET
    /// goes, unless another route names it.
    pub methods: Vec<Method>,
    /// The paths.
    pub path: PathTemplate,
    /// The upstream it goes to.
    pub upstream: Located<Name>,
    /// The Backstage plugin it belongs to. It can be switched off per workspace.
    #[serde(default)]
    pub plugin: Option<Name>,
    /// What it does: `read`, `action` or `admin`. A POST may be a read.
    pub class: Class,
    /// What else holds for it.
    #[serde(default)]
    pub options: RouteOptions,
    /// Where it comes from.
    #[serde(skip)]
    pub written_by: WrittenBy,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WrittenBy {
    /// The operator wrote it.
    #[default]
    Operator,
    /// A preset has it: open, or closed by the operator.
    Preset,
    /// A preset closes it for good.
    ClosedForGood,
    /// A preset has it and leaves it closed, and nobody opened it: it yields to what the operator wrote.
    Unopened,
}

impl Route {
    /// Whether this, of a preset, yields to `own` where both take a request: only to one of the operator
    /// that names every text in its path. A wider one was not written with this in mind.
    pub fn yields_to(&self, own: &Self) -> bool {
        self.written_by == WrittenBy::Unopened
            && own.written_by == WrittenBy::Operator
            && !own.options.closed
            && own.path.names(&self.path)
    }

    /// Whether this, which a preset closes for good, keeps others from yielding to `own` where it takes a
    /// request, too: it names what that does not.
    pub fn bars(&self, own: &Self) -> bool {
        self.written_by == WrittenBy::ClosedForGood && !own.path.names(&self.path)
    }
}

/// What else holds for a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteOptions {
    /// Never passes: 403 `route_closed`. For a path that a wider route would let through.
    pub closed: bool,
    /// Passes without a token. Identity headers are removed all the same.
    pub public: bool,
    /// Whether the request must be for a workspace.
    pub workspace: WorkspaceNeed,
    /// Who may use it, besides being a member of the workspace.
    pub access: Access,
    /// Also take a Backstage limited user token from the cookie `backstage-auth`.
    pub cookie: bool,
    /// Let WebSocket upgrades through. Without it a request for one is refused (403
    /// `upgrade_refused`). Offers of other protocols, as Java's client and `curl --http2` make them
    /// (`h2c`), are ignored on every route, and the request goes on over HTTP/1.1.
    pub upgrade: bool,
    /// When a WebSocket or a stream (server-sent events, gRPC) ends at the latest: `token` when the
    /// caller's token does. Default: it may go on for as long as something is said.
    pub stream_max: Option<StreamMax>,
    /// Its answers are streams, whatever their type: they may be silent for `timeouts.stream_idle`, before
    /// they begin too, and have no least rate. So are those of a type that is known to be one (see
    /// `timeouts.stream_idle`).
    pub stream: bool,
    /// Query parameters that ask for a stream, for example `[watch, follow]` for the API of Kubernetes:
    /// `?watch=true` then does as `stream` would.
    pub stream_if: Vec<String>,
    /// A parameter of the path of which each value has a breaker of its own, for example `endpoint` for
    /// `/api/proxy/{endpoint}/**`: what is behind one endpoint may be away while others answer. There are
    /// at most 512 of them at once; beyond that they share the breaker of their route.
    pub breaker_by: Option<String>,
    /// Let `%2F` within a segment through, as Jenkins' folder jobs need it, and what is escaped twice, as
    /// its branches have it (`%252F` for one that is called `feature/x`). It stays encoded. Dots and letters
    /// that are escaped twice are refused anywhere.
    pub encoded_slashes: bool,
    /// Let any escaped bytes through, as a store of files named in Latin-1 needs it: bytes that are no
    /// UTF-8 (`%E9`, but also the overlong `%C0%AF`), and characters that some servers take for `.`, `/`,
    /// `\\`, `%` or `;`, as the fullwidth ones. Without it such a path gets 400 `path_ambiguous`.
    pub any_bytes: bool,
    /// A GET of it changes something, as one that signs in does (unsafe, RFC 9110 9.2.1): HEAD does not go
    /// where GET goes, as it does on other routes, and a GET is not asked again.
    pub unsafe_get: bool,
    /// What happens to query parameters.
    pub query: QueryRules,
    /// Parameters of the path that must name a resource of the workspace, by its kind in the
    /// workspace's `resources`: `{spacelift-stack: stack}` for `/stacks/{stack}/trigger`. Else 403
    /// `resource_refused`.
    pub resources: IndexMap<Name, String>,
    /// If it is a GraphQL API: the operations that may be asked for. The route's methods are then
    /// `[POST]`. Default: bodies are not looked at.
    pub graphql: Option<Vec<GraphqlRule>>,
    /// Members removed from JSON answers, at any depth, whatever the answer's type says: JSON, lines and
    /// events of JSON, and what begins like JSON in any type but pictures, sound, video and fonts. What
    /// should be JSON and cannot be read, or is over 8 MiB (of lines and events: each), or comes
    /// compressed, gets 502 `redaction_impossible` instead.
    pub redact: Vec<String>,
    /// The part of the path that is ours alone, for example `/ext/github`: the upstream is asked for
    /// what follows. Where its answers name its own URLs (`Location`, `Content-Location`, `Link`),
    /// they are made ours again, and so is the `Path` of its cookies; what begins with this part
    /// already stays as it is. An upstream that is not `external` is told of it by `X-Forwarded-Prefix`.
    /// One with `preserve_host` knows our name: of its URLs only paths are changed.
    pub strip_prefix: Option<PathTemplate>,
    /// Whether the same requests are asked of the upstream once.
    pub coalesce: Option<Coalesce>,
    /// Whether the last good answer is given while the upstream fails.
    pub fallback: Option<Fallback>,
    /// What each workspace may ask of this route. On a public route: what each client address may, and
    /// then its bucket or `rate_limit.each_client` does not count.
    pub rate_limit: Option<Limit>,
    /// The bucket that it counts in instead of `rate_limit.each_workspace`, or on a public route
    /// instead of `rate_limit.each_client`: one of a preset, or one that `rate_limit.buckets` has.
    pub bucket: Option<Name>,
    /// Timeouts of its own.
    pub timeouts: Timeouts,
    /// Bytes of a request body, instead of the listener's `body_max`.
    pub body_max: Option<Size>,
    /// How a denial is written to whoever reads JSON.
    pub errors: Option<ErrorFormat>,
    /// How much a denial tells.
    pub detail: Option<Detail>,
}

/// Whether a request must be for a workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceNeed {
    /// 400 `workspace_missing` without one.
    #[default]
    Required,
    /// It is one if it can be told, else none; its limit is then the caller's own.
    Optional,
}

/// When a stream ends at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamMax {
    /// When the caller's token does.
    Token,
}

/// What happens to query parameters, by name. A name also covers its array spellings (`org[]`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryRules {
    /// Parameters that are removed.
    pub remove: Vec<String>,
    /// Parameters that may have only these values; with another the request gets 403
    /// `query_refused`.
    pub allow: IndexMap<String, Vec<String>>,
}

/// How a denial is written to whoever reads JSON. Others are known by how they ask: a browser that goes
/// to a page gets one, and clients of gRPC, gRPC-Web and Connect get their own errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorFormat {
    /// `application/problem+json` (RFC 9457).
    #[default]
    Problem,
    /// The envelope that Backstage's clients read: `{"error":{"name","message"},"request","response"}`.
    Backstage,
    /// `{"error":"<text>"}`, as Spacelift's and Argo CD's frontends read it.
    String,
    /// A `Status` of Kubernetes' API, which kubectl and its kin print.
    Kubernetes,
}

/// How much a denial tells the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// The code and the request id.
    #[default]
    Code,
    /// Also the sentence, and the rule with its file and line. For internal clients.
    Full,
}

/// A method (RFC 9110 9), or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are those of RFC 9110 and RFC 5789")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Any,
}

/// `portal.example.com`, or `*.example.com` for exactly one label more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct HostPattern(String);

impl HostPattern {
    /// The domain that the wildcard stands before, if it is one.
    pub fn wildcard(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }
}

impl std::ops::Deref for HostPattern {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(format!("`{shown}` has capitals; write `{}`", text.to_ascii_lowercase()));
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if name.len() <= 253 && name.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{shown}` is not a host; write `portal.example.com` or `*.example.com`, without port"
        ))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for HostPattern {
    fn schema_name() -> Cow<'static, str> {
        "HostPattern".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^(\\*\\.)?[a-z0-9._:-]+$"})
    }
}
