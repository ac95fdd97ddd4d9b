//! Spacelift's API key: a mutation of its GraphQL API returns a token for it.

use filters::Secret;
use serde_json::json;

use super::{answer, token::Token};
use crate::{clock, net::fetch};

/// An API key of Spacelift's.
pub(super) struct ApiKey {
    http: fetch::Client,
    url: String,
    id: String,
    secret: Secret,
}

/// The lifetime of a token without one. Spacelift's documentation names none, and its own plugin assumes a
/// minute.
const LIFETIME_SECONDS: u64 = 60;

const MUTATION: &str = "mutation StagedoorToken($id: ID!, $secret: String!) { apiKeyUser(id: $id, secret: $secret) { jwt validUntil } }";

impl ApiKey {
    pub(super) fn new(written: &config::Credential, secret: &Secret, http: fetch::Client) -> Self {
        let url = written.token_url.as_ref().expect("a config that is valid has it").to_string();
        let id = written.key_id.clone().unwrap_or_default();
        Self { http, url, id, secret: secret.clone() }
    }

    pub(super) async fn ask(&self) -> Result<Token, String> {
        let variables = json!({"id": self.id, "secret": self.secret.expose()});
        let asked = clock::now();
        let request = self.http.post(&self.url);
        let request = request.json(&json!({"query": MUTATION, "variables": variables}));
        let answer = self.http.send(request, &self.url).await?;
        let status = answer.status().as_u16();
        let body = fetch::body(answer, &self.url).await?;
        let wrong = |why: &str| format!("`{}` {why}", self.url);
        if status != 200 {
            return Err(wrong(&format!("responded with {status}")));
        }
        let body = answer::json(&body).map_err(|why| wrong(&why))?;
        let user = &body["data"]["apiKeyUser"];
        if user.is_null() {
            return Err(wrong("does not know the key; check `key_id` and its secret"));
        }
        let until = user["validUntil"].as_u64().filter(|until| *until > 0);
        let left = until.map(|until| until.saturating_sub(asked.unix_seconds()));
        answer::bearer(user, "jwt", left.unwrap_or(LIFETIME_SECONDS), asked)
            .map_err(|why| wrong(&why))
    }
}
