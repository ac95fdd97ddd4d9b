//! Signing in to Spacelift, answered here.
//!
//! Its plugin exchanges an API key for a token by a mutation of its own, and shows that token from
//! then on. So that it never holds the key, it is given a name and password of ours in its place,
//! and gets a ticket. What Spacelift is shown is a credential like any other.

use std::sync::Arc;

use http::header;
use serde_json::{Map, Value, json};

use crate::{
    Denial, Head, Label, Now, Policy, Secret, State,
    checks::graphql::{Kind, Operation},
    denial::Lack,
    identity::{Asked, Caller, Refusal, ticket},
    pipeline::routes::Route,
};

/// An answer to somebody who signed in.
#[derive(Debug)]
pub struct SignedIn {
    /// What was asked for.
    pub operation: Label,
    /// The body, in JSON.
    pub body: Secret,
}

/// The mutation that signs in.
const SIGN_IN: &str = "apiKeyUser";

/// Says who is calling, on a route whose upstream is shown an API key: by a ticket, by signing in,
/// or as anywhere else.
pub(crate) fn authenticate(
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    asked: &Asked<'_>,
    route: &Route,
    now: Now,
) -> Result<(Arc<Caller>, Option<SignedIn>), Refusal> {
    let credential = route.credential.as_ref().map_or("", |credential| &*credential.name);
    let shows_nothing = !head.headers.contains_key(header::AUTHORIZATION)
        && asked.certificate.is_none()
        && !asked.is_vouched_for();
    if shows_nothing {
        return sign_in(policy, state, head, credential, now);
    }
    let (identity, keys, tokens) = (&policy.identity, &state.keys, &state.tokens);
    let bearer = if asked.is_vouched_for() { None } else { asked.bearer()? };
    match bearer {
        Some(token) if ticket::is_one(token) => {
            let (name, until) = ticket::name(&state.assertions, token, credential, now)?;
            // Whoever was taken out of the config since then is nobody any more.
            let caller = identity.named(&name, until);
            Ok((caller.ok_or_else(|| Refusal::plain(Denial::CallerMissing))?, None))
        }
        _ => Ok((identity.authenticate(asked, keys, tokens, now)?, None)),
    }
}

fn sign_in(
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    credential: &str,
    now: Now,
) -> Result<(Arc<Caller>, Option<SignedIn>), Refusal> {
    let Some(body) = head.body else {
        return Err(Refusal {
            denial: Denial::CallerMissing,
            lack: Some(Lack::Body),
            suspect: false,
            known: None,
        });
    };
    let operation = Operation::of(head, body).map_err(Refusal::plain)?;
    let [field] = &*operation.fields else {
        return Err(Refusal::plain(Denial::CallerMissing));
    };
    if operation.kind != Kind::Mutation || &*field.name != SIGN_IN {
        return Err(Refusal::plain(Denial::CallerMissing));
    }
    let (id, secret) = (field.text("id"), field.text("secret").map(Secret::new));
    let (id, secret) = (id.unwrap_or_default(), secret.unwrap_or_else(|| Secret::new("")));
    let caller = policy
        .identity
        .with_password(&id, secret.expose().as_bytes(), &state.passwords)
        .ok_or_else(|| Refusal::suspect(Denial::PasswordWrong))?;
    let (ticket, until) = ticket::issue(&state.assertions, &id, credential, now);
    let mut user = Map::new();
    for (key, name) in &field.selected {
        let value = match &**name {
            "id" => id.clone().into(),
            "jwt" => ticket.expose().into(),
            "validUntil" => until.into(),
            "__typename" => "User".into(),
            _ => Value::Null,
        };
        user.insert(key.to_string(), value);
    }
    let body = json!({"data": {&*field.key: user}}).to_string();
    let operation = Label::lossy(&operation.to_string());
    Ok((caller, Some(SignedIn { operation, body: Secret::new(body) })))
}
