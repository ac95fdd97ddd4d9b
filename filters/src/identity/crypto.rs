//! The signature provider of jsonwebtoken, by the same `ring` that rustls uses.

use config::Algorithm;
use jsonwebtoken::{
    Algorithm as Jwt, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    signature::{Error as SignatureError, Verifier},
};
use ring::{
    hmac,
    signature::{
        self as ring_sig, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

use super::keys::Key;

/// Makes jsonwebtoken use ring. Once per process; a second call does nothing.
pub fn install_crypto() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
        verifier_factory: |algorithm, key| {
            Ok(Box::new(Ring { algorithm: *algorithm, key: key.clone() }))
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error means that one is installed already.
    let _ = PROVIDER.install_default();
}

/// Whether `signature` (base64url) is this key's signature of `message`.
pub(super) fn verify(algorithm: Algorithm, key: &Key, message: &[u8], signature: &str) -> bool {
    let Some(algorithm) = jwt(algorithm) else {
        return super::p521::verify(key.bytes(), message, signature);
    };
    jsonwebtoken::crypto::verify(signature, message, &key.decoding, algorithm).unwrap_or(false)
}

/// jsonwebtoken's name for an algorithm; it has none for ES512.
fn jwt(algorithm: Algorithm) -> Option<Jwt> {
    Some(match algorithm {
        Algorithm::RS256 => Jwt::RS256,
        Algorithm::RS384 => Jwt::RS384,
        Algorithm::RS512 => Jwt::RS512,
        Algorithm::PS256 => Jwt::PS256,
        Algorithm::PS384 => Jwt::PS384,
        Algorithm::PS512 => Jwt::PS512,
        Algorithm::ES256 => Jwt::ES256,
        Algorithm::ES384 => Jwt::ES384,
        Algorithm::ES512 => return None,
        Algorithm::EdDSA => Jwt::EdDSA,
        Algorithm::HS256 => Jwt::HS256,
        Algorithm::HS384 => Jwt::HS384,
        Algorithm::HS512 => Jwt::HS512,
    })
}

struct Ring {
    algorithm: Jwt,
    key: DecodingKey,
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Jwt {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), SignatureError> {
        self.check(message, signature).map_err(|_| SignatureError::new())
    }
}

impl Ring {
    fn check(&self, message: &[u8], signature: &[u8]) -> Result<()> {
        match self.algorithm {
            Jwt::RS256 => self.rsa(&ring_sig::RSA_PKCS1_2048_8192_SHA256, message, signature),
            Jwt::RS384 => self.rsa(&ring_sig::RSA_PKCS1_2048_8192_SHA384, message, signature),
            Jwt::RS512 => self.rsa(&ring_sig::RSA_PKCS1_2048_8192_SHA512, message, signature),
            Jwt::PS256 => self.rsa(&ring_sig::RSA_PSS_2048_8192_SHA256, message, signature),
            Jwt::PS384 => self.rsa(&ring_sig::RSA_PSS_2048_8192_SHA384, message, signature),
            Jwt::PS512 => self.rsa(&ring_sig::RSA_PSS_2048_8192_SHA512, message, signature),
            Jwt::ES256 => self.point(&ring_sig::ECDSA_P256_SHA256_FIXED, message, signature),
            Jwt::ES384 => self.point(&ring_sig::ECDSA_P384_SHA384_FIXED, message, signature),
            Jwt::EdDSA => self.point(&ring_sig::ED25519, message, signature),
            Jwt::HS256 => self.secret(hmac::HMAC_SHA256, message, signature),
            Jwt::HS384 => self.secret(hmac::HMAC_SHA384, message, signature),
            Jwt::HS512 => self.secret(hmac::HMAC_SHA512, message, signature),
            // An algorithm that jsonwebtoken may add later is not accepted by default.
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    }

    fn rsa(&self, rule: &'static RsaParameters, message: &[u8], signature: &[u8]) -> Result<()> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else {
            return Err(ErrorKind::InvalidKeyFormat.into());
        };
        RsaPublicKeyComponents { n, e }
            .verify(rule, message, signature)
            .map_err(|_| ErrorKind::InvalidSignature.into())
    }

    fn point(
        &self,
        rule: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        UnparsedPublicKey::new(rule, self.key.try_get_as_bytes()?)
            .verify(message, signature)
            .map_err(|_| ErrorKind::InvalidSignature.into())
    }

    fn secret(&self, rule: hmac::Algorithm, message: &[u8], signature: &[u8]) -> Result<()> {
        let key = hmac::Key::new(rule, self.key.try_get_as_bytes()?);
        hmac::verify(&key, message, signature).map_err(|_| ErrorKind::InvalidSignature.into())
    }
}
