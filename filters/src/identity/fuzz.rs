//! For fuzzing only: a token's content before verification.

use serde_json::{Map, Value};

use super::token::Token;

/// An unverified token.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "as in a token")]
pub struct Unverified {
    pub algorithm: String,
    pub key_id: Option<String>,
    pub kind: Option<String>,
    pub claims: Map<String, Value>,
}

/// Its content; `None` if it cannot be read in exactly one way.
pub fn unverified(text: &str, padding: config::Padding) -> Option<Unverified> {
    let Token { jws, claims } = Token::read(text, padding).ok()?;
    let algorithm = format!("{:?}", jws.algorithm);
    Some(Unverified { algorithm, key_id: jws.key_id, kind: jws.kind, claims })
}
