//! Issuers' private keys, for tests.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64URL},
};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use serde_json::{Value, json};

use crate::identity::KeySet;

pub(super) const SECRET: &[u8] =
    b"a secret of tests, and of nothing else: 64 bytes long, as HS512!";

/// Signs tokens with one key.
pub(super) struct Signer {
    pub(super) algorithm: &'static str,
    pub(super) kid: Option<&'static str>,
    private: Private,
}

enum Private {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Hmac(hmac::Algorithm),
}

impl Signer {
    /// A new key, or for RSA and HMAC the one there is.
    pub(super) fn new(algorithm: &'static str, kid: &'static str) -> Self {
        let private = match algorithm {
            "ES256" => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "EdDSA" => {
                let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
                Private::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
            }
            "RS256" => Private::Rsa(Box::new(rsa()), &RSA_PKCS1_SHA256),
            "PS512" => Private::Rsa(Box::new(rsa()), &RSA_PSS_SHA512),
            "HS256" => Private::Hmac(hmac::HMAC_SHA256),
            "HS384" => Private::Hmac(hmac::HMAC_SHA384),
            "HS512" => Private::Hmac(hmac::HMAC_SHA512),
            other => panic!("no signer for {other}"),
        };
        Self { algorithm, kid: Some(kid), private }
    }

    /// Its public half.
    pub(super) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64URL.encode(bytes);
        let mut jwk = match &self.private {
            Private::Ec(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Private::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref())})
            }
            Private::Rsa(key, _) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
            Private::Hmac(_) => panic!("a secret has no public half"),
        };
        if let Some(kid) = self.kid {
            jwk["kid"] = kid.into();
        }
        jwk
    }

    /// A token with an ordinary header.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm, "typ": "JWT"});
        if let Some(kid) = self.kid {
            header["kid"] = kid.into();
        }
        self.sign_as(&header, claims)
    }

    pub(super) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A token with these very texts inside.
    pub(super) fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
        format!("{message}.{}", BASE64URL.encode(self.signature(message.as_bytes())))
    }

    pub(super) fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed(key) => key.sign(message).as_ref().to_vec(),
            Private::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Private::Hmac(algorithm) => {
                hmac::sign(&hmac::Key::new(*algorithm, SECRET), message).as_ref().to_vec()
            }
        }
    }
}

/// The JWKS of these.
pub(super) fn jwks(signers: &[&Signer]) -> KeySet {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    KeySet::from_jwks(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Private {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    Private::Ec(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
}

/// ring makes no RSA keys, so this one lies beside the code. It has never been used elsewhere.
fn rsa() -> RsaKeyPair {
    let pem = include_str!("rsa-2048-for-tests-only.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    RsaKeyPair::from_pkcs8(&BASE64_STANDARD.decode(body).unwrap()).unwrap()
}
