//! Where replicas count together.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, HostPort, Located};

/// A Redis (5 or newer, or Valkey) in which replicas share their limits, so that `100/m` is 100 for all of
/// them together and not for each. Without it each replica counts on its own, and with three of them `100/m`
/// becomes `300/m`. The limits of workspaces, callers, plugins, routes and calls are shared, as are
/// idempotency keys in flight and operators' switches. `per_client` stays with each replica.
/// docs/shared-limits.md says what Redis must allow, what it costs, and how exact it is. All replicas must
/// use the same Redis and the same `prefix`.
///
/// Redis may be unreachable, at start or later. `on_error` says what happens then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// What is at `addresses`.
    #[serde(default)]
    pub kind: StoreKind,
    /// Host and port, for example `[redis.example.com:6379]`. For `sentinel`, those of the sentinels; for
    /// `cluster`, those of some nodes. They are tried in turn until one responds.
    pub addresses: Vec<Located<HostPort>>,
    /// For `kind: sentinel`: the name under which the sentinels know the master.
    #[serde(default)]
    pub master: Option<Located<String>>,
    /// TLS to Redis, and to the sentinels. Default: none. Certificates must cover the names or addresses that
    /// are dialled: with sentinels and in a cluster, the announced ones.
    #[serde(default)]
    pub tls: Option<StoreTls>,
    /// User name (ACL). Default: the default user.
    #[serde(default)]
    pub username: Option<String>,
    /// File with its password. It is read for each connection, so it can be rotated. A trailing newline is
    /// ignored. Default: none is sent.
    #[serde(default)]
    pub password_file: Option<Located<PathBuf>>,
    /// For `kind: sentinel`: user name at the sentinels. Default: their default user.
    #[serde(default)]
    pub sentinel_username: Option<Located<String>>,
    /// For `kind: sentinel`: file with its password there, which is separate from the password for Redis.
    /// Default: none is sent.
    #[serde(default)]
    pub sentinel_password_file: Option<Located<PathBuf>>,
    /// The prefix of all keys, in braces: `{stagedoor}:`, so that they are all in one cluster slot. Use a
    /// different one for each installation that shares this Redis.
    #[serde(default = "prefix")]
    pub prefix: Located<String>,
    /// How long a query to Redis may take. After that Redis counts as unreachable, and requests do not wait
    /// for it until it responds again.
    #[serde(default = "timeout")]
    pub timeout: Located<Duration>,
    /// How long connecting to Redis may take, including authentication. No request waits for it.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Located<Duration>,
    /// What happens while Redis is unreachable or refuses to count, for whatever reason.
    #[serde(default)]
    pub on_error: OnStoreError,
}

/// What is at the addresses of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// One Redis, or something that acts as one: a proxy, or a managed service with one address.
    #[default]
    Standalone,
    /// Sentinels, which know where the master is. They are queried for each new connection.
    Sentinel,
    /// Nodes of a Redis Cluster. All our keys are on one of them.
    Cluster,
}

/// What happens while the store is unreachable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreError {
    /// Each replica enforces its share: the limit divided by the last known number of replicas.
    #[default]
    Share,
    /// Each replica enforces the whole limit on its own, as without a store. Together they may then let
    /// through the limit times the number of replicas.
    Open,
    /// Requests that count against a limit get 503 `limits_unavailable`.
    Closed,
}

impl OnStoreError {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// TLS to a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreTls {
    /// PEM file of CAs that may sign its certificate, instead of the system's.
    pub ca: Option<Located<PathBuf>>,
    /// PEM file of the certificate that Stagedoor presents (with `client_key`). It is read for each
    /// connection.
    pub client_cert: Option<Located<PathBuf>>,
    /// PEM file of its key.
    pub client_key: Option<Located<PathBuf>>,
}

fn prefix() -> Located<String> {
    Located::nowhere("stagedoor".to_owned())
}

fn timeout() -> Located<Duration> {
    Located::nowhere("50ms".parse().expect("a default duration is one"))
}

fn connect_timeout() -> Located<Duration> {
    Located::nowhere("500ms".parse().expect("a default duration is one"))
}
