//! Parses a JWT strictly (RFC 7515, RFC 8725), before anything in it is trusted.

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL,
};
use config::{Algorithm, Padding};
use serde_json::{Map, Value};

use super::keys;
use crate::{denial::TokenFault, types::json};

/// A JWT whose signature has not been verified yet.
pub(super) struct Token<'a> {
    pub(super) jws: Jws<'a>,
    pub(super) claims: Map<String, Value>,
}

/// A signed text, whatever its payload.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) kind: Option<String>,
    header: Map<String, Value>,
    payload: Vec<u8>,
    /// The signed bytes.
    pub(super) message: &'a [u8],
    /// The signature, in base64url without padding.
    pub(super) signature: &'a str,
}

/// Headers by which a token would choose its own key or rules.
const REFUSED: &[&str] = &["crit", "jku", "jwk", "x5u", "x5c", "b64"];

/// As some proxies write it.
const PADDED: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'a> Token<'a> {
    pub(super) fn read(text: &'a str, padding: Padding) -> Result<Self, TokenFault> {
        let jws = Jws::read(text, padding)?;
        let claims = json::object(&jws.payload).map_err(|why| TokenFault::Malformed { why })?;
        Ok(Self { jws, claims })
    }
}

impl<'a> Jws<'a> {
    pub(super) fn read(text: &'a str, padding: Padding) -> Result<Self, TokenFault> {
        let malformed = |why| TokenFault::Malformed { why };
        let parts = text.rsplit_once('.').and_then(|(message, signature)| {
            let (header, payload) = message.split_once('.')?;
            (!payload.contains('.')).then_some((message, header, payload, signature))
        });
        let (message, header, payload, signature) =
            parts.ok_or(malformed("it does not have three parts"))?;
        let engine = match padding {
            Padding::Refused => &BASE64URL,
            Padding::Allowed => &PADDED,
        };
        let decoded =
            |part: &str| engine.decode(part).map_err(|_| malformed("a part is not base64url"));
        // Verified tokens are cached by their text, so there must be only one spelling.
        decoded(signature)?;
        let header = json::object(&decoded(header)?).map_err(malformed)?;
        if let Some(header) = REFUSED.iter().find(|name| header.contains_key(**name)) {
            return Err(TokenFault::HeaderRefused { header });
        }
        let text_of = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(malformed("a header is not a string")),
        };
        let algorithm = text_of("alg")?.ok_or(malformed("it has no `alg`"))?;
        Ok(Self {
            algorithm: keys::algorithm(&algorithm).ok_or(TokenFault::AlgorithmRefused)?,
            key_id: text_of("kid")?,
            kind: text_of("typ")?,
            payload: decoded(payload)?,
            message: message.as_bytes(),
            signature: signature.trim_end_matches('='),
            header,
        })
    }

    /// The whole token, as received.
    pub(super) fn text(&self) -> String {
        let message = String::from_utf8_lossy(self.message);
        format!("{message}.{}", self.signature)
    }

    /// The value of a header member.
    pub(super) fn header_value(&self, name: &str) -> Option<&Value> {
        self.header.get(name)
    }

    /// Whether `typ` is this (RFC 7515 4.1.9: `application/` may be left out).
    pub(super) fn is_type(&self, wanted: &str) -> bool {
        let Some(kind) = &self.kind else { return false };
        let kind = kind.to_ascii_lowercase();
        let wanted = wanted.to_ascii_lowercase();
        kind.strip_prefix("application/").unwrap_or(&kind)
            == wanted.strip_prefix("application/").unwrap_or(&wanted)
    }
}
