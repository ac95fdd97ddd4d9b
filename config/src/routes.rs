//! Which request goes where, and what it must be to go there.

use std::{borrow::Cow, fmt, str::FromStr};

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{
    Access, Class, Coalesce, Fallback, GraphqlRule, Limit, Located, Name, PathTemplate, Size,
    Timeouts,
};

/// Which requests go where. A request that matches no route gets 403 `route_unknown`, never 404.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, in records and metrics.
    pub name: Name,
    /// The listeners it is on. Default: all reverse listeners.
    #[serde(default)]
    pub listeners: Vec<Located<Name>>,
    /// The hosts it is for: `portal.example.com`, or `*.example.com` for exactly one more label. Default: any
    /// host.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// The methods, for example `[GET, POST]`, or `[ANY]` for all but TRACE. HEAD goes where GET goes, unless
    /// another route names it.
    pub methods: Vec<Method>,
    /// The paths.
    pub path: PathTemplate,
    /// The upstream it goes to.
    pub upstream: Located<Name>,
    /// The Backstage plugin it belongs to, which can be switched off per workspace.
    #[serde(default)]
    pub plugin: Option<Name>,
    /// What it does: `read`, `action` or `admin`. A POST may be a read.
    pub class: Class,
    /// Further options.
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

/// Further options of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteOptions {
    /// Never passes: 403 `route_closed`. For a path that a wider route would let through.
    pub closed: bool,
    /// Passes without a token. Identity headers are still removed.
    pub public: bool,
    /// Whether the request must be for a workspace.
    pub workspace: WorkspaceNeed,
    /// Who may use it, in addition to being a member of the workspace.
    pub access: Access,
    /// Also accept a Backstage limited user token from the cookie `backstage-auth`.
    pub cookie: bool,
    /// Let WebSocket upgrades through. Without it they are refused (403 `upgrade_refused`). Offers of other
    /// protocols, such as `h2c` from Java's client and `curl --http2`, are ignored on every route, and the
    /// request continues over HTTP/1.1.
    pub upgrade: bool,
    /// When a WebSocket or a stream (server-sent events, gRPC) ends at the latest. `token`: when the caller's
    /// token expires. Default: no limit, as long as it is not silent.
    pub stream_max: Option<StreamMax>,
    /// Its responses are streams, whatever their type: they may be silent for `timeouts.stream_idle`, also
    /// before they begin, and have no minimum rate. Responses of known stream types are streams anyway (see
    /// `timeouts.stream_idle`).
    pub stream: bool,
    /// Query parameters that request a stream, for example `[watch, follow]` for the Kubernetes API:
    /// `?watch=true` then has the effect of `stream`.
    pub stream_if: Vec<String>,
    /// A path parameter. Each of its values has its own breaker, for example `endpoint` in
    /// `/api/proxy/{endpoint}/**`: one endpoint may be down while others respond. At most 512 values have one
    /// at a time; any more share the route's breaker.
    pub breaker_by: Option<String>,
    /// Let `%2F` within a segment through, as Jenkins' folder jobs need, and double escapes, as its branches
    /// need (`%252F` for a branch called `feature/x`). They stay encoded. Dots and letters that are escaped
    /// twice are refused everywhere.
    pub encoded_slashes: bool,
    /// Let any escaped bytes through, for example for file names in Latin-1: bytes that are not UTF-8 (`%E9`,
    /// but also the overlong `%C0%AF`), and characters that some servers read as `.`, `/`, `\\`, `%` or `;`,
    /// such as their fullwidth forms. Without it such a path gets 400 `path_ambiguous`.
    pub any_bytes: bool,
    /// Its GET changes something, for example signs in (unsafe, RFC 9110 9.2.1). HEAD then does not go where
    /// GET goes, and a GET is not retried.
    pub unsafe_get: bool,
    /// What happens to query parameters.
    pub query: QueryRules,
    /// Path parameters that must name a resource of the workspace, by its kind in the workspace's
    /// `resources`: `{spacelift-stack: stack}` for `/stacks/{stack}/trigger`. Otherwise 403
    /// `resource_refused`.
    pub resources: IndexMap<Name, String>,
    /// For a GraphQL API: the allowed operations. The route's methods are then `[POST]`. Default: bodies are
    /// not inspected.
    pub graphql: Option<Vec<GraphqlRule>>,
    /// Members to remove from JSON responses, at any depth and whatever their media type: JSON, JSON lines
    /// and events, and everything that begins like JSON, except in images, audio, video and fonts. A response
    /// that should be JSON but cannot be parsed, is over 8 MiB (for lines and events: each) or is compressed
    /// becomes 502 `redaction_impossible`.
    pub redact: Vec<String>,
    /// The part of the path that only Stagedoor uses, for example `/ext/github`; the upstream gets the rest.
    /// Its own URLs in responses (`Location`, `Content-Location`, `Link`) and the `Path` of its cookies are
    /// rewritten to ours; those that already begin with this part stay unchanged. An upstream that is not
    /// `external` gets it in `X-Forwarded-Prefix`. If `preserve_host` is set, the upstream knows our host,
    /// and only the paths of its URLs are changed.
    pub strip_prefix: Option<PathTemplate>,
    /// Whether identical requests are sent to the upstream once (request coalescing).
    pub coalesce: Option<Coalesce>,
    /// Whether the last good response is served while the upstream fails (stale response).
    pub fallback: Option<Fallback>,
    /// How many requests each workspace may send on this route. On a public route: how many each client
    /// address may, and then its bucket or `rate_limit.per_client` does not count.
    pub rate_limit: Option<Limit>,
    /// The bucket that it counts in instead of `rate_limit.per_workspace`, or on a public route instead of
    /// `rate_limit.per_client`: a preset's, or one from `rate_limit.buckets`.
    pub bucket: Option<Name>,
    /// Its own timeouts.
    pub timeouts: Timeouts,
    /// Bytes in a request body, instead of the listener's `body_max`.
    pub body_max: Option<Size>,
    /// The JSON format of its denials.
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
    /// The request is for a workspace if it names one; otherwise its caller's own limit applies.
    Optional,
}

/// When a stream ends at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamMax {
    /// When the caller's token expires.
    Token,
}

/// What happens to query parameters, by name. A name also covers its array spelling (`org[]`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryRules {
    /// Parameters to remove.
    pub remove: Vec<String>,
    /// Parameters that may have only these values; a request with another value gets 403 `query_refused`.
    pub allow: IndexMap<String, Vec<String>>,
}

/// The JSON format of a denial. Other clients are recognized by their request: a browser that opens a page
/// gets a page, and clients of gRPC, gRPC-Web and Connect get errors of their own protocol.
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
    /// A `Status` of the Kubernetes API, which kubectl and similar clients print.
    Kubernetes,
}

/// How much a denial reveals to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// The code and the request id.
    #[default]
    Code,
    /// Also the message, and the rule with its file and line. For internal clients.
    Full,
}

/// A method (RFC 9110 9), or `ANY`.
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
            "`{shown}` is not a host; write `portal.example.com` or `*.example.com`, without a port"
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
