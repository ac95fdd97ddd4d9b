//! Tokens as the config's issuers would make them, and the issuers that vouch for them.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use bytes::Bytes;
use config::{Algorithm, Claim, Issuer, IssuerKind};
use http::{Request, StatusCode, header};
use parking_lot::Mutex;
use ring::hmac;
use serde_json::{Map, Value, json};

use super::http::Play;
use crate::issuer::{Signer, signed, unsigned};
use proxy::clock;

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Person {
    pub(super) subject: String,
    pub(super) roles: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) workspaces: Vec<String>,
}

/// Mints tokens of all issuers of a copy, and plays those issuers.
#[derive(Default)]
pub(super) struct Mint {
    issuers: Vec<(String, Issuer, Key)>,
    /// The groups that Backstage knows of its users.
    groups: Mutex<HashMap<String, Vec<String>>>,
}

enum Key {
    Pair(Mutex<Arc<Signer>>),
    Secret(String),
}

/// How long a token is good.
const LIFE: u64 = 3600;

impl Mint {
    /// Takes an issuer in, as it is written in the copy.
    pub(super) fn add(&mut self, name: &str, issuer: &Issuer, secret: Option<String>) {
        let key = match secret {
            Some(secret) => Key::Secret(secret),
            None => Key::Pair(Mutex::new(Arc::new(Signer::new("first")))),
        };
        self.issuers.push((name.to_owned(), issuer.clone(), key));
    }

    /// The names of the issuers.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|(name, ..)| name.as_str())
    }

    /// Whether an issuer's tokens are those of Backstage.
    pub(super) fn is_backstage(&self, name: &str) -> bool {
        self.find(name).is_some_and(|(issuer, _)| issuer.kind == IssuerKind::Backstage)
    }

    /// Whether an issuer's keys are fetched over the network.
    pub(super) fn is_asked(&self, name: &str) -> bool {
        self.find(name).is_some_and(|(issuer, _)| {
            issuer.keys.file.is_none() && issuer.keys.secret_file.is_none()
        })
    }

    /// From now on issuers have other keys, and sign with those.
    pub(super) fn rotate(&self) {
        for (_, _, key) in &self.issuers {
            if let Key::Pair(signer) = key {
                *signer.lock() = Arc::new(Signer::new("rotated"));
            }
        }
    }

    /// Registers a person with Backstage. All groups must be registered before the first fetch, because the
    /// proxy caches them.
    pub(super) fn know(&self, person: &Person) {
        let mut all = self.groups.lock();
        let known = all.entry(person.subject.clone()).or_default();
        known.extend(
            person
                .groups
                .iter()
                .filter(|group| !known.contains(group))
                .cloned()
                .collect::<Vec<_>>(),
        );
    }

    /// A token of an issuer for a person.
    pub(super) fn token(&self, name: &str, person: &Person) -> String {
        let Some((issuer, key)) = self.find(name) else { return String::new() };
        let claims = claims(issuer, person);
        let kind = match (issuer.kind, issuer.token_types.first()) {
            (IssuerKind::Backstage, _) => "vnd.backstage.user",
            (_, Some(kind)) => kind,
            _ => "at+jwt",
        };
        match key {
            Key::Pair(signer) => Arc::clone(&signer.lock()).token(kind, &claims),
            Key::Secret(secret) => {
                let (name, algorithm) = match issuer.algorithms.first() {
                    Some(Algorithm::HS384) => ("HS384", hmac::HMAC_SHA384),
                    Some(Algorithm::HS512) => ("HS512", hmac::HMAC_SHA512),
                    _ => ("HS256", hmac::HMAC_SHA256),
                };
                let message = unsigned(&json!({"alg": name, "typ": kind}), &claims);
                let key = hmac::Key::new(algorithm, secret.as_bytes());
                signed(&message, hmac::sign(&key, message.as_bytes()).as_ref())
            }
        }
    }

    /// The keys of an issuer, for `keys.file`.
    pub(super) fn keys(&self, name: &str) -> Value {
        match self.find(name) {
            Some((_, Key::Pair(signer))) => json!({"keys": [signer.lock().public()]}),
            _ => json!({"keys": []}),
        }
    }

    fn find(&self, name: &str) -> Option<(&Issuer, &Key)> {
        let found = self.issuers.iter().find(|(of, ..)| of == name);
        found.map(|(_, issuer, key)| (issuer, key))
    }

    /// Backstage's user info for one of its tokens.
    fn user_info(&self, asked: &Request<Bytes>) -> Value {
        let credential = asked.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let subject = credential.and_then(subject).unwrap_or_default();
        let groups = self.groups.lock().get(&subject).cloned().unwrap_or_default();
        json!({"claims": {"sub": subject, "ent": groups}})
    }
}

