//! A GitHub App: a statement that its key signs is exchanged for a token of one installation.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use filters::{Now, Secret};
use http::header;
use rustls::{SignatureScheme, sign::Signer};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{answer, token::Token};
use crate::{clock, net::fetch};

/// An app that fetches tokens of one installation.
pub(super) struct GithubApp {
    http: fetch::Client,
    url: String,
    app_id: String,
    signer: Box<dyn Signer>,
    /// What narrows a token.
    body: Value,
}

/// The API of github.com.
pub(super) fn api() -> config::Url {
    "https://api.github.com".parse().expect("it is a URL")
}

/// The version of the API that this speaks.
const VERSION: &str = "2022-11-28";
/// A JWT starts in the past, in case our clock is ahead, and lives as long as GitHub allows.
const BEFORE: Duration = Duration::from_secs(60);
const LIFETIME: Duration = Duration::from_secs(600);

impl GithubApp {
    pub(super) fn new(
        written: &config::Credential,
        secret: &Secret,
        http: fetch::Client,
    ) -> Result<Self, String> {
        let api = written.api.as_ref().map_or_else(api, |api| api.value.clone());
        let installation = written.installation_id.unwrap_or_default();
        let mut body = json!({});
        if !written.repositories.is_empty() {
            body["repositories"] = json!(written.repositories);
        }
        if !written.permissions.is_empty() {
            body["permissions"] = json!(written.permissions);
        }
        Ok(Self {
            http,
            url: format!("{api}/app/installations/{installation}/access_tokens"),
            app_id: written.app_id.clone().unwrap_or_default(),
            signer: signer(secret.expose())?,
            body,
        })
    }

    pub(super) async fn ask(&self) -> Result<Token, String> {
        let url = &self.url;
        let asked = clock::now();
        let request = self
            .http
            .post(url)
            .bearer_auth(self.statement(asked)?)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", VERSION)
            .json(&self.body);
        let answer = self.http.send(request, url).await?;
        let status = answer.status().as_u16();
        let body = fetch::body(answer, url).await?;
        token(status, &body, asked).map_err(|why| format!("`{url}` {why}"))
    }

    /// The JWT that identifies the app.
    fn statement(&self, now: Now) -> Result<String, String> {
        let issued = now.unix.saturating_sub(BEFORE);
        let claims = json!({
            "iat": issued.as_secs(),
            "exp": (issued + LIFETIME).as_secs(),
            "iss": self.app_id,
        });
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims));
        let signature = self.signer.sign(message.as_bytes());
        let signature = signature.map_err(|_| "the app's private key cannot sign".to_owned())?;
        Ok(format!("{message}.{}", BASE64URL.encode(signature)))
    }
}

/// Signs with the RSA key in a PEM text.
pub(super) fn signer(pem: &str) -> Result<Box<dyn Signer>, String> {
    let key = certs::key_in(pem.as_bytes())?;
    let key = certs::provider().key_provider.load_private_key(key).ok();
    let signer = key.and_then(|key| key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]));
    signer
        .ok_or_else(|| "it is not an RSA key of 2048 bits or more, as GitHub Apps have".to_owned())
}

/// Parses the response to a request at `asked`.
fn token(status: u16, body: &[u8], asked: Now) -> Result<Token, String> {
    let said = answer::json(body);
    if status != 201 {
        let said = said.unwrap_or_default();
        let message = answer::sentence(&said["message"]);
        let message = message.map_or(String::new(), |message| format!(": {message}"));
        let look_at = match status {
            401 => "; check `app_id`, `private_key_file` and this machine's clock",
            403 => "; the installation may be suspended, or the app over its rate limit",
            404 => "; check `installation_id` and `api`: the app has no such installation there",
            422 => {
                "; check `repositories` and `permissions`: the installation must have all of them"
            }
            _ => "",
        };
        return Err(format!("responded with {status}{message}{look_at}"));
    }
    let said = said?;
    let ends = said["expires_at"].as_str().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
    let ends = ends.ok_or("responds without a usable `expires_at`")?;
    let ends = u64::try_from(ends.unix_timestamp()).unwrap_or_default();
    let lifetime = ends.saturating_sub(asked.unix_seconds());
    answer::bearer(&said, "token", lifetime, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix: u64) -> Now {
        Now { elapsed: Duration::from_secs(5), unix: Duration::from_secs(unix) }
    }

    #[test]
    fn an_installation_token_is_used_until_its_expiry() {
        let body = br#"{"token":"ghs_a","expires_at":"2026-01-01T01:00:00Z","permissions":{}}"#;
        let shown = token(201, body, at(1_767_225_600)).unwrap();
        assert_eq!(shown.value.expose(), "Bearer ghs_a");
        let mut held = crate::upstream::credentials::token::TokenSlot::default();
        held.replace(shown);
        assert_eq!(held.until(), Some(1_767_225_600 + 3600));
    }

    #[test]
    fn githubs_error_is_reported_with_what_to_check() {
        let check = |status: u16, body: &str, expected: &str| {
            let why = token(status, body.as_bytes(), at(1_767_225_600)).err().unwrap();
            assert_eq!(why, expected);
        };
        check(
            401,
            r#"{"message":"A JSON web token could not be decoded","documentation_url":"x"}"#,
            "responded with 401: A JSON web token could not be decoded; check `app_id`, `private_key_file` and this machine's clock",
        );
        check(
            404,
            r#"{"message":"Not Found"}"#,
            "responded with 404: Not Found; check `installation_id` and `api`: the app has no such installation there",
        );
        check(500, "<html>hunter2", "responded with 500");
        check(200, "{}", "responded with 200");
        check(201, "{}", "responds without a usable `expires_at`");
        check(
            201,
            r#"{"token":"a","expires_at":"2025-12-31T23:59:59Z"}"#,
            "responds with a token that has already expired",
        );
        check(
            201,
            r#"{"token":"a\nb","expires_at":"2026-01-01T01:00:00Z"}"#,
            "responds without a usable `token`",
        );
    }

    #[test]
    fn a_key_that_is_not_rsa_cannot_sign_for_an_app() {
        let wrong = |pem: &str| signer(pem).err().unwrap();
        assert_eq!(wrong("hunter2"), "it contains no private key (PEM: PKCS#8, PKCS#1 or SEC1)");
        let ec = certs::dev::Authority::new("a").unwrap().server(&["a"]).unwrap().key;
        assert_eq!(wrong(&ec), "it is not an RSA key of 2048 bits or more, as GitHub Apps have");
    }
}
