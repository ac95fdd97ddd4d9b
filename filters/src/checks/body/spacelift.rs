//! Signing in to Spacelift, answered here.
//!
//! Its plugin exchanges an API key for a token by a mutation, and presents that token from then on. So that
//! the plugin never holds the key, its config has a name and password of ours in its place, and it gets a
//! ticket. The credential that Spacelift gets is like any other.

use std::sync::Arc;

use http::header;
use serde_json::{Map, Value, json};

use super::{
    BodyAnswer,
    graphql::{Kind, Operation},
};
use crate::{
    Denial, Head, Label, Secret,
    denial::Lack,
    identity::{Authenticator, Caller, Presented, Refusal, ticket},
};

/// Sign-in on a route whose upstream's credential is an API key.
#[derive(Debug)]
pub(super) struct SpaceliftSignIn {
    /// The upstream's credential: a ticket is valid for that alone.
    credential: Label,
}

/// The mutation that signs in.
const SIGN_IN: &str = "apiKeyUser";

impl SpaceliftSignIn {
    pub(super) fn new(credential: &config::Name) -> Self {
        Self { credential: credential.into() }
    }

    /// Authenticates the caller by a ticket, by a sign-in, or as on any other route.
    pub(super) fn authenticate(
        &self,
        head: &Head<'_>,
        presented: &Presented<'_>,
        authenticator: &Authenticator<'_>,
    ) -> Result<(Arc<Caller>, Option<BodyAnswer>), Refusal> {
        let shows_nothing = !head.headers.contains_key(header::AUTHORIZATION)
            && presented.certificate.is_none()
            && !presented.is_vouched_for();
        if shows_nothing {
            let (caller, answer) = self.sign_in(head, authenticator)?;
            return Ok((caller, Some(answer)));
        }
        let Authenticator { identity, assertions, now, .. } = *authenticator;
        let bearer = if presented.is_vouched_for() { None } else { presented.bearer()? };
        match bearer {
            Some(token) if ticket::is_one(token) => {
                let (name, until) = ticket::name(assertions, token, &self.credential, now)?;
                // A caller that was removed from the config since then is unknown.
                let caller = identity.named(&name, until);
                Ok((caller.ok_or_else(|| Refusal::plain(Denial::CallerMissing))?, None))
            }
            _ => Ok((authenticator.request(presented)?, None)),
        }
    }

    fn sign_in(
        &self,
        head: &Head<'_>,
        authenticator: &Authenticator<'_>,
    ) -> Result<(Arc<Caller>, BodyAnswer), Refusal> {
        let Some(body) = head.body else {
            let lack = Some(Lack::Body);
            return Err(Refusal { lack, ..Refusal::plain(Denial::CallerMissing) });
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
        let Authenticator { identity, passwords, assertions, now, .. } = *authenticator;
        let caller = identity
            .with_password(&id, secret.expose().as_bytes(), passwords)
            .ok_or_else(|| Refusal::suspect(Denial::PasswordWrong))?;
        let (ticket, until) = ticket::issue(assertions, &id, &self.credential, now);
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
        Ok((caller, BodyAnswer { operation, body: Secret::new(body) }))
    }
}
