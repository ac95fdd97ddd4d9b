//! What Stagedoor shows to upstreams, so that Backstage need not hold it.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, Located, Name, Url};

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
    /// For `oauth2_client_credentials` and `token_exchange`: where tokens are asked for. Redirects are
    /// not followed. A slash at its end is not sent.
    #[serde(default)]
    pub token_url: Option<Located<Url>>,
    /// For `oauth2_client_credentials` and `token_exchange`: who asks.
    #[serde(default)]
    pub client_id: Option<String>,
    /// For `oauth2_client_credentials` and `token_exchange`: file of the client's secret.
    #[serde(default)]
    pub client_secret_file: Option<Located<PathBuf>>,
    /// For `oauth2_client_credentials` and `token_exchange`: how the client proves itself.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// For `oauth2_client_credentials` and `token_exchange`: the scopes to ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// For `oauth2_client_credentials` and `token_exchange`: the API the token is for, where the
    /// issuer wants to know (Auth0's `audience`; in Keycloak the upstream's client).
    #[serde(default)]
    pub audience: Option<String>,
    /// For `spacelift_api_key`: the key's id. Its secret is in a file.
    #[serde(default)]
    pub key_id: Option<String>,
    /// For `spacelift_api_key`: file of the key's secret.
    #[serde(default)]
    pub key_secret_file: Option<Located<PathBuf>>,
    /// For `token_exchange`: the upstream's address as the issuer knows it, where it wants that
    /// instead of `audience` or beside it (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
    /// For `token_exchange`: whose tokens are sent to `token_url`, by their names in
    /// `identity.issuers`. Needed where there are several: a token is nobody's business but its
    /// issuer's. Callers with another's get 401 `caller_token_missing`.
    #[serde(default)]
    pub issuers: Vec<Located<Name>>,
    /// For `token_exchange`: what the caller's token is to the issuer. Default: `access_token`.
    #[serde(default)]
    pub subject_token_type: Option<TokenType>,
    /// For `token_exchange`: what to ask for, where the issuer has several. Not sent by default.
    #[serde(default)]
    pub requested_token_type: Option<TokenType>,
    /// For `github_app`: where GitHub's API is. Default: `https://api.github.com`; GitHub Enterprise
    /// Server has it at `https://<host>/api/v3`.
    #[serde(default)]
    pub api: Option<Located<Url>>,
    /// For `github_app`: the app's client id, or its app id in quotes.
    #[serde(default)]
    pub app_id: Option<String>,
    /// For `github_app`: the installation that tokens are for, the number at the end of its page's
    /// address.
    #[serde(default)]
    pub installation_id: Option<u64>,
    /// For `github_app`: PEM file of the app's private key, as GitHub hands it out (PKCS#1) or in
    /// PKCS#8. It never leaves Stagedoor.
    #[serde(default)]
    pub private_key_file: Option<Located<PathBuf>>,
    /// For `github_app`: the repositories that tokens are for, without their owner. Default: all of
    /// the installation.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// For `github_app`: what tokens may do, for example `{contents: read}`. Default: all that the
    /// installation may.
    #[serde(default)]
    pub permissions: IndexMap<String, Permission>,
    /// For `oauth2_client_credentials`, `token_exchange`, `github_app` and
    /// `spacelift_api_key`: PEM file of CAs for where
    /// tokens are asked for, instead of the system's.
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
    /// A bearer token that the caller's own token, the one that said who is calling, is exchanged for
    /// (RFC 8693): the upstream sees the user, and decides what they may do. It is kept for that
    /// token of that caller alone, until it ends or the caller's does, and renewed as
    /// `oauth2_client_credentials` are. Where the issuer refuses, the caller gets 403
    /// `token_exchange_refused`; while `token_url` fails, those for whom there is no token yet get 503
    /// `credential_unavailable`. Both are remembered for 15 s, and 32 exchanges run at once. A caller
    /// without a token, known by its certificate, gets 401 `caller_token_missing`.
    TokenExchange,
    /// An installation token of a GitHub App, fetched and renewed as `oauth2_client_credentials`
    /// are. It is for GitHub's API; `git` over HTTPS would want it as a password.
    GithubApp,
}

/// What a token is to an issuer (RFC 8693 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenType {
    /// An access token of that issuer itself. Keycloak takes no other.
    AccessToken,
    /// A JWT, of an issuer that it trusts.
    Jwt,
    /// An ID token.
    IdToken,
}

/// How far a permission of a GitHub App goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// To look.
    Read,
    /// To look and to change.
    Write,
    /// To administer.
    Admin,
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
            Self::TokenExchange => "token_exchange",
            Self::GithubApp => "github_app",
        }
    }
}

impl TokenType {
    /// As issuers write it.
    pub fn urn(self) -> &'static str {
        match self {
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
        }
    }
}

impl Credential {
    /// The file of its secret.
    pub fn secret_file(&self) -> Option<&Located<PathBuf>> {
        match self.kind {
            CredentialKind::Basic => self.password_file.as_ref(),
            CredentialKind::Header => self.value_file.as_ref(),
            CredentialKind::ClientCredentials | CredentialKind::TokenExchange => {
                self.client_secret_file.as_ref()
            }
            CredentialKind::GithubApp => self.private_key_file.as_ref(),
            CredentialKind::SpaceliftApiKey => self.key_secret_file.as_ref(),
        }
    }
}
