//! What is wrong with a token: a stable code, and a sentence that names the value that was found.

use std::fmt;

use crate::Label;

/// What is wrong with a token (RFC 6750, RFC 7515, RFC 7519, RFC 8725). `seen` is the token's own value,
/// truncated to a label.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenFault {
    /// Not three base64url parts with JSON objects, or a member twice, or a claim of a wrong type.
    Malformed { why: &'static str },
    /// Larger than any issuer's tokens.
    TooLarge,
    /// `alg` is not among the issuer's.
    AlgorithmRefused,
    /// A header that would let the token choose its own key or rules (`crit`, `jku`, `jwk`, `x5u`,
    /// `x5c`, `b64`).
    HeaderRefused { header: &'static str },
    /// Its type is not one of the issuer's: by `typ`, or by claims that only other kinds of tokens have.
    TypeWrong { seen: Label },
    /// No issuer is configured for it.
    IssuerUnknown { seen: Option<Label> },
    /// No `kid` where the issuer has several keys, or one it does not have.
    KeyUnknown { issuer: Label },
    /// The signature is not by the key.
    SignatureWrong,
    /// `aud` is missing or someone else's.
    AudienceWrong { issuer: Label, seen: Option<Label> },
    /// `azp` is someone else's.
    PartyWrong { issuer: Label, seen: Option<Label> },
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// A required claim is missing.
    ClaimMissing { claim: &'static str },
    /// A required claim has another value.
    ClaimWrong { issuer: Label, claim: Label },
    /// It is bound to a key or a certificate that the client did not prove.
    Bound,
}

impl TokenFault {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "token_malformed",
            Self::TooLarge => "token_too_large",
            Self::AlgorithmRefused => "token_algorithm_refused",
            Self::HeaderRefused { .. } => "token_header_refused",
            Self::TypeWrong { .. } => "token_type_wrong",
            Self::IssuerUnknown { .. } => "token_issuer_unknown",
            Self::KeyUnknown { .. } => "token_key_unknown",
            Self::SignatureWrong => "token_signature_wrong",
            Self::AudienceWrong { .. } => "token_audience_wrong",
            Self::PartyWrong { .. } => "token_party_wrong",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::ClaimMissing { .. } => "token_claim_missing",
            Self::ClaimWrong { .. } => "token_claim_wrong",
            Self::Bound => "token_bound",
        }
    }

    /// Whether only a genuine token has this fault, or checking it costs next to nothing.
    pub(crate) fn is_honest(&self) -> bool {
        matches!(
            self,
            Self::AudienceWrong { .. }
                | Self::PartyWrong { .. }
                | Self::Expired
                | Self::NotYetValid
                | Self::ClaimMissing { .. }
                | Self::ClaimWrong { .. }
                | Self::Bound
        )
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { why } => write!(f, "the token is malformed: {why}"),
            Self::TooLarge => write!(f, "the token is too large"),
            Self::AlgorithmRefused => write!(f, "the token's algorithm is not one of its issuer's"),
            Self::HeaderRefused { header } => {
                write!(f, "the token has header `{header}`, which is not allowed")
            }
            Self::TypeWrong { seen } => {
                write!(f, "the token's type is not accepted from its issuer: {seen}")
            }
            Self::IssuerUnknown { seen: None } => {
                write!(f, "the token names no issuer, and none is configured for such tokens")
            }
            Self::IssuerUnknown { seen: Some(seen) } => {
                write!(
                    f,
                    "no issuer is configured for the token's `iss` `{seen}`; if it is intended, add an issuer with this `issuer`"
                )
            }
            Self::KeyUnknown { issuer } => {
                write!(f, "issuer `{issuer}` has no key with the token's key id")
            }
            Self::SignatureWrong => write!(f, "the token's signature is wrong"),
            Self::AudienceWrong { issuer, seen: None } => {
                write!(f, "the token names no audience of issuer `{issuer}`")
            }
            Self::AudienceWrong { issuer, seen: Some(seen) } => {
                write!(
                    f,
                    "the token has the wrong audience: `{seen}` is not among the `audiences` of issuer `{issuer}`"
                )
            }
            Self::PartyWrong { issuer, seen } => {
                let seen = seen.as_deref().unwrap_or("nobody");
                write!(
                    f,
                    "the token was issued to another client: `{seen}` is not among the `authorized_parties` of issuer `{issuer}`"
                )
            }
            Self::Expired => write!(f, "the token has expired"),
            Self::NotYetValid => write!(f, "the token is not valid yet"),
            Self::ClaimMissing { claim } => write!(f, "the token has no claim `{claim}`"),
            Self::ClaimWrong { issuer, claim } => {
                write!(
                    f,
                    "the token's `{claim}` is not among the values in `required_claims` of issuer `{issuer}`"
                )
            }
            Self::Bound => {
                write!(
                    f,
                    "the token is bound to a key (`cnf`) that the client did not prove to have"
                )
            }
        }
    }
}
