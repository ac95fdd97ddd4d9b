//! Reads a token's claims, each of the type it must have.

use std::time::Duration;

use config::Claim;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::{CallerKind, LeftOut};
use crate::{Label, Now, denial::TokenFault};

type Claims = Map<String, Value>;

/// 9999-12-31: a later time is a mistake, or milliseconds.
const SECONDS_MAX: f64 = 253_402_300_799.0;
const ITEMS_MAX: usize = 1000;

/// The token's own `iss`: it only selects whose keys to try.
pub(super) fn issuer(claims: &Claims) -> Result<&str, TokenFault> {
    let iss = claims.get("iss").ok_or(TokenFault::ClaimMissing { claim: "iss" })?;
    iss.as_str().ok_or(TokenFault::Malformed { why: "`iss` is not a string" })
}

/// Checks `exp`, `nbf` and `iat`; returns `exp`.
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

/// A NumericDate (RFC 7519 2): a number, never a string.
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

/// Checks that a claim (`aud`, unless the issuer configures another) is present and names one that is
/// `ours`.
pub(super) fn audience(
    named: Option<&Value>,
    issuer: &Label,
    ours: impl Fn(&str) -> bool,
) -> Result<(), TokenFault> {
    let wrong_type =
        TokenFault::Malformed { why: "the audience is neither a string nor a list of strings" };
    let (fits, seen) = match named {
        None => (false, None),
        Some(Value::String(aud)) => (ours(aud), Some(aud.as_str())),
        Some(Value::Array(all)) => {
            if !all.iter().all(Value::is_string) {
                return Err(wrong_type);
            }
            let mut all = all.iter().filter_map(Value::as_str);
            let first = all.clone().next();
            (all.any(ours), first)
        }
        Some(_) => return Err(wrong_type),
    };
    if fits {
        return Ok(());
    }
    Err(TokenFault::AudienceWrong { issuer: issuer.clone(), seen: seen.map(Label::lossy) })
}

/// Checks `azp`, or `client_id` where there is none, if the operator named parties.
pub(super) fn party(claims: &Claims, issuer: &Label, parties: &[String]) -> Result<(), TokenFault> {
    if parties.is_empty() {
        return Ok(());
    }
    let party = claims.get("azp").or_else(|| claims.get("client_id")).and_then(Value::as_str);
    if party.is_some_and(|party| parties.iter().any(|own| own == party)) {
        return Ok(());
    }
    Err(TokenFault::PartyWrong { issuer: issuer.clone(), seen: party.map(Label::lossy) })
}

/// Checks the claims that the operator requires: a string, or a list that contains it.
pub(super) fn required(
    claims: &Claims,
    issuer: &Label,
    wanted: &IndexMap<String, Vec<String>>,
) -> Result<(), TokenFault> {
    for (name, texts) in wanted {
        let is_one = |value: &Value| value.as_str().is_some_and(|v| texts.iter().any(|t| t == v));
        let fits = match claims.get(name) {
            Some(Value::Array(items)) => items.iter().any(is_one),
            Some(value) => is_one(value),
            None => false,
        };
        if !fits {
            let (issuer, claim) = (issuer.clone(), Label::lossy(name));
            return Err(TokenFault::ClaimWrong { issuer, claim });
        }
    }
    Ok(())
}

/// The caller's name. One that is not a safe label is refused, not changed.
pub(super) fn subject(claims: &Claims, at: &Claim) -> Result<Label, TokenFault> {
    // The usual claim's name stands for any configured claim.
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

/// How a list may be written as one string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OneText {
    /// It is one name, with all its spaces.
    Name,
    /// It is names separated by spaces, like `scope` (RFC 6749 3.3).
    Words,
}

/// A list of names: an array of strings, or one string. A missing claim is empty. A string that is not a
/// plain name is left out: no rule can name it, and the other names still count.
pub(super) fn list(
    claims: &Claims,
    at: &Claim,
    one_text: OneText,
) -> Result<Vec<Label>, TokenFault> {
    let items: Vec<Option<&str>> = match find(claims, at) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) if one_text == OneText::Words => {
            text.split_ascii_whitespace().map(Some).collect()
        }
        Some(Value::String(text)) => vec![Some(text)],
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
        Some(_) => return Err(TokenFault::Malformed { why: "a list is not a list" }),
    };
    if items.len() > ITEMS_MAX {
        return Err(TokenFault::Malformed { why: "a list has more than 1000 items" });
    }
    let texts: Option<Vec<&str>> = items.into_iter().collect();
    let texts =
        texts.ok_or(TokenFault::Malformed { why: "a list has an item that is not a string" })?;
    Ok(texts.into_iter().filter_map(Label::new).collect())
}

/// A string, if it is present and a plain name.
pub(super) fn text(claims: &Claims, at: &Claim) -> Option<Label> {
    find(claims, at)?.as_str().and_then(Label::new)
}

/// Which lists the issuer left out because they are too long: it sends a pointer in their place (OpenID
/// Connect Core 5.6.2), or, as Entra does where a token travels in a URL, only says that there are some.
pub(super) fn left_out(claims: &Claims, rules: &config::Claims) -> LeftOut {
    let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
    let unsaid = match claims.get("hasgroups") {
        Some(Value::Bool(has)) => *has,
        Some(Value::String(has)) => has.eq_ignore_ascii_case("true"),
        _ => false,
    };
    let is_out = |at: &Claim| {
        let Some(first) = at.0.first().filter(|_| find(claims, at).is_none()) else { return false };
        elsewhere.is_some_and(|names| names.contains_key(first)) || unsaid && first == "groups"
    };
    LeftOut {
        roles: is_out(&rules.roles),
        groups: is_out(&rules.groups),
        workspaces: is_out(&rules.workspaces),
    }
}

pub(super) fn find<'a>(claims: &'a Claims, at: &Claim) -> Option<&'a Value> {
    let [first, rest @ ..] = at.0.as_slice() else { return None };
    rest.iter().try_fold(claims.get(first)?, |value, step| value.get(step))
}
