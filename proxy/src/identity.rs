//! What tokens are verified against: the keys of issuers, and the digests of opaque tokens.

pub mod jwks;
pub mod opaque_tokens;
