//! What the operator wrote: YAML in, a valid [`Config`] out. Nothing here acts.
//!
//! A `Config` that exists is valid: the only ways to get one are [`load`] and [`parse`], which
//! report every problem they can find at once, each with its file, line and column.

mod access;
mod audit;
mod balance;
mod blame;
mod breaker;
mod changes;
mod check;
mod cidr;
mod coalesce;
mod compose;
mod control;
mod cors;
mod credentials;
mod cuts;
mod date;
mod de;
mod duration;
mod egress;
mod env;
mod fallback;
mod graphql;
mod header_name;
mod headers;
mod health_check;
mod host_port;
mod host_rule;
mod idempotency;
mod identity;
mod include;
mod listeners;
mod load;
mod located;
mod name;
mod outlier_detection;
mod pace;
mod parent;
mod path_template;
mod plugins;
mod presets;
mod problem;
mod rate;
mod rate_limit;
mod renamed;
mod rentable;
mod retries;
mod routes;
mod scalar;
mod schema;
mod ship;
mod size;
mod store;
mod syntax;
mod timeouts;
mod tree;
mod upstreams;
mod url;
mod words;
mod workspaces;

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{Access, Class};
pub use audit::{Audit, Checkpoints, Reads};
pub use balance::{Balance, BalanceKind, HashBy};
pub use breaker::{Breaker, IgnoredFailure};
pub use changes::changes;
pub use coalesce::{Coalesce, CoalesceScope};
pub use control::{
    BeforeFirstResponse, Control, ControlDocument, ControlFormat, ControlVersion, PluginDocument,
    WorkspaceDocument,
};
pub use cors::{Cors, Origin};
pub use credentials::{ClientAuth, Credential, CredentialKind, Permission, TokenType};
pub use date::Date;
pub use duration::Duration;
pub use egress::{
    Destination, Egress, EgressCaller, EgressRule, EncryptedClientHello, PrivateAddresses,
    ShippedHosts, shipped_hosts,
};
pub use fallback::Fallback;
pub use graphql::{GraphqlField, GraphqlRule};
pub use header_name::{HeaderName, HeaderPattern};
pub use headers::Headers;
pub use health_check::{HealthCheck, Statuses};
pub use host_port::HostPort;
pub use host_rule::{HostPorts, HostRule};
pub use idempotency::{Idempotency, IdempotencyScope};
pub use identity::{
    Algorithm, CertificateCaller, Claim, ClaimCaller, ClaimPattern, Claims, Identity, Issuer,
    IssuerKind, Keys, Padding, StaticToken, TokenFrom,
};
pub use include::{Disk, Files, Pattern};
pub use listeners::{
    Certificate, ClientCertificate, Limits, Listener, ListenerKind, ProxyProtocol, Tls,
};
pub use load::{Loaded, load, load_from, parse};
pub use located::{Located, Place};
pub use name::Name;
pub use outlier_detection::OutlierDetection;
pub use pace::Pace;
pub use parent::{NoProxy, Parent};
pub use path_template::{PathTemplate, Segment};
pub use plugins::{Percent, Plugin};
pub use presets::{Preset, PresetRoute, PresetState, PresetUse, RouteChanges, SHIPPED};
pub use problem::{Problem, Problems};
pub use rate::Rate;
pub use rate_limit::{BUCKETS, Limit, RateLimit, ShippedBucket};
pub use rentable::{registered, rentable_above};
pub use retries::Retries;
pub use routes::{
    Detail, ErrorFormat, HostPattern, Method, QueryRules, Route, RouteOptions, StreamMax,
    WorkspaceNeed, WrittenBy,
};
pub use schema::{control_schema, json_schema, markdown};
pub use ship::{Ship, ShipFormat, ShipHeader, ShipKind};
pub use size::Size;
pub use store::{OnStoreError, Store, StoreKind, StoreTls};
pub use timeouts::{RATE_MIN, Timeouts};
pub use upstreams::{Authority, HttpVersion, Upstream, UpstreamTls};
pub use url::Url;
pub use words::suggestion;
pub use workspaces::{Choice, CookieName, Workspace, Workspaces};

