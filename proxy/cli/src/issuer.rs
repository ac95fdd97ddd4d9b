//! A signing key as an issuer for development has it: of the demo and of the drill.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

/// Signs with ES256, with a key that was made at the start.
pub(super) struct Signer {
    id: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    /// A new key of this id.
    pub(super) fn new(id: impl Into<String>) -> Self {
        let random = SystemRandom::new();
        let rule = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(rule, &random).expect("there are random numbers");
        let key = EcdsaKeyPair::from_pkcs8(rule, pkcs8.as_ref(), &random);
        Self { id: id.into(), key: key.expect("a key just made is valid"), random }
    }

    /// A token of this type (`typ`) that claims this.
    pub(super) fn token(&self, kind: &str, claims: &Value) -> String {
        let message = unsigned(&json!({"alg": "ES256", "typ": kind, "kid": self.id}), claims);
        let signature = self.key.sign(&self.random, message.as_bytes());
        signed(&message, signature.expect("there are random numbers").as_ref())
    }

    /// The public key, as a JWK Set has it.
    pub(super) fn public(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": BASE64URL.encode(&point[1..33]), "y": BASE64URL.encode(&point[33..]),
        })
    }
}

/// Head and claims of a token, as they are signed.
pub(super) fn unsigned(head: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL.encode(value.to_string());
    format!("{}.{}", part(head), part(claims))
}

/// A token with its signature.
pub(super) fn signed(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", BASE64URL.encode(signature))
}
