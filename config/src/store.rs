//! Where replicas count together.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, HostPort, Located};

/// A Redis (5 or newer, or Valkey) in which several replicas count together, so that a limit of
/// `100/m` is one of 100 for all of them and not for each. Without it each counts alone, and a limit
/// of `100/m` is `300/m` with three. Shared are the limits of workspaces, callers, plugins, routes
/// and calls, and with them idempotency keys in flight and operators'
/// switches. `each_client`, about strangers, stays
/// each replica's own. docs/shared-limits.md has what Redis must allow, what it costs, and how
/// exact it is. All replicas must write the same `prefix`, and use one Redis.
///
/// Redis need not be there: not at the start, and not later. `on_error` says what holds then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// What is at `addresses`.
    #[serde(default)]
    pub kind: StoreKind,
    /// Host and port, for example `[redis.example.com:6379]`. For `sentinel` those of the sentinels,
    /// for `cluster` those of some nodes: they are asked in turn until one answers.
    pub addresses: Vec<Located<HostPort>>,
    /// For `kind: sentinel`: the name under which the sentinels know the master.
    #[serde(default)]
    pub master: Option<Located<String>>,
    /// TLS to Redis, and to the sentinels. Default: none. Certificates must have the names or
    /// addresses that are dialled: with sentinels and in a cluster those that they announce.
    #[serde(default)]
    pub tls: Option<StoreTls>,
    /// Name of the user (ACL). Default: the default user.
    #[serde(default)]
    pub username: Option<String>,
    /// File of its password. It is read for each connection, so it can be changed. A line end after
    /// it is not part of it. Default: none is sent.
    #[serde(default)]
    pub password_file: Option<Located<PathBuf>>,
    /// For `kind: sentinel`: name of the user at the sentinels. Default: their default user.
    #[serde(default)]
    pub sentinel_username: Option<Located<String>>,
    /// For `kind: sentinel`: file of its password there, which is another one than Redis' own.
    /// Default: none is sent.
    #[serde(default)]
    pub sentinel_password_file: Option<Located<PathBuf>>,
    /// What all keys begin with, in braces: `{stagedoor}:`. So they are all in one slot of a cluster.
    /// Another one for each installation that uses this Redis.
    #[serde(default = "prefix")]
    pub prefix: Located<String>,
    /// How long a question to Redis may take. After that it is taken to be away, and requests do not
    /// wait for it until it answers again.
    #[serde(default = "timeout")]
    pub timeout: Located<Duration>,
    /// How long a connection to Redis may take, with its greeting. No request waits for that.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Located<Duration>,
    /// What holds while Redis is away, or does not let us count: whatever the reason.
    #[serde(default)]
    pub on_error: OnStoreError,
}

/// What is at the addresses of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// One Redis, or what stands for one: a proxy, a managed service with one address.
    #[default]
    Standalone,
    /// Sentinels, which know where the master is. They are asked for each new connection.
    Sentinel,
    /// Nodes of a Redis Cluster. All keys of ours are on one of them.
    Cluster,
}

/// What holds while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreError {
    /// Each replica enforces its part: the limit, divided by the replicas there were last.
    #[default]
    Share,
    /// Each replica enforces the whole limit by itself, as without a store. All together may then
    /// let through as many times the limit as there are replicas.
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
    /// PEM file of CAs that vouch for it, instead of the system's.
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
