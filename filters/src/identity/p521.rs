//! ES512, which ring does not have.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use p521::ecdsa::{Signature, VerifyingKey, signature::Verifier};

/// Whether `signature` (base64url, r and s side by side) is that of the key at this point.
pub(super) fn verify(point: &[u8], message: &[u8], signature: &str) -> bool {
    let Ok(signature) = BASE64URL.decode(signature) else { return false };
    let key = VerifyingKey::from_sec1_bytes(point);
    let signature = Signature::from_slice(&signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
}
