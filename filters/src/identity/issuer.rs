//! One issuer of tokens, and what its tokens must be like.

use std::sync::Arc;

use config::{Config, IssuerKind, Located};
use http::HeaderName;

use super::{
    Caller, KeySet, Keys, Proof, Refusal, Source, TokenFault, Tokens, bound,
    claims::{self, OneText},
    crypto, keys,
    token::{Jws, Token},
    tokens::Entry,
    types,
};
use crate::{Denial, Label, Now, denial::Lack};

#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: Label,
    pub(super) written: config::Issuer,
    pub(super) source: Source,
    /// The header that has its tokens, if not `Authorization`: its index among all such headers.
    pub(super) header: Option<usize>,
    /// The listeners on which they count, by number. Empty means all that no issuer has for itself.
    pub(super) listeners: Vec<usize>,
}

impl Issuer {
    pub(super) fn new(
        config: &Config,
        name: &config::Name,
        written: &Located<config::Issuer>,
        headers: &[HeaderName],
    ) -> Self {
        let header = written
            .token_from
            .as_ref()
            .map(|from| crate::request::header_name::of_config(&from.header));
        Self {
            name: name.into(),
            written: written.value.clone(),
            source: Source::new(name.into(), written, None),
            header: header.and_then(|name| headers.iter().position(|own| *own == name)),
            listeners: super::numbers(config, &written.listeners),
        }
    }

    pub(super) fn counts_on(&self, listener: usize) -> bool {
        self.listeners.is_empty() || self.listeners.contains(&listener)
    }

    /// Whether its tokens may be padded in this header.
    pub(super) fn padding(&self, header: Option<usize>) -> config::Padding {
        let from = self.written.token_from.as_ref().filter(|_| self.header == header);
        from.map_or(config::Padding::Refused, |from| from.padding)
    }

