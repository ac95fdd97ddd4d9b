//! Whose tokens are believed, and what in them says who is calling.

mod pattern;
mod static_token;
mod token_from;

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{Duration, Located, Name, Url};

pub use pattern::{ClaimCaller, ClaimPattern};
pub use static_token::StaticToken;
pub use token_from::{Padding, TokenFrom};

/// Who vouches for callers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Token issuers, by names of your choice. A token is verified by the issuer whose `issuer` equals its
    /// `iss`.
    pub issuers: IndexMap<Name, Located<Issuer>>,
    /// Callers that authenticate with an opaque token from a file, by names of your choice.
    pub tokens: IndexMap<Name, Located<StaticToken>>,
    /// Callers that authenticate with a client certificate instead of a token.
    pub client_certificates: Vec<Located<CertificateCaller>>,
}

/// One token issuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `oidc` for Keycloak, Auth0, Entra and the like; `backstage` for the tokens of Backstage itself
    /// (user, plugin and limited user tokens); `orbit` for tokens without issuer and audience.
    #[serde(default)]
    pub kind: IssuerKind,
    /// The exact `iss` of its tokens, for example `https://keycloak.example/realms/pcp`. Auth0's
    /// ends with a slash. For Backstage: `<backend.baseUrl>/api/auth`. Only `kind: orbit` has none.
    #[serde(default)]
    pub issuer: String,
    /// The listeners on which its tokens count. Default: all but those of a `kind: orbit`.
    #[serde(default)]
    pub listeners: Vec<Located<Name>>,
    /// A token's audience (`aud`) must be one of these. For `backstage`: the plugins whose plugin tokens are
    /// accepted; user tokens are always for `backstage`.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The claim that names the audience where it is not `aud`, for example `client_id` for access tokens
    /// of Amazon Cognito. It must name one of `audiences`, and so must `aud` if the token has both.
    #[serde(default)]
    pub audience_claim: Option<Claim>,
    /// The same for an audience in the token's header, for example `signer` for AWS's load balancer (ALB),
    /// which puts its ARN there.
    #[serde(default)]
    pub audience_header: Option<String>,
    /// Claims that a token must have, each with one of these values, for example `{token_use: [access]}`.
    #[serde(default)]
    pub required_claims: IndexMap<String, Vec<String>>,
    /// If given, a token's `azp` (or `client_id`) must be one of these. Without an audience mapper Keycloak
    /// names the client only there: list it here, and write `audiences: [account]`.
    #[serde(default)]
    pub authorized_parties: Vec<String>,
    /// What a token's `typ` header must be, for example `[at+jwt]`. Default: `JWT`, `at+jwt` or none. Types
    /// that issuers sign for other purposes (`dpop+jwt`, `secevent+jwt`, `logout+jwt`, `id+jwt` and so on)
    /// are accepted only if they are named here.
    #[serde(default)]
    pub token_types: Vec<String>,
    /// Whether its ID tokens are accepted too, as kubectl's OIDC sign-in and Dex send them. An ID token is
    /// made for the client, not for us, and does not say what the client may do. It is recognized by `nonce`,
    /// `at_hash` or `c_hash` without a scope, by Keycloak's `typ: ID`, or by Cognito's `token_use: id`.
    #[serde(default)]
    pub id_tokens: bool,
    /// Where its tokens are, if not in `Authorization`.
    #[serde(default)]
    pub token_from: Option<TokenFrom>,
    /// The algorithms its tokens may be signed with. HS256, HS384 and HS512 need `keys.secret_file`, and no
    /// other algorithm goes with it.
    #[serde(default = "rs256")]
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are. Default: by discovery (`<issuer>/.well-known/openid-configuration`).
    #[serde(default)]
    pub keys: Keys,
    /// Which claim means what.
    #[serde(default)]
    pub claims: Claims,
    /// If given, only tokens whose claims match one of these are accepted; the first match counts. Others get
    /// 403 `caller_unknown`.
    #[serde(default)]
    pub callers: Vec<Located<ClaimCaller>>,
    /// How far its clock may differ from ours.
    #[serde(default = "leeway")]
    pub leeway: Duration,
}

/// What kind of tokens an issuer makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// JWT access tokens as most OpenID providers make them.
    #[default]
    Oidc,
    /// The three kinds of tokens of a Backstage backend.
    Backstage,
    /// Tokens without `iss` and `aud` that are signed with a secret, as Orbit's design writes them. They
    /// could be meant for any service that has the secret, so they are accepted only on `listeners` that take
    /// no other tokens.
    Orbit,
}

