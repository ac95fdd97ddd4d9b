//! Which kind of token it is: a token that an issuer signed for another use is not an access token, even
//! with a valid signature (RFC 8725 3.11, 3.12).

use serde_json::{Map, Value};

use super::{TokenFault, token::Jws};
use crate::Label;

/// The default types of access tokens: RFC 7519 5.1, RFC 9068 2.1, the general name of RFC 7515 4.1.9, and
/// what Okta writes.
const USUAL: &[&str] = &["JWT", "at+jwt", "JOSE", "okta-internal-at+jwt"];

/// What Keycloak calls its other tokens in the claim `typ`.
const OF_KEYCLOAK: &[&str] = &[
    "ID",
    "Refresh",
    "Offline",
    "Logout",
    "Serialized-ID",
    "InitialAccessToken",
    "RegistrationAccessToken",
];

/// Checks the header's `typ`, which costs nothing.
///
/// # Errors
/// [`TokenFault::TypeWrong`].
pub(super) fn of_header(jws: &Jws<'_>, wanted: &[String]) -> Result<(), TokenFault> {
    let seen = || match &jws.kind {
        Some(kind) => Label::lossy(&format!("`typ` is `{}`", Label::lossy(kind))),
        None => Label::lossy("it has no `typ`"),
    };
    let fits = match wanted {
        [] => jws.kind.is_none() || USUAL.iter().any(|usual| jws.is_type(usual)),
        wanted => wanted.iter().any(|wanted| jws.is_type(wanted)),
    };
    if fits { Ok(()) } else { Err(TokenFault::TypeWrong { seen: seen() }) }
}

/// Checks for claims that only other kinds of tokens have: many issuers write `JWT` for everything.
///
/// # Errors
/// [`TokenFault::TypeWrong`].
pub(super) fn of_claims(
    jws: &Jws<'_>,
    claims: &Map<String, Value>,
    id_tokens: bool,
) -> Result<(), TokenFault> {
    let wrong = |seen: &str| Err(TokenFault::TypeWrong { seen: Label::lossy(seen) });
    // RFC 8417 2.2, and logout tokens of OpenID Connect Back-Channel Logout 2.4.
    if claims.get("events").is_some_and(Value::is_object) {
        return wrong("it has the claim `events`");
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let kind = text("typ").unwrap_or_default();
    let keycloaks = OF_KEYCLOAK.iter().find(|other| other.eq_ignore_ascii_case(kind));
    match keycloaks {
        Some(&"ID") if id_tokens => {}
        Some(other) => return wrong(&format!("its claim `typ` is `{other}`")),
        None => {}
    }
    if id_tokens || jws.is_type("at+jwt") {
        return Ok(());
    }
    if text("token_use") == Some("id") {
        return wrong("an ID token, by `token_use`; to accept them, write `id_tokens: true`");
    }
    let has_scope = ["scope", "scp"].iter().any(|name| claims.contains_key(*name));
    let told = ["at_hash", "c_hash", "s_hash", "nonce"];
    let told = told.iter().find(|name| claims.contains_key(**name));
    match told {
        Some(by) if !has_scope && !kind.eq_ignore_ascii_case("bearer") => {
            wrong(&format!("an ID token, by `{by}`; to accept them, write `id_tokens: true`"))
        }
        _ => Ok(()),
    }
}
