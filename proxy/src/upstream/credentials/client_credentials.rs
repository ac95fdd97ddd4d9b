//! Client credentials (RFC 6749 4.4): a token for the client itself.

use filters::Secret;

use super::{answer, client::Client, token::Token};
use crate::net::fetch;

/// A client that fetches its own tokens.
pub(super) struct ClientCredentials {
    client: Client,
    scopes: String,
    audience: Option<String>,
}

impl ClientCredentials {
    pub(super) fn new(written: &config::Credential, secret: &Secret, http: fetch::Client) -> Self {
        Self {
            client: Client::new(written, secret, http),
            scopes: written.scopes.join(" "),
            audience: written.audience.clone(),
        }
    }

    pub(super) async fn ask(&self) -> Result<Token, String> {
        let mut form = vec![("grant_type", "client_credentials")];
        if !self.scopes.is_empty() {
            form.push(("scope", &self.scopes));
        }
        form.extend(self.audience.as_deref().map(|audience| ("audience", audience)));
        let answer = self.client.ask(form).await?;
        answer::token(&answer).map_err(|why| format!("`{}` {why}", self.client.url()))
    }
}