/// A signature algorithm (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are those of RFC 7518")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// Whether it signs with a secret that both sides know.
    pub fn is_hmac(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// Where an issuer's keys are. At most one of `url`, `file`, `secret_file`, `backstage_url`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The JWKS is at this URL; no discovery.
    pub url: Option<Located<Url>>,
    /// The JWKS is in this file, which is watched.
    pub file: Option<Located<PathBuf>>,
    /// A file with a shared secret of at least 32 bytes, for HS256, HS384 and HS512. A trailing newline is
    /// ignored.
    pub secret_file: Option<Located<PathBuf>>,
    /// For `kind: backstage`: the address at which its backend can be reached from here, for example
    /// `http://127.0.0.1:7007`. Keys and user info are fetched from there.
    pub backstage_url: Option<Located<Url>>,
    /// PEM file of CAs for `url`, `backstage_url` and discovery, instead of the system's.
    pub ca: Option<Located<PathBuf>>,
    /// A file with a bearer token to send when keys are fetched, as Kubernetes' API server requires:
    /// `/var/run/secrets/kubernetes.io/serviceaccount/token`. It is read again for each fetch, and sent only
    /// to the host of `url` or of the issuer, and only over `https`.
    pub token_file: Option<Located<PathBuf>>,
    /// Whether keys may be fetched over plain `http` from another machine. Anyone on the network path could
    /// then sign tokens for any caller. This machine (`127.0.0.1`, `::1`, `localhost`) does not need it.
    pub insecure_http: bool,
    /// How often keys are refreshed. An unknown key id triggers a fetch immediately, up to three in a row,
    /// then every 10 s. A key id that was not found is not looked up again for 30 s.
    pub refresh: Duration,
    /// How long the last good keys are used while the issuer is unreachable. After that its tokens get 503
    /// `keys_unavailable`.
    pub age_max: Duration,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            url: None,
            file: None,
            secret_file: None,
            backstage_url: None,
            ca: None,
            token_file: None,
            insecure_http: false,
            refresh: Duration::from_secs(300),
            age_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// Which claim of a token means what. A string names one claim literally, including dots and slashes; a list
/// is a path into nested objects, for example `[realm_access, roles]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Claims {
    /// Who is calling.
    pub subject: Claim,
    /// A list of roles, or one string, split at spaces like `scope`.
    pub roles: Claim,
    /// A list of groups, or one string, which is one group.
    pub groups: Claim,
    /// A list of the workspaces that the caller may act for, or one string, which is one workspace.
    pub workspaces: Claim,
    /// The workspace to use when a request names none, for `claim` in `workspaces.choose_by`.
    pub default_workspace: Option<Claim>,
}

impl Default for Claims {
    fn default() -> Self {
        let named = |name: &str| Claim(vec![name.to_owned()]);
        Self {
            subject: named("sub"),
            roles: named("roles"),
            groups: named("groups"),
            workspaces: named("workspaces"),
            default_workspace: None,
        }
    }
}

/// The place of a claim: its name, or a path into nested objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Claim(pub Vec<String>);

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Claim;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a claim's name or a path such as `[realm_access, roles]`")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Claim, E> {
                if name.is_empty() {
                    return Err(E::custom("a claim needs a name; write for example `groups`"));
                }
                Ok(Claim(vec![name.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<Claim, A::Error> {
                let mut path = Vec::new();
                while let Some(step) = items.next_element::<String>()? {
                    path.push(step);
                }
                if path.is_empty() || path.iter().any(String::is_empty) {
                    return Err(A::Error::custom(
                        "a claim's path needs names; write for example `[realm_access, roles]`",
                    ));
                }
                Ok(Claim(path))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Claim {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Claim".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}
            ]
        })
    }
}

/// A caller that authenticates with a client certificate from the listener's `client_ca`. The first matching
/// entry counts. If a request also carries a token, the token decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateCaller {
    /// The certificate's URI SAN (for example a SPIFFE ID), DNS SAN, email SAN or, if it has no SAN, its
    /// common name. It must match exactly.
    pub name: String,
    /// The caller's name, for example `service:ci`.
    pub caller: String,
    /// Its roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Workspaces it may act for.
    #[serde(default)]
    pub workspaces: Vec<Name>,
    /// On a forward listener: the plugin that calls.
    #[serde(default)]
    pub plugin: Option<Name>,
}

fn rs256() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}
