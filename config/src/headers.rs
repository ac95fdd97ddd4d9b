//! The headers that tell an upstream who is calling.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, HeaderPattern, Located};

/// The headers that tell an upstream who is calling. Stagedoor removes them from every request, in every
/// spelling, and sets them from what it verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// The workspace. A client may also choose one with it.
    pub workspace: Located<HeaderName>,
    /// The caller.
    pub caller: Located<HeaderName>,
    /// The plugin.
    pub plugin: Located<HeaderName>,
    /// A signed assertion of all of this: a JWT (ES256, 60 s, `aud` = the upstream's name) that an upstream
    /// can verify with the keys at the admin listener's `/jwks`.
    pub assertion: Located<HeaderName>,
    /// The issuer of the assertion (`iss`).
    pub assertion_issuer: String,
    /// PEM file of the EC P-256 key that signs assertions; replicas share it. Default: a new key at each
    /// start.
    pub assertion_key: Option<Located<std::path::PathBuf>>,
    /// Further headers to remove from every request, by name or by prefix (`x-internal-*`). Headers that
    /// could make an upstream see another caller, client, method or path are always removed: the headers
    /// above, `X-Forwarded-*`, `Forwarded`, `X-Real-IP`, `X-Original-URL`, `X-Rewrite-URL`,
    /// `X-HTTP-Method-Override`, `X-HTTP-Method` and `X-Method-Override`. So are, except from
    /// `trusted_proxies`, headers in which proxies describe a client: its address (`True-Client-IP`,
    /// `CF-Connecting-IP`, `X-Client-IP`, ...), its certificate (`X-Client-Cert*`, `Client-Cert*`, `X-SSL-*`,
    /// ...), what it asked for (`X-Envoy-*`, `X-Original-*`, ...) and who it is (`X-Auth-Request-*`,
    /// `X-Remote-*`, `X-WebAuth-*`, `X-Amzn-Oidc-*`, `CF-Access-*`, ...).
    pub remove: Vec<Located<HeaderPattern>>,
}

impl Default for Headers {
    fn default() -> Self {
        let name = |text: &str| {
            Located::nowhere(text.parse::<HeaderName>().expect("a default header name is valid"))
        };
        Self {
            workspace: name("x-orbit-workspace-id"),
            caller: name("x-orbit-user-id"),
            plugin: name("x-orbit-plugin-id"),
            assertion: name("x-stagedoor-assertion"),
            assertion_issuer: "stagedoor".to_owned(),
            assertion_key: None,
            remove: Vec::new(),
        }
    }
}