    /// The caller of a token of this issuer, with the key that signed it.
    pub(super) fn verify(
        &self,
        token: &Token<'_>,
        proof: Proof,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<(Caller, Vec<Arc<keys::Key>>), Refusal> {
        let Token { jws, claims } = token;
        let rules = &self.written;
        self.algorithm(jws)?;
        types::of_header(jws, &rules.token_types)?;
        // Before the signature: expired tokens are common, and cost little this way.
        let expires = claims::times(claims, &rules.leeway, now)?;
        let key = self.verified(jws, &self.source, keys, now)?;
        types::of_claims(jws, claims, rules.id_tokens)?;
        self.audience(token)?;
        claims::party(claims, &self.name, &rules.authorized_parties)?;
        claims::required(claims, &self.name, &rules.required_claims)?;
        let bound_to = bound::certificate(claims)?;
        let subject = claims::subject(claims, &rules.claims.subject)?;
        let list = |claim, one_text| claims::list(claims, claim, one_text);
        let mut caller = Caller {
            kind: claims::kind(claims),
            proof,
            issuer: self.name.clone(),
            roles: list(&rules.claims.roles, OneText::Words)?,
            groups: list(&rules.claims.groups, OneText::Name)?,
            workspaces: list(&rules.claims.workspaces, OneText::Name)?,
            default_workspace: rules
                .claims
                .default_workspace
                .as_ref()
                .and_then(|claim| claims::text(claims, claim)),
            left_out: claims::left_out(claims, &rules.claims),
            bound_to,
            expires,
            id: tokens.next_id(),
            ..Caller::supposed(subject)
        };
        self.by_claims(token, &mut caller)?;
        Ok((caller, vec![key]))
    }

    /// Checks its audience.
    fn audience(&self, token: &Token<'_>) -> Result<(), TokenFault> {
        let rules = &self.written;
        let aud = token.claims.get("aud");
        let is_ours = |aud: &str| rules.audiences.iter().any(|own| own == aud);
        if rules.kind == IssuerKind::Orbit {
            // It has an audience, and none is configured for us.
            let Some(aud) = aud else { return Ok(()) };
            return claims::audience(Some(aud), &self.name, |_| false);
        }
        let elsewhere = match (&rules.audience_claim, &rules.audience_header) {
            (Some(claim), _) => claims::find(&token.claims, claim),
            (None, Some(header)) => token.jws.header_value(header),
            (None, None) => return claims::audience(aud, &self.name, is_ours),
        };
        claims::audience(elsewhere, &self.name, is_ours)?;
        match aud {
            Some(_) => claims::audience(aud, &self.name, is_ours),
            None => Ok(()),
        }
    }

    /// Applies the operator's `callers` rules, which match several claims, to the caller.
    fn by_claims(&self, token: &Token<'_>, caller: &mut Caller) -> Result<(), Refusal> {
        let rules = &self.written.callers;
        if rules.is_empty() {
            return Ok(());
        }
        let fits = |rule: &config::ClaimCaller| {
            rule.claims.iter().all(|(name, pattern)| {
                let said = token.claims.get(name).and_then(serde_json::Value::as_str);
                said.is_some_and(|said| pattern.fits(said))
            })
        };
        let Some(rule) = rules.iter().find(|rule| fits(rule)) else {
            let (issuer, subject) = (self.name.clone(), caller.subject.clone());
            return Err(Refusal::plain(Denial::CallerUnknown { issuer, subject }));
        };
        if let Some(name) = &rule.caller {
            caller.subject = Label::lossy(name);
        }
        caller.roles.extend(rule.roles.iter().map(|text| Label::lossy(text)));
        caller.groups.extend(rule.groups.iter().map(|text| Label::lossy(text)));
        caller.workspaces.extend(rule.workspaces.iter().map(Label::from));
        Ok(())
    }

    /// Checks that the token's algorithm is one of the issuer's. Never taken from the token alone.
    pub(super) fn algorithm(&self, jws: &Jws<'_>) -> Result<(), TokenFault> {
        let allowed = self.written.algorithms.contains(&jws.algorithm);
        if allowed { Ok(()) } else { Err(TokenFault::AlgorithmRefused) }
    }

    /// The key that signed the token.
    pub(super) fn verified(
        &self,
        jws: &Jws<'_>,
        source: &Source,
        keys: &Keys,
        now: Now,
    ) -> Result<Arc<keys::Key>, Refusal> {
        let lack = || {
            Some(Lack::Keys {
                issuer: source.issuer.clone(),
                plugin: source.plugin.clone(),
                kid: jws.key_id.as_deref().map(Label::lossy),
            })
        };
        let unavailable = |lack| {
            let denial = Denial::KeysUnavailable { issuer: self.name.clone() };
            Err(Refusal { denial, lack, suspect: false, known: None })
        };
        let held = keys.of(source).filter(|held| held.age(now) <= *self.written.keys.age_max);
        let Some(held) = held else { return unavailable(lack()) };
        let fitting = held.set.choose(jws.algorithm, jws.key_id.as_deref());
        if fitting.is_empty() {
            // While the issuer is unreachable, it is unknown whether it has that key by now.
            return match held.failed(now) {
                Some(ago) if ago < KeySet::FETCHED_JUST_NOW => unavailable(None),
                Some(_) => unavailable(lack()),
                None => {
                    let denial =
                        Denial::Token(TokenFault::KeyUnknown { issuer: self.name.clone() });
                    Err(Refusal { denial, lack: lack(), suspect: true, known: None })
                }
            };
        }
        let signed =
            |key: &&Arc<keys::Key>| crypto::verify(jws.algorithm, key, jws.message, jws.signature);
        let key = fitting.iter().copied().find(signed).ok_or(TokenFault::SignatureWrong)?;
        Ok(Arc::clone(key))
    }
}

impl Entry {
    /// A valid token by this issuer's rules.
    pub(super) fn of(
        issuer: &Issuer,
        (caller, signed_by): (Caller, Vec<Arc<keys::Key>>),
        version: u64,
    ) -> Self {
        Self::new(caller, signed_by, version, &issuer.written.leeway)
    }
}
