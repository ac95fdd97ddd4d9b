//! Tokens of our own, for clients that insist on signing in to an API: valid only here.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};

use crate::{Label, Now, Secret, denial::TokenFault, identity::assertion::Assertions, types::json};

/// The lifetime of a ticket.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Its `typ`: a statement for an upstream, signed with the same key, is not a ticket.
const TYPE: &str = "stagedoor-ticket+jwt";

/// A ticket for the caller `name`, for one credential, and its expiry in seconds since 1970.
pub fn issue(key: &Assertions, name: &str, credential: &str, now: Now) -> (Secret, u64) {
    let until = now.unix_seconds() + LIFETIME.as_secs();
    let part = |json: Value| BASE64URL.encode(json.to_string());
    let header = part(json!({"alg": "ES256", "typ": TYPE}));
    let claims = part(json!({"aud": credential, "sub": name, "exp": until}));
    let message = format!("{header}.{claims}");
    let signature = BASE64URL.encode(key.signature(message.as_bytes()));
    (Secret::new(format!("{message}.{signature}")), until)
}

/// Whether a token is a ticket, whoever issued it.
pub fn is_one(token: &str) -> bool {
    header(token).is_some_and(|header| header["typ"] == TYPE)
}

/// The caller of a ticket for this credential, and its expiry.
///
/// # Errors
/// If it is not ours, for another credential, or expired.
pub fn name(
    key: &Assertions,
    token: &str,
    credential: &str,
    now: Now,
) -> Result<(String, u64), TokenFault> {
    let Ticket { name, audience, until } =
        verified(key, token).ok_or(TokenFault::SignatureWrong)?;
    if audience != credential {
        let seen = Some(Label::lossy(&audience));
        return Err(TokenFault::AudienceWrong { issuer: Label::lossy("stagedoor"), seen });
    }
    if until <= now.unix_seconds() {
        return Err(TokenFault::Expired);
    }
    Ok((name, until))
}

/// The claims of a ticket.
struct Ticket {
    name: String,
    audience: String,
    until: u64,
}

/// Its claims, if this key signed it.
fn verified(key: &Assertions, token: &str) -> Option<Ticket> {
    let (message, signature) = token.rsplit_once('.')?;
    let (_, claims) = message.split_once('.')?;
    let signature = BASE64URL.decode(signature).ok()?;
    if !is_one(token) || !key.signed(message.as_bytes(), &signature) {
        return None;
    }
    let claims = json::object(&BASE64URL.decode(claims).ok()?).ok()?;
    let text = |name: &str| claims.get(name)?.as_str().map(str::to_owned);
    let until = claims.get("exp")?.as_u64()?;
    Some(Ticket { name: text("sub")?, audience: text("aud")?, until })
}

fn header(token: &str) -> Option<serde_json::Map<String, Value>> {
    json::object(&BASE64URL.decode(token.split('.').next()?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { elapsed: Duration::ZERO, unix: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_ticket_is_good_for_its_credential_until_it_ends() {
        let (key, other) = (Assertions::with_new_key(), Assertions::with_new_key());
        let (ticket, until) = issue(&key, "backstage", "spacelift", at(1000));
        let text = ticket.expose();
        assert_eq!(until, 1600);
        assert_eq!(name(&key, text, "spacelift", at(1599)), Ok(("backstage".to_owned(), 1600)));
        assert_eq!(name(&key, text, "spacelift", at(1600)), Err(TokenFault::Expired));
        let fault = name(&key, text, "jenkins", at(1000)).unwrap_err();
        assert_eq!(fault.code(), "token_audience_wrong");
        assert_eq!(name(&other, text, "spacelift", at(1000)), Err(TokenFault::SignatureWrong));
    }

    #[test]
    fn a_forged_ticket_and_a_statement_are_none() {
        let key = Assertions::with_new_key();
        let (ticket, _) = issue(&key, "backstage", "spacelift", at(1000));
        let parts: Vec<&str> = ticket.expose().split('.').collect();
        let part = |json: Value| BASE64URL.encode(json.to_string());
        let admin = part(json!({"aud": "spacelift", "sub": "admin", "exp": 9999}));
        let none = part(json!({"alg": "none", "typ": TYPE}));
        // A statement for an upstream by the same key has another type.
        let statement = format!("{}.{admin}", part(json!({"alg": "ES256", "typ": "JWT"})));
        let signature = BASE64URL.encode(key.signature(statement.as_bytes()));
        for forged in [
            format!("{}.{admin}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{admin}.{}", parts[2]),
            format!("{statement}.{signature}"),
            format!("{}.{}", parts[0], parts[1]),
            "..".to_owned(),
            String::new(),
        ] {
            let wrong = Err(TokenFault::SignatureWrong);
            assert_eq!(name(&key, &forged, "spacelift", at(1000)), wrong, "{forged}");
        }
    }
}
