//! What Stagedoor shows to upstreams, so that Backstage need not hold it.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, Located, Name, Url};

/// What Stagedoor presents to an upstream that names it in `credential`, instead of what the client sent: the
/// client's own `Authorization` does not reach such an upstream, nor does `header` in any spelling. Cookies
/// do.
///
/// All upstreams that name it must have the same origin (scheme, host and port). Give the routes to them an
/// `access`: every caller that passes acts with these rights.
///
/// Secrets are in files, which are watched: a change takes effect within seconds, without a lost request. A
/// trailing newline is ignored. A credential whose file cannot be used is an error at start, and when it is
/// new in the config; later, the last secret stays in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// How it is presented, and which of the other keys it has.
    pub kind: CredentialKind,
    /// For `basic`: the user name, without a colon.
    #[serde(default)]
    pub username: Option<String>,
    /// For `basic`: file of the password.
    #[serde(default)]
    pub password_file: Option<Located<PathBuf>>,
    /// For `header`: the header that holds it. Default: `authorization`.
    #[serde(default)]
    pub header: Option<Located<HeaderName>>,
    /// For `header`: the text before the secret, including its space, for example `"Bearer "`.
    #[serde(default)]
    pub prefix: Option<String>,
    /// For `header`: file of the secret.
    #[serde(default)]
    pub value_file: Option<Located<PathBuf>>,
    /// For `oauth2_client_credentials` and `token_exchange`: the token endpoint. Redirects are not followed.
    /// A trailing slash is not sent.
    #[serde(default)]
    pub token_url: Option<Located<Url>>,
    /// For `oauth2_client_credentials` and `token_exchange`: the client's id.
    #[serde(default)]
    pub client_id: Option<String>,
    /// For `oauth2_client_credentials` and `token_exchange`: file of the client's secret.
    #[serde(default)]
    pub client_secret_file: Option<Located<PathBuf>>,
    /// For `oauth2_client_credentials` and `token_exchange`: how the client authenticates.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// For `oauth2_client_credentials` and `token_exchange`: the scopes to request.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// For `oauth2_client_credentials` and `token_exchange`: the API that the token is for, if the issuer
    /// asks for it (Auth0's `audience`; in Keycloak the upstream's client).
    #[serde(default)]
    pub audience: Option<String>,
    /// For `spacelift_api_key`: the key's id. Its secret is in a file.
    #[serde(default)]
    pub key_id: Option<String>,
    /// For `spacelift_api_key`: file of the key's secret.
    #[serde(default)]
    pub key_secret_file: Option<Located<PathBuf>>,
    /// For `token_exchange`: the upstream's address as the issuer knows it, if it wants that instead of or
    /// besides `audience` (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
    /// For `token_exchange`: the issuers whose tokens are sent to `token_url`, by their names in
    /// `identity.issuers`. Required if there are several, because a token must only be shown to its own
    /// issuer. Callers with a token of another issuer get 401 `caller_token_missing`.
    #[serde(default)]
    pub issuers: Vec<Located<Name>>,
    /// For `token_exchange`: the type of the caller's token. Default: `access_token`.
    #[serde(default)]
    pub subject_token_type: Option<TokenType>,
    /// For `token_exchange`: the type to request, if the issuer has several. Not sent by default.
    #[serde(default)]
    pub requested_token_type: Option<TokenType>,
    /// For `github_app`: the address of GitHub's API. Default: `https://api.github.com`; for GitHub
    /// Enterprise Server, `https://<host>/api/v3`.
    #[serde(default)]
    pub api: Option<Located<Url>>,
    /// For `github_app`: the app's client id, or its app id in quotes.
    #[serde(default)]
    pub app_id: Option<String>,
    /// For `github_app`: the installation that tokens are for, the number at the end of its page's URL.
    #[serde(default)]
    pub installation_id: Option<u64>,
    /// For `github_app`: PEM file of the app's private key, as GitHub hands it out (PKCS#1) or in
    /// PKCS#8. It never leaves Stagedoor.
    #[serde(default)]
    pub private_key_file: Option<Located<PathBuf>>,
    /// For `github_app`: the repositories that tokens are for, without their owner. Default: all of the
    /// installation's.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// For `github_app`: what tokens may do, for example `{contents: read}`. Default: everything that the
    /// installation may do.
    #[serde(default)]
    pub permissions: IndexMap<String, Permission>,
    /// For `oauth2_client_credentials`, `token_exchange`, `github_app` and `spacelift_api_key`: PEM
    /// file of CAs for the token endpoint, instead of the system's.
    #[serde(default)]
    pub ca: Option<Located<PathBuf>>,
}

/// How a credential is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A user and a password in `Authorization` (RFC 7617): Jenkins, Jira, Harbor.
    Basic,
    /// A secret in a header: an API key, or a bearer token that does not expire.
    Header,
    /// A bearer token for an OAuth 2 client (RFC 6749 4.4), fetched when it is needed and renewed from 30 s
    /// before it expires. One without `expires_in` is used for 5 min. While `token_url` fails, it is tried
    /// three times in a row, then every 10 s, and the last token is used until it expires; then requests get
    /// 503 `credential_unavailable`. After a 401 from the upstream the next request fetches another token, at
    /// most once a minute.
    #[serde(rename = "oauth2_client_credentials")]
    ClientCredentials,
    /// A Spacelift API key, which is exchanged for a token at `token_url`
    /// (`https://<account>.app.spacelift.io/graphql`) and renewed like that of an OAuth 2 client.
    ///
    /// Spacelift's Backstage plugin insists on signing in with a key (`apiKeyUser`). On routes to such an
    /// upstream it may sign in with the name and password of one of `egress.callers`. Stagedoor itself
    /// responds with a ticket that is valid only here, for ten minutes. The routes list in `graphql` which
    /// operations are allowed.
    SpaceliftApiKey,
    /// A bearer token obtained in exchange for the caller's own token, the one that authenticated the caller
    /// (RFC 8693): the upstream sees the user, and decides what the user may do. It is kept for that one
    /// token of that caller until either token expires, and renewed like `oauth2_client_credentials`. If the
    /// issuer refuses, the caller gets 403 `token_exchange_refused`; while `token_url` fails, callers without
    /// an exchanged token get 503 `credential_unavailable`. Both results are remembered for 15 s, and at most
    /// 32 exchanges run concurrently. A caller without a token, known by its certificate, gets 401
    /// `caller_token_missing`.
    TokenExchange,
    /// An installation token of a GitHub App, fetched and renewed like `oauth2_client_credentials`. It is for
    /// GitHub's API; `git` over HTTPS would need it as a password.
    GithubApp,
}

/// The type of a token, to its issuer (RFC 8693 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenType {
    /// An access token of that issuer itself. Keycloak accepts no other.
    AccessToken,
    /// A JWT of an issuer that it trusts.
    Jwt,
    /// An ID token.
    IdToken,
}

/// The level of a GitHub App permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read, write and administer.
    Admin,
}

/// How an OAuth 2 client authenticates (RFC 6749 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// In `Authorization`, which every issuer must support. The default.
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
