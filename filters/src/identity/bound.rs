//! Tokens that are valid only with proof of possession of a key (`cnf`, RFC 7800).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value};

use super::{ClientCertificate, TokenFault};
use crate::{Label, types::hex};

/// The certificate that a token is bound to (RFC 8705 3.1), by its SHA-256 in hex; `None` if it is bound to
/// nothing.
///
/// # Errors
/// [`TokenFault::Bound`] if it is bound to anything else: we verify no DPoP proofs, and the binding exists
/// to prevent its use as a bearer token (RFC 9449 7.1).
pub(super) fn certificate(claims: &Map<String, Value>) -> Result<Option<Label>, TokenFault> {
    let Some(bound) = claims.get("cnf") else { return Ok(None) };
    let members = bound.as_object().ok_or(TokenFault::Bound)?;
    let digest = members.get("x5t#S256").filter(|_| members.len() == 1).and_then(Value::as_str);
    let digest = digest.and_then(|text| BASE64URL.decode(text).ok()).ok_or(TokenFault::Bound)?;
    if digest.len() != 32 {
        return Err(TokenFault::Bound);
    }
    Ok(Some(Label::lossy(&hex::write(&digest))))
}

/// Checks that the client proved the certificate that the token is bound to.
///
/// # Errors
/// [`TokenFault::Bound`].
pub(super) fn proved(
    bound_to: Option<&Label>,
    shown: Option<&ClientCertificate>,
) -> Result<(), TokenFault> {
    let Some(wanted) = bound_to else { return Ok(()) };
    let shown = shown.and_then(|certificate| certificate.fingerprint.as_deref());
    if shown.is_some_and(|shown| shown.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    Err(TokenFault::Bound)
}