/// Everything the operator wrote, in one file or in several that it includes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of this format.
    pub version: Version,
    /// Where Stagedoor listens, by names of your choice.
    pub listeners: IndexMap<Name, Located<Listener>>,
    /// Who vouches for callers.
    #[serde(default)]
    pub identity: Identity,
    /// Who may act for which workspace.
    #[serde(default)]
    pub workspaces: Workspaces,
    /// Plugins that are not simply on everywhere.
    #[serde(default)]
    pub plugins: IndexMap<Name, Plugin>,
    /// What Stagedoor presents to upstreams, by names of your choice.
    #[serde(default)]
    pub credentials: IndexMap<Name, Located<Credential>>,
    /// Where requests go, by names of your choice.
    #[serde(default)]
    pub upstreams: IndexMap<Name, Located<Upstream>>,
    /// Built-in route tables.
    #[serde(default)]
    pub presets: Vec<Located<PresetUse>>,
    /// Routes of your own.
    #[serde(default)]
    pub routes: Vec<Located<Route>>,
    /// Which hosts Backstage may call, on listeners of kind `forward`.
    #[serde(default)]
    pub egress: Egress,
    /// How many requests each workspace, caller and client may send.
    #[serde(default)]
    pub rate_limit: RateLimit,
    /// Where replicas share their limits. Default: each replica counts on its own.
    #[serde(default)]
    pub store: Option<Located<Store>>,
    /// The headers that tell an upstream who is calling.
    #[serde(default)]
    pub headers: Headers,
    /// A remote source for workspaces and plugins. Default: none, only the files count.
    #[serde(default)]
    pub control: Option<Located<Control>>,
    /// Where audit records go.
    #[serde(default)]
    pub audit: Audit,
    /// How the process starts, stops and is observed.
    #[serde(default)]
    pub process: Process,
}

/// The version of the config format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Version {
    /// The only version so far.
    #[serde(rename = "stagedoor/v1")]
    V1,
}

/// How the process behaves. A reload changes `drain_delay` and `drain_timeout`; any other change takes effect
/// at the next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Threads that serve requests. Default: one per core.
    pub threads: Option<std::num::NonZeroU16>,
    /// After SIGTERM: how long readiness fails before idle connections are closed and HTTP/2 clients get
    /// GOAWAY, so that the load balancer notices and they do not come back.
    pub drain_delay: Duration,
    /// After that: how long exchanges in flight may take to end. `terminationGracePeriodSeconds` must be
    /// longer than both together.
    pub drain_timeout: Duration,
    /// Unix socket over which a new process takes over the listeners (`stagedoor run --upgrade`, then SIGQUIT
    /// to the old one). Its folder must be private. Default: no such socket.
    pub upgrade_socket: Option<std::path::PathBuf>,
    /// Also serve metrics under the names in the design documents
    /// (`backstage_circuit_breaker_state`, `plugins_requests_total`, ...), and renamed
    /// metrics under their old names too (docs/metrics.md).
    pub metric_aliases: bool,
    /// DNS servers to use, for example `[10.0.0.10:53]`. Default: the system's.
    #[schemars(with = "Vec<String>")]
    pub name_servers: Vec<std::net::SocketAddr>,
    /// Memory for all responses that routes with `fallback` keep.
    pub fallback_memory: Size,
    /// How many workspaces get their own metric label, in the config's order; the rest are `other`.
    pub metric_workspaces_max: u16,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            threads: None,
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(20),
            upgrade_socket: None,
            metric_aliases: true,
            name_servers: Vec::new(),
            fallback_memory: Size::mebibytes(64),
            metric_workspaces_max: 100,
        }
    }
}

impl Config {
    /// All routes: the operator's own, then those of the presets in use, each at its place.
    pub fn all_routes(&self) -> Vec<Cow<'_, Located<Route>>> {
        let mut all: Vec<_> = self.routes.iter().map(Cow::Borrowed).collect();
        for (used, preset) in self.presets_used() {
            let routes = used.routes(&preset);
            let at = |value| Located { value, place: used.place.clone() };
            all.extend(routes.into_iter().map(at).map(Cow::Owned));
        }
        all
    }

    /// The plugins that something here is of, in the order of their names.
    pub(crate) fn known_plugins(&self) -> std::collections::BTreeSet<Name> {
        let routes = self.all_routes().into_iter().filter_map(|route| route.plugin.clone());
        let listeners = self.listeners.values().filter_map(|listener| listener.plugin.clone());
        let callers = self.egress.callers.values().filter_map(|caller| caller.plugin.clone());
        let rules = self.egress.rules.iter().flat_map(|rule| rule.plugins.clone());
        routes.chain(listeners).chain(callers).chain(rules).collect()
    }

    /// The presets in use, with what they stand for.
    pub fn presets_used(&self) -> impl Iterator<Item = (&Located<PresetUse>, Preset)> {
        self.presets.iter().filter_map(|used| Some((used, Preset::named(&used.preset)?)))
    }

    /// The breaker of an upstream, excusing what the presets on it excuse.
    pub fn breaker(&self, upstream: &Name, written: &Upstream) -> Breaker {
        self.presets_used()
            .filter(|(used, _)| *used.upstream == *upstream)
            .fold(written.breaker.clone(), |breaker, (_, preset)| {
                breaker.ignoring(&preset.ignore_failures)
            })
    }
}

/// Reads a text that we ship ourselves.
fn read_shipped<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> T {
    let mut problems = Problems::default();
    let tree = tree::parse(name, text, &mut problems);
    tree.and_then(|tree| de::read(tree, &mut problems))
        .unwrap_or_else(|| panic!("a shipped preset is valid, but:\n{problems}"))
}