impl Play for Mint {
    fn answer(&self, asked: &Request<Bytes>) -> (StatusCode, Value) {
        let path = asked.uri().path().trim_start_matches('/');
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        let Some((issuer, _)) = self.find(name) else {
            // A token for an upstream, from any token endpoint.
            let token = json!({
                "access_token": "drill", "token_type": "Bearer", "expires_in": LIFE,
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            });
            return (StatusCode::OK, token);
        };
        let answer = match rest.rsplit('/').next() {
            Some("openid-configuration") => {
                let base = issuer.issuer.trim_end_matches('/');
                json!({"issuer": issuer.issuer, "jwks_uri": format!("{base}/jwks")})
            }
            Some("userinfo") => self.user_info(asked),
            _ => self.keys(name),
        };
        (StatusCode::OK, answer)
    }
}

/// Who a token is for, unverified.
fn subject(bearer: &str) -> Option<String> {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
    let claims = BASE64URL.decode(bearer.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Some(claims["sub"].as_str()?.to_owned())
}

fn claims(issuer: &Issuer, person: &Person) -> Value {
    let now = clock::now().unix_seconds();
    let mut claims = Map::new();
    let audience = match issuer.kind {
        IssuerKind::Backstage => Some("backstage"),
        IssuerKind::Oidc | IssuerKind::Orbit => issuer.audiences.first().map(String::as_str),
    };
    claims.insert("iss".to_owned(), json!(issuer.issuer));
    claims.insert("aud".to_owned(), json!(audience));
    claims.insert("iat".to_owned(), json!(now));
    claims.insert("exp".to_owned(), json!(now + LIFE));
    // So that no two are the same, and none is known already.
    claims.insert("jti".to_owned(), json!(format!("{:016x}", fastrand::u64(..))));
    if let Some(party) = issuer.authorized_parties.first() {
        claims.insert("azp".to_owned(), json!(party));
    }
    put(&mut claims, &issuer.claims.subject, json!(person.subject));
    if issuer.kind != IssuerKind::Backstage {
        put(&mut claims, &issuer.claims.roles, json!(person.roles));
        put(&mut claims, &issuer.claims.groups, json!(person.groups));
        put(&mut claims, &issuer.claims.workspaces, json!(person.workspaces));
    }
    Value::Object(claims)
}

/// Puts a value where a claim's path says.
fn put(claims: &mut Map<String, Value>, at: &Claim, value: Value) {
    let Some((last, path)) = at.0.split_last() else { return };
    let mut map = claims;
    for step in path {
        let inner = map.entry(step.clone()).or_insert_with(|| json!({}));
        let Value::Object(inner) = inner else { return };
        map = inner;
    }
    map.insert(last.clone(), value);
}

/// Where the keys of an issuer are written, if they are in a file.
pub(super) fn keys_file(folder: &std::path::Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.jwks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_set_at_its_path() {
        let mut claims = Map::new();
        let at = |path: &[&str]| Claim(path.iter().map(|step| (*step).to_owned()).collect());
        put(&mut claims, &at(&["realm_access", "roles"]), json!(["deployer"]));
        put(&mut claims, &at(&["realm_access", "more"]), json!(1));
        put(&mut claims, &at(&["https://dxcp.example/claims/roles"]), json!([]));
        let expected = json!({
            "realm_access": {"roles": ["deployer"], "more": 1},
            "https://dxcp.example/claims/roles": [],
        });
        assert_eq!(Value::Object(claims), expected);
    }
}
