//! A short-lived signed statement of who is calling, for upstreams that verify rather than trust.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use http::HeaderValue;
use moka::sync::Cache;
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use serde_json::json;

use crate::{Label, Now, identity::Caller};

/// The lifetime of a statement.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long one is reused instead of signing a new one: a signature costs more than the rest of a decision.
/// A reused statement is still valid for the other half of its lifetime.
const REUSED: Duration = Duration::from_secs(30);
const CACHED_MAX: u64 = 10_000;

/// What is stated.
#[derive(Debug)]
pub struct Statement<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `sub`, and `obo` for a plugin that acts for a user.
    pub caller: &'a Caller,
    /// `workspace`.
    pub workspace: Option<&'a Label>,
    /// `plugin`.
    pub plugin: Option<&'a Label>,
    /// `aud`: a statement for one upstream is not valid at another.
    pub upstream: &'a Label,
}

/// Signs statements (ES256), and caches recent ones.
pub struct Assertions {
    key: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
    recent: Cache<u64, (Duration, HeaderValue)>,
    hasher: RandomState,
}

/// The key is not an EC P-256 private key.
#[derive(Debug)]
pub struct WrongKey;

impl Assertions {
    /// With a new key.
    pub fn with_new_key() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .expect("the system has random numbers");
        Self::with_key(pkcs8.as_ref()).expect("a key just made is valid")
    }

    /// With an EC P-256 key in PKCS #8 (DER).
    ///
    /// # Errors
    /// [`WrongKey`] if it is not one.
    pub fn with_key(pkcs8: &[u8]) -> Result<Self, WrongKey> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|_| WrongKey)?;
        let fingerprint = digest(&SHA256, key.public_key().as_ref());
        let key_id = BASE64URL.encode(&fingerprint.as_ref()[..16]);
        let recent = Cache::builder().max_capacity(CACHED_MAX).time_to_live(LIFETIME).build();
        Ok(Self { key, random, key_id, recent, hasher: RandomState::new() })
    }

    /// The statement as a JWT, signed at most [`REUSED`] ago.
    pub fn sign(&self, statement: &Statement<'_>, now: Now) -> HeaderValue {
        let key = self.hasher.hash_one((
            statement.issuer,
            statement.caller.id,
            statement.workspace,
            statement.plugin,
            statement.upstream,
        ));
        if let Some((signed, value)) = self.recent.get(&key)
            && now.elapsed.saturating_sub(signed) < REUSED
        {
            return value;
        }
        let value = self.sign_now(statement, now);
        self.recent.insert(key, (now.elapsed, value.clone()));
        value
    }

    /// The public key as a JWKS (RFC 7517), for upstreams.
    pub fn jwks(&self) -> String {
        let point = self.key.public_key().as_ref();
        json!({"keys": [{
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": "ES256",
            "kid": self.key_id,
            "x": BASE64URL.encode(&point[1..33]),
            "y": BASE64URL.encode(&point[33..65]),
        }]})
        .to_string()
    }

    /// Signs a message (ES256).
    pub(crate) fn signature(&self, message: &[u8]) -> Vec<u8> {
        let signature =
            self.key.sign(&self.random, message).expect("the system has random numbers");
        signature.as_ref().to_vec()
    }

    /// Whether a message was signed with this key.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key());
        public.verify(message, signature).is_ok()
    }

    fn sign_now(&self, statement: &Statement<'_>, now: Now) -> HeaderValue {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.key_id});
        let issued = now.unix_seconds();
        // Never longer than the caller's own proof.
        let expires = (issued + LIFETIME.as_secs()).min(statement.caller.expires);
        let mut claims = json!({
            "iss": statement.issuer,
            "aud": statement.upstream.as_str(),
            "sub": statement.caller.subject.as_str(),
            "iat": issued,
            "exp": expires,
        });
        let mut say = |name: &str, value: Option<&Label>| {
            if let Some(value) = value {
                claims[name] = value.as_str().into();
            }
        };
        say("obo", statement.caller.on_behalf_of.as_ref());
        say("workspace", statement.workspace);
        say("plugin", statement.plugin);
        let part = |json: &serde_json::Value| BASE64URL.encode(json.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let token = format!("{message}.{}", BASE64URL.encode(self.signature(message.as_bytes())));
        HeaderValue::from_str(&token).expect("base64url can stand in a header")
    }
}

impl std::fmt::Debug for Assertions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assertions").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}
