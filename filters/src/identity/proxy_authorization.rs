//! Who calls on a forward listener: `Proxy-Authorization` (RFC 9110 11.7), or a client certificate.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use config::{EgressCaller, Located, Name};

use super::{
    At, Authenticator, Caller, CallerKind, ClientCertificate, Found, Identity, Proof, Refusal,
};
use crate::{Denial, Label, denial::TokenFault, identity::passwords::Passwords};

/// The parts of a call that can authenticate its caller. Not for printing: it holds passwords and tokens.
#[derive(Clone, Copy)]
pub struct ProxyCredentials<'a> {
    /// The lines of `Proxy-Authorization`.
    pub authorization: &'a [&'a [u8]],
    /// The verified client certificate, if any.
    pub certificate: Option<&'a ClientCertificate>,
    /// The number of its listener in the policy.
    pub listener: usize,
}

/// The callers known by password, by their user name.
#[derive(Debug)]
pub(super) struct ByPassword(HashMap<String, Arc<Caller>>);

impl ByPassword {
    pub(super) fn new<'a>(
        written: impl Iterator<Item = (&'a Name, &'a Located<EgressCaller>)>,
    ) -> Self {
        let caller = |(name, written): (&Name, &Located<EgressCaller>)| {
            let workspace = written.workspace.iter().map(|w| Label::from(&w.value));
            let caller = unproven(name.into(), Proof::Password)
                .with(workspace.collect(), written.plugin.as_ref().map(Label::from));
            (name.to_string(), Arc::new(caller))
        };
        Self(written.map(caller).collect())
    }
}

/// The caller that a forward listener assigns to its calls.
pub(crate) fn of_listener(name: &Name, written: &config::Listener) -> Option<Arc<Caller>> {
    if written.workspace.is_none() && written.plugin.is_none() {
        return None;
    }
    let workspace = written.workspace.iter().map(|w| Label::from(&w.value));
    let caller = unproven(Label::lossy(&format!("listener:{name}")), Proof::Listener)
        .with(workspace.collect(), written.plugin.as_ref().map(Label::from));
    Some(Arc::new(caller))
}

fn unproven(subject: Label, proof: Proof) -> Caller {
    Caller {
        kind: CallerKind::Service,
        proof,
        issuer: Label::lossy("egress"),
        ..Caller::supposed(subject)
    }
}

impl Caller {
    fn with(self, workspaces: Vec<Label>, plugin: Option<Label>) -> Self {
        Self { workspaces, plugin, ..self }
    }
}

impl Authenticator<'_> {
    /// Authenticates the caller on a forward listener; `None` if nothing was presented.
    ///
    /// # Errors
    /// Why the presented credential is not valid, and what to fetch before deciding again.
    pub fn call(&self, shown: &ProxyCredentials<'_>) -> Result<Option<Arc<Caller>>, Refusal> {
        let Self { identity, keys, tokens, passwords, now, .. } = *self;
        let line = match shown.authorization {
            [] => {
                let certificate = shown.certificate;
                return Ok(certificate.and_then(|shown| identity.certificates.caller(shown)));
            }
            [line] => *line,
            _ => return Err(Refusal::plain(Denial::AuthorizationAmbiguous)),
        };
        let malformed =
            || Refusal::from(TokenFault::Malformed { why: "it is not `<scheme> <credentials>`" });
        let text = std::str::from_utf8(line).map_err(|_| malformed())?;
        let (scheme, rest) = text.split_once(' ').ok_or_else(malformed)?;
        // One space or more (RFC 9110 11.4).
        let rest = rest.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("bearer") {
            let found = Found { text: rest, proof: Proof::Token, header: None };
            let at = At { listener: shown.listener, certificate: shown.certificate };
            let token = identity.authenticate_token(&found, at, keys, tokens, now);
            return token.map(Some);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(malformed());
        }
        let decoded = BASE64.decode(rest.trim()).map_err(|_| malformed())?;
        let colon = decoded.iter().position(|b| *b == b':').ok_or_else(malformed)?;
        let name = std::str::from_utf8(&decoded[..colon]).map_err(|_| malformed())?;
        let caller = identity.with_password(name, &decoded[colon + 1..], passwords);
        caller.map(Some).ok_or_else(|| Refusal::suspect(Denial::PasswordWrong))
    }
}

impl Identity {
    /// The caller of this name, if that is its password.
    pub(crate) fn with_password(
        &self,
        name: &str,
        password: &[u8],
        passwords: &Passwords,
    ) -> Option<Arc<Caller>> {
        let caller = self.by_password.0.get(name)?;
        passwords.fits(name, password).then(|| Arc::clone(caller))
    }

    /// The caller of this name, as if its password had been presented.
    pub(crate) fn of_name(&self, name: &str) -> Option<Arc<Caller>> {
        self.by_password.0.get(name).map(Arc::clone)
    }

    /// The caller of this name, with a ticket until then.
    pub(crate) fn named(&self, name: &str, expires: u64) -> Option<Arc<Caller>> {
        let known = self.by_password.0.get(name)?;
        let caller = unproven(known.subject.clone(), Proof::Ticket)
            .with(known.workspaces.clone(), known.plugin.clone());
        Some(Arc::new(Caller { expires, id: known.id, ..caller }))
    }
}
