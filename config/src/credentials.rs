//! What Stagedoor shows to upstreams, so that Backstage need not hold it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, Located, Url};

/// What Stagedoor shows to an upstream that names it in `credential`, in the place of whatever the
/// client sent: the client's own `Authorization` does not reach such an upstream, nor does `header`
/// in any spelling. Cookies do.
///
/// All upstreams that name it must have the same origin (scheme, host and port). Give the routes to
/// them an `access`: whoever passes acts with these rights.
///
/// Secrets stand in files, which are watched: a change is in force within seconds, without a lost
/// request. A line end after a secret is not part of it. At the start, and where it is new in the
/// config, a credential whose file cannot be used is a mistake; later the last secret stays in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// How it is shown, and which of the other keys it has.
    pub kind: CredentialKind,
    /// For `basic`: the user. No colon.
    #[serde(default)]
    pub username: Option<String>,
    /// For `basic`: file of the password.
    #[serde(default)]
    pub password_file: Option<Located<PathBuf>>,
    /// For `header`: the header that holds it. Default: `authorization`.
    #[serde(default)]
    pub header: Option<Located<HeaderName>>,
    /// For `header`: what stands before the secret, with its space, for example `"Bearer "`.
    #[serde(default)]
    pub prefix: Option<String>,
    /// For `header`: file of the secret.
    #[serde(default)]
    pub value_file: Option<Located<PathBuf>>,
    /// For `oauth2_client_credentials`: where tokens are asked for. Redirects are not followed. A
    /// slash at its end is not sent.
    #[serde(default)]
    pub token_url: Option<Located<Url>>,
    /// For `oauth2_client_credentials`: who asks.
    #[serde(default)]
    pub client_id: Option<String>,
    /// For `oauth2_client_credentials`: file of the client's secret.
    #[serde(default)]
    pub client_secret_file: Option<Located<PathBuf>>,
    /// For `oauth2_client_credentials`: how the client proves itself.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// For `oauth2_client_credentials`: the scopes to ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// For `oauth2_client_credentials`: the API the token is for, where the issuer wants to know
    /// (Auth0's `audience`).
    #[serde(default)]
    pub audience: Option<String>,
    /// For `spacelift_api_key`: the key's id. Its secret is in a file.
    #[serde(default)]
    pub key_id: Option<String>,
    /// For `spacelift_api_key`: file of the key's secret.
    #[serde(default)]
    pub key_secret_file: Option<Located<PathBuf>>,
    /// For `oauth2_client_credentials`: PEM file of CAs for `token_url`, instead of the system's.
    #[serde(default)]
    pub ca: Option<Located<PathBuf>>,
}

/// How a credential is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A user and a password in `Authorization` (RFC 7617): Jenkins, Jira, Harbor.
    Basic,
    /// A secret in a header: an API key, a bearer token that does not end.
    Header,
    /// A bearer token of an OAuth 2 client (RFC 6749 4.4), fetched when it is needed and again from
    /// 30 s before it ends. One without `expires_in` counts for 5 min. While `token_url` fails, it
    /// is asked three times in a row, then every 10 s, and the last token is used until it ends; then
    /// requests get 503 `credential_unavailable`. A 401 of the upstream makes the next request fetch
    /// another, once a minute.
    #[serde(rename = "oauth2_client_credentials")]
    ClientCredentials,
    /// An API key of Spacelift's, which is exchanged for a token at `token_url`
    /// (`https://<account>.app.spacelift.io/graphql`) and renewed like those of an OAuth 2 client.
    ///
    /// Spacelift's Backstage plugin insists on signing in with a key (`apiKeyUser`). On routes to
    /// such an upstream it may do so with the name and password of one of `egress.callers`, and is
    /// answered by Stagedoor: with a ticket that is good here for ten minutes, and nowhere else. The
    /// routes say in `graphql` what may be asked.
    SpaceliftApiKey,
}

/// How an OAuth 2 client proves itself (RFC 6749 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// In `Authorization`, which every issuer must take. The default.
    #[default]
    Basic,
    /// In the request's body, as Auth0's clients do by default.
    Post,
}

impl CredentialKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Header => "header",
            Self::ClientCredentials => "oauth2_client_credentials",
            Self::SpaceliftApiKey => "spacelift_api_key",
        }
    }
}

impl Credential {
    /// The file of its secret.
    pub fn secret_file(&self) -> Option<&Located<PathBuf>> {
        match self.kind {
            CredentialKind::Basic => self.password_file.as_ref(),
            CredentialKind::Header => self.value_file.as_ref(),
            CredentialKind::ClientCredentials => self.client_secret_file.as_ref(),
            CredentialKind::SpaceliftApiKey => self.key_secret_file.as_ref(),
        }
    }
}
