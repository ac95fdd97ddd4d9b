//! Which hosts Backstage may call, on listeners of kind `forward`.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr};

use indexmap::IndexMap;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{Date, Duration, HostPorts, HostRule, Limit, Located, Name, Parent, read_shipped};

/// Which hosts Backstage may call, on listeners of kind `forward`. A host that no rule allows gets 403
/// `host_refused`, and its name is not resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Your own groups of hosts, by name. Built in are `azure-devops`, `azure-resources`, `github`, `gitlab`,
    /// `grafana-cloud`, `jira-cloud`, `pagerduty` and `spacelift`; a group of yours with the same name
    /// replaces the built-in one.
    pub hosts: IndexMap<Name, Vec<Located<HostRule>>>,
    /// Who may call which hosts. One matching rule is enough; the order does not matter.
    pub rules: Vec<Located<EgressRule>>,
    /// Callers that authenticate with `Proxy-Authorization: Basic`, by user name. In Node's proxy variables:
    /// `http://name:password@127.0.0.1:3128`.
    pub callers: IndexMap<Name, Located<EgressCaller>>,
    /// Addresses in your own network that may be called. All other private addresses are refused, whatever
    /// their name: 403 `address_refused`.
    pub private: Vec<Located<PrivateAddresses>>,
    /// The parent proxy between Stagedoor and the internet, if there is one. Takes precedence over the
    /// environment.
    pub parent: Option<Located<Parent>>,
    /// Whether the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in upper or lower case, name the
    /// parent proxy if `parent` is not set: the first for tunnels and `https`, the second for plain `http`. A
    /// variable that leads back to one of our own listeners is ignored, and the log says so.
    pub parent_from_environment: bool,
    /// Public addresses that belong to your own network: refused like private ones.
    #[schemars(with = "Vec<String>")]
    #[serde(deserialize_with = "crate::cidr::networks")]
    pub own_addresses: Vec<IpNet>,
    /// Ports on which a tunnel must carry TLS for the requested name.
    pub tls_ports: Vec<u16>,
    /// What happens when a client hides the server name in TLS (Encrypted Client Hello).
    pub encrypted_client_hello: EncryptedClientHello,
    /// How many calls each workspace may make. One portal page can cause dozens of calls, so this is separate
    /// from `rate_limit.per_workspace`.
    pub per_workspace: Limit,
    /// Concurrent tunnels for each workspace. More get 429 `tunnels_exhausted`.
    pub tunnels_max: u32,
    /// Time to connect to the called host. Then 504 `connect_timeout`. If the host has several addresses,
    /// each gets its share of this time.
    pub connect_timeout: Duration,
    /// Time for the client to send its ClientHello in a tunnel.
    pub client_hello_timeout: Duration,
    /// How long a tunnel may be silent in both directions before it is closed; and how long the called host
    /// may be silent in a plain request before 504 `upstream_timeout`.
    pub idle_timeout: Duration,
    /// How long a tunnel may live.
    pub lifetime_max: Duration,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            hosts: IndexMap::new(),
            rules: Vec::new(),
            callers: IndexMap::new(),
            private: Vec::new(),
            parent: None,
            parent_from_environment: true,
            own_addresses: Vec::new(),
            tls_ports: vec![443, 8443],
            encrypted_client_hello: EncryptedClientHello::Refuse,
            per_workspace: Limit {
                rate: "6000/m".parse().expect("a default rate is one"),
                burst: std::num::NonZeroU32::new(500),
            },
            tunnels_max: 1000,
            connect_timeout: Duration::from_secs(5),
            client_hello_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
            lifetime_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// Lets some callers call some hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Its name, in records.
    pub name: Name,
    /// Groups of hosts (`github`), and hosts (`api.example.com`, `*.example.com:8443`).
    pub to: Vec<Located<Destination>>,
    /// The plugins it is for. Default: all.
    #[serde(default)]
    pub plugins: Vec<Name>,
    /// The workspaces it is for. Default: all.
    #[serde(default)]
    pub workspaces: Vec<Located<Name>>,
    /// Calls that only this rule lets through are recorded with `would_deny`. For a wide rule that you want
    /// to replace with narrower ones.
    #[serde(default)]
    pub report_only: bool,
    /// The owner to contact about it.
    #[serde(default)]
    pub owner: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub reason: Option<String>,
    /// The date from which it allows nothing any more.
    #[serde(default)]
    pub expires: Option<Date>,
}

/// Addresses in your own network that may be called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateAddresses {
    /// The host that may have them: `harbor.corp.example` on every port that a rule allows, or on a single
    /// port, `harbor.corp.example:8443`. A rule must still allow it.
    pub host: Located<HostPorts>,
    /// The addresses that it may resolve to, for example `[10.2.0.0/16]`.
    #[schemars(with = "Vec<String>")]
    #[serde(deserialize_with = "crate::cidr::networks")]
    pub addresses: Vec<IpNet>,
    /// The owner to contact about it.
    #[serde(default)]
    pub owner: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub reason: Option<String>,
    /// The date from which it allows nothing any more.
    #[serde(default)]
    pub expires: Option<Date>,
}

/// A caller that authenticates with a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressCaller {
    /// File with its password, at least 16 bytes. A trailing newline is ignored. The file is watched.
    pub password_file: Located<PathBuf>,
    /// The workspace it calls for.
    #[serde(default)]
    pub workspace: Option<Located<Name>>,
    /// The plugin it is.
    #[serde(default)]
    pub plugin: Option<Name>,
}

/// What happens when a client hides the server name in TLS. Some clients always appear to do so, to hide
/// whether they do (GREASE).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncryptedClientHello {
    /// 403 `hello_refused`.
    #[default]
    Refuse,
    /// The outer name must be the requested one, and the record says `encrypted_client_hello`.
    Report,
}

/// A group of hosts, or a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The hosts of a group: yours (`egress.hosts`) or one we ship.
    Group(Name),
    /// One host, or all below a domain.
    Host(HostRule),
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(['.', ':', '*', '/']) {
            return text.parse().map(Self::Host);
        }
        Name::new(text).map(Self::Group)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => name.fmt(f),
            Self::Host(rule) => rule.fmt(f),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Destination {
    fn schema_name() -> Cow<'static, str> {
        "Destination".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// A group of hosts that we ship (`egress/hosts.yaml`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShippedHosts {
    /// What it covers, and what it leaves out.
    pub about: String,
    /// Its hosts.
    pub hosts: Vec<HostRule>,
}

/// The groups of hosts that we ship.
pub fn shipped_hosts() -> IndexMap<Name, ShippedHosts> {
    read_shipped("egress/hosts.yaml", include_str!("../egress/hosts.yaml"))
}

impl Egress {
    /// The hosts that a rule is for. A group that does not exist has none.
    pub fn hosts_of(
        &self,
        rule: &EgressRule,
        shipped: &IndexMap<Name, ShippedHosts>,
    ) -> Vec<HostRule> {
        let hosts = rule.to.iter().flat_map(|to| match &to.value {
            Destination::Host(host) => vec![host.clone()],
            Destination::Group(name) => match (self.hosts.get(name), shipped.get(name)) {
                (Some(own), _) => own.iter().map(|host| host.value.clone()).collect(),
                (None, Some(shipped)) => shipped.hosts.clone(),
                (None, None) => Vec::new(),
            },
        });
        hosts.collect()
    }
}
