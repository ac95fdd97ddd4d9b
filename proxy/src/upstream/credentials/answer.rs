//! Parses the responses of an issuer's token endpoint (RFC 6749 5). Errors contain nothing of them but the
//! error code.

use std::time::Duration;

use filters::Now;
use serde_json::Value;

use super::{client::TokenResponse, token::Token};
use crate::secret_file::SECRET_BYTES_MAX;

/// The lifetime of a token without one.
const LIFETIME: Duration = Duration::from_secs(300);

/// The token in a successful response.
pub(super) fn token(answer: &TokenResponse) -> Result<Token, String> {
    let body = granted(answer)?;
    is_bearer(&body)?;
    access_token(&body, answer.asked)
}

/// The body of a successful response.
pub(super) fn granted(answer: &TokenResponse) -> Result<Value, String> {
    if answer.status != 200 {
        let code = error_code(answer).map_or(String::new(), |code| format!(": {code}"));
        return Err(format!("responded with {}{code}", answer.status));
    }
    json(&answer.body)
}

/// Checks that it is a bearer token.
pub(super) fn is_bearer(body: &Value) -> Result<(), String> {
    let kind = body["token_type"].as_str().unwrap_or("bearer");
    if kind.eq_ignore_ascii_case("bearer") {
        return Ok(());
    }
    Err("responds with a token type other than `Bearer`".to_owned())
}

/// The access token of a response to a request at `asked`.
pub(super) fn access_token(body: &Value, asked: Now) -> Result<Token, String> {
    let lifetime = match &body["expires_in"] {
        Value::Null => Some(LIFETIME.as_secs()),
        // Some write it in quotes, some as a fraction.
        Value::String(text) => text.parse().ok(),
        number => number.as_u64().or_else(|| number.as_f64().map(|seconds| seconds as u64)),
    };
    bearer(body, "access_token", lifetime.unwrap_or_default(), asked)
}

/// The parsed body.
pub(super) fn json(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|_| "does not respond with JSON".to_owned())
}

/// The token in this member of a response to a request at `asked`.
pub(super) fn bearer(
    body: &Value,
    member: &str,
    lifetime_seconds: u64,
    asked: Now,
) -> Result<Token, String> {
    let visible = |text: &&str| {
        (1..=SECRET_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let text = body[member].as_str().filter(visible);
    let text = text.ok_or_else(|| format!("responds without a usable `{member}`"))?;
    if lifetime_seconds == 0 {
        return Err("responds with a token that has already expired".to_owned());
    }
    Ok(Token::bearer(text, Duration::from_secs(lifetime_seconds), asked))
}

/// The error code, if it is safe to print.
pub(super) fn error_code(answer: &TokenResponse) -> Option<String> {
    let body = json(&answer.body).ok()?;
    let code = body["error"].as_str()?;
    let plain = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    plain.then(|| code.to_owned())
}

/// An issuer's error description, if it is short and safe to print.
pub(super) fn sentence(value: &Value) -> Option<&str> {
    let text = value.as_str()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" .,:;'()/_-".contains(&b);
    let is_plain = text.bytes().all(plain) && text.split(' ').all(|word| word.len() <= 24);
    (is_plain && (1..=120).contains(&text.len())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_printed_only_if_no_token_fits_into_it() {
        let check = |text: &str, told: bool| {
            assert_eq!(sentence(&Value::from(text)).is_some(), told, "{text}");
        };
        check("A JSON web token could not be decoded", true);
        check("'Expiration time' claim ('exp') is too far in the future", true);
        check("", false);
        check("token eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIxIn0.c2ln is wrong", false);
        check("two\nlines", false);
        check("`code`", false);
        check(&"word ".repeat(30), false);
    }

    #[test]
    fn anything_but_a_bearer_token_is_reported_without_its_content() {
        let check = |status: u16, body: &str, expected: &str| {
            let answer = TokenResponse { status, body: body.into(), asked: Now::default() };
            assert_eq!(token(&answer).err().as_deref(), Some(expected));
        };
        check(200, "<html>hunter2", "does not respond with JSON");
        check(200, "{}", "responds without a usable `access_token`");
        check(200, r#"{"access_token":"hun\nter2"}"#, "responds without a usable `access_token`");
        check(
            200,
            r#"{"access_token":"hunter2","token_type":"DPoP"}"#,
            "responds with a token type other than `Bearer`",
        );
        let ended = "responds with a token that has already expired";
        check(200, r#"{"access_token":"hunter2","expires_in":0}"#, ended);
        check(200, r#"{"access_token":"hunter2","expires_in":-5}"#, ended);
        check(200, r#"{"access_token":"hunter2","expires_in":true}"#, ended);
        check(401, r#"{"error":"invalid_client"}"#, "responded with 401: invalid_client");
        check(400, r#"{"error":"no client 'hunter2'"}"#, "responded with 400");
        check(302, "", "responded with 302");
    }
}
