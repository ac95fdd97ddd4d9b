//! An OAuth 2 client of a token endpoint (RFC 6749 3.2).

use config::ClientAuth;
use filters::{Now, Secret};

use crate::{clock, net::fetch};

/// A client of an issuer.
pub(super) struct Client {
    http: fetch::Client,
    url: String,
    id: String,
    secret: Secret,
    auth: ClientAuth,
}

/// An issuer's response.
pub(super) struct TokenResponse {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// When the request was sent.
    pub(super) asked: Now,
}

impl Client {
    pub(super) fn new(written: &config::Credential, secret: &Secret, http: fetch::Client) -> Self {
        let url = written.token_url.as_ref().expect("a config that is valid has it");
        Self {
            http,
            url: url.to_string(),
            id: written.client_id.clone().unwrap_or_default(),
            secret: secret.clone(),
            auth: written.client_auth.unwrap_or_default(),
        }
    }

    /// The URL of the token endpoint.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sends an authenticated request (RFC 6749 2.3.1).
    pub(super) async fn ask(&self, mut form: Vec<(&str, &str)>) -> Result<TokenResponse, String> {
        let mut request = self.http.post(&self.url);
        match self.auth {
            ClientAuth::Basic => {
                let secret = escaped(self.secret.expose());
                request = request.basic_auth(escaped(&self.id), Some(secret));
            }
            ClientAuth::Post => {
                form.extend([("client_id", &*self.id), ("client_secret", self.secret.expose())]);
            }
        }
        let asked = clock::now();
        let answer = self.http.send(request.form(&form), &self.url).await?;
        let status = answer.status().as_u16();
        let body = fetch::body(answer, &self.url).await?;
        Ok(TokenResponse { status, body, asked })
    }
}

/// A client's id or secret, escaped for `Authorization` (RFC 6749 2.3.1).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_named_as_forms_are_written() {
        assert_eq!(escaped("portal-1_a.B"), "portal-1_a.B");
        assert_eq!(escaped("a:b +%ä"), "a%3Ab%20%2B%25%C3%A4");
    }
}
