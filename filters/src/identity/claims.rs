//! What the claims of a token say, each of the type it must have.

use std::time::Duration;

use config::Claim;
use serde_json::{Map, Value};

use super::CallerKind;
use crate::{Label, Now, denial::TokenFault};

type Claims = Map<String, Value>;

/// 9999-12-31: a later time is a mistake, or milliseconds.
const SECONDS_MAX: f64 = 253_402_300_799.0;
const ITEMS_MAX: usize = 1000;

/// Who issued the token, as it says itself: good for choosing whose keys to try, no more.
pub(super) fn issuer(claims: &Claims) -> Result<&str, TokenFault> {
    let iss = claims.get("iss").ok_or(TokenFault::ClaimMissing { claim: "iss" })?;
    iss.as_str().ok_or(TokenFault::Malformed { why: "`iss` is not a text" })
}

/// Checks `exp`, `nbf` and `iat`; answers with `exp`.
pub(super) fn times(claims: &Claims, leeway: &Duration, now: Now) -> Result<u64, TokenFault> {
    let (now, leeway) = (now.unix.as_secs_f64(), leeway.as_secs_f64());
    let expires = time(claims, "exp")?.ok_or(TokenFault::ClaimMissing { claim: "exp" })?;
    if now >= expires + leeway {
        return Err(TokenFault::Expired);
    }
    for name in ["nbf", "iat"] {
        if time(claims, name)?.is_some_and(|from| from > now + leeway) {
            return Err(TokenFault::NotYetValid);
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`time` lets through 0 to the year 9999 only"
    )]
    Ok(expires as u64)
}

/// A NumericDate (RFC 7519 2): a number, never a text.
fn time(claims: &Claims, name: &str) -> Result<Option<f64>, TokenFault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(Some(seconds)),
            _ => Err(TokenFault::Malformed { why: "a time is out of range" }),
        },
        Some(_) => Err(TokenFault::Malformed { why: "a time is not a number" }),
    }
}

/// Checks that `aud` is there and names one that is `ours`.
pub(super) fn audience(claims: &Claims, ours: impl Fn(&str) -> bool) -> Result<(), TokenFault> {
    let wrong_type = TokenFault::Malformed { why: "`aud` is neither a text nor a list of texts" };
    let fits = match claims.get("aud") {
        None => false,
        Some(Value::String(aud)) => ours(aud),
        Some(Value::Array(all)) => {
            if !all.iter().all(Value::is_string) {
                return Err(wrong_type);
            }
            all.iter().filter_map(Value::as_str).any(ours)
        }
        Some(_) => return Err(wrong_type),
    };
    if fits { Ok(()) } else { Err(TokenFault::AudienceWrong) }
}

/// Checks `azp`, or `client_id` where there is none, if the operator named parties.
pub(super) fn party(claims: &Claims, parties: &[String]) -> Result<(), TokenFault> {
    if parties.is_empty() {
        return Ok(());
    }
    let party = claims.get("azp").or_else(|| claims.get("client_id"));
    let fits = party.and_then(Value::as_str).is_some_and(|p| parties.iter().any(|own| own == p));
    if fits { Ok(()) } else { Err(TokenFault::PartyWrong) }
}

/// Who is calling. A name that cannot be shown safely is refused, not changed into another.
pub(super) fn subject(claims: &Claims, at: &Claim) -> Result<Label, TokenFault> {
    let text = find(claims, at).ok_or(TokenFault::ClaimMissing { claim: "sub" })?;
    let text = text.as_str().and_then(Label::new);
    text.ok_or(TokenFault::Malformed { why: "the subject is not a plain name" })
}

/// A person, or a program: client credentials make the client itself the subject (RFC 9068 2.2).
pub(super) fn kind(claims: &Claims) -> CallerKind {
    let subject = claims.get("sub");
    let is_client = ["client_id", "azp"]
        .iter()
        .any(|name| claims.get(*name).is_some_and(|client| Some(client) == subject));
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let service_account = text("preferred_username").starts_with("service-account-");
    let auth0 = text("gty") == "client-credentials";
    if is_client || service_account || auth0 { CallerKind::Service } else { CallerKind::User }
}

/// A list of names: an array of texts, or one text split at spaces. Missing is empty. A text that
/// is no plain name is left out: no rule can name it, and its bearer keeps the other names.
pub(super) fn list(claims: &Claims, at: &Claim) -> Result<Vec<Label>, TokenFault> {
    let value = find(claims, at);
    // Entra sends a pointer instead of a list that has grown too long (OpenID Connect Core 5.6.2).
    let elsewhere = claims.get("_claim_names").zip(at.0.first());
    if value.is_none() && elsewhere.is_some_and(|(names, first)| names.get(first).is_some()) {
        let why = "it points to a list elsewhere (`_claim_names`) as it has too many groups; let \
                   the issuer send fewer";
        return Err(TokenFault::Malformed { why });
    }
    let items: Vec<Option<&str>> = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) => text.split_ascii_whitespace().map(Some).collect(),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
        Some(_) => return Err(TokenFault::Malformed { why: "a list is not a list" }),
    };
    if items.len() > ITEMS_MAX {
        return Err(TokenFault::Malformed { why: "a list has over 1000 items" });
    }
    let texts: Option<Vec<&str>> = items.into_iter().collect();
    let texts = texts.ok_or(TokenFault::Malformed { why: "a list has an item that is no text" })?;
    Ok(texts.into_iter().filter_map(Label::new).collect())
}

fn find<'a>(claims: &'a Claims, at: &Claim) -> Option<&'a Value> {
    let [first, rest @ ..] = at.0.as_slice() else { return None };
    rest.iter().try_fold(claims.get(first)?, |value, step| value.get(step))
}
