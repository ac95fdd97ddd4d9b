//! The three tokens of a Backstage backend: user, plugin and limited user.

use std::sync::Arc;

use config::{IssuerKind, Padding};

use super::{
    Caller, CallerKind, Identity, Issuer, Keys, Proof, Refusal, Tokens,
    claims::{self, OneText},
    keys::Key,
    token::{Jws, Token},
};
use crate::{
    Denial, Label, Now, Secret,
    denial::{Lack, TokenFault},
};

/// Which of the three a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Plugin,
    LimitedUser,
}

impl Kind {
    pub(super) fn of(token: &Token<'_>) -> Option<Self> {
        let kinds = [
            ("vnd.backstage.user", Self::User),
            ("vnd.backstage.plugin", Self::Plugin),
            ("vnd.backstage.limited-user", Self::LimitedUser),
        ];
        kinds.into_iter().find(|(name, _)| token.jws.is_type(name)).map(|(_, kind)| kind)
    }
}

/// Checks that Backstage would accept the token in this place: a limited user token only in its cookie, and
/// no other token there.
pub(super) fn in_place(kind: Kind, proof: Proof) -> Result<(), Refusal> {
    let fits = (kind == Kind::LimitedUser) == (proof == Proof::Cookie);
    if fits { Ok(()) } else { Err(wrong_place()) }
}

impl Identity {
    /// Only user tokens name their issuer; the others belong to the one configured Backstage.
    pub(super) fn backstage_issuer(
        &self,
        token: &Token<'_>,
        kind: Kind,
        listener: usize,
    ) -> Result<&Issuer, Refusal> {
        let all = self.issuers.iter().filter(|i| i.written.kind == IssuerKind::Backstage);
        let mut all = all.filter(|issuer| issuer.counts_on(listener));
        let (found, seen) = match kind {
            Kind::User => {
                let iss = claims::issuer(&token.claims)?;
                (all.find(|issuer| issuer.written.issuer == iss), Some(Label::lossy(iss)))
            }
            Kind::Plugin | Kind::LimitedUser => (all.next().filter(|_| all.next().is_none()), None),
        };
        found.ok_or_else(|| TokenFault::IssuerUnknown { seen }.into())
    }
}

/// A limited user token outside its cookie, or another token in it.
fn wrong_place() -> Refusal {
    let seen = Label::lossy("a Backstage limited user token is accepted only in its cookie");
    TokenFault::TypeWrong { seen }.into()
}

impl Issuer {
    /// The caller of one of Backstage's tokens, with the keys that signed it.
    pub(super) fn backstage(
        &self,
        token: &Token<'_>,
        kind: Kind,
        proof: Proof,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<(Caller, Vec<Arc<Key>>), Refusal> {
        self.algorithm(&token.jws)?;
        match kind {
            Kind::Plugin => self.plugin(token, proof, keys, tokens, now),
            Kind::User | Kind::LimitedUser => self.user(token, kind, proof, keys, tokens, now),
        }
    }

    fn user(
        &self,
        token: &Token<'_>,
        kind: Kind,
        proof: Proof,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<(Caller, Vec<Arc<Key>>), Refusal> {
        let expires = claims::times(&token.claims, &self.written.leeway, now)?;
        let key = self.verified(&token.jws, &self.source, keys, now)?;
        if kind == Kind::User {
            claims::audience(token.claims.get("aud"), &self.name, |aud| aud == "backstage")?;
        }
        let subject = claims::subject(&token.claims, &self.written.claims.subject)?;
        let mut caller = Caller {
            proof,
            issuer: self.name.clone(),
            expires,
            id: tokens.next_id(),
            ..Caller::supposed(subject)
        };
        caller.groups = match token.claims.get("ent") {
            Some(_) => {
                let at = config::Claim(vec!["ent".to_owned()]);
                claims::list(&token.claims, &at, OneText::Name)?
            }
            None => match self.groups(&caller.subject, &token.jws, tokens, now) {
                Ok(groups) => groups,
                Err(refusal) => return Err(refusal.about(caller)),
            },
        };
        Ok((caller, vec![key]))
    }

    fn plugin(
        &self,
        token: &Token<'_>,
        proof: Proof,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<(Caller, Vec<Arc<Key>>), Refusal> {
        let id = claims::subject(&token.claims, &config::Claim(vec!["sub".to_owned()]))?;
        // It becomes part of the URL of its keys.
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !id.bytes().all(plain) || id.len() > 64 {
            return Err(TokenFault::Malformed { why: "the subject is not a plugin id" }.into());
        }
        let source = self.source.of_plugin(id.clone());
        let mut expires = claims::times(&token.claims, &self.written.leeway, now)?;
        let mut signed_by = vec![self.verified(&token.jws, &source, keys, now)?];
        let is_ours = |aud: &str| self.written.audiences.iter().any(|own| own == aud);
        claims::audience(token.claims.get("aud"), &self.name, is_ours)?;
        let (on_behalf_of, groups) = match token.claims.get("obo") {
            None => (None, Ok(Vec::new())),
            Some(obo) => {
                let text = obo.as_str();
                let text = text.ok_or(TokenFault::Malformed { why: "`obo` is not a string" })?;
                let obo = Token::read(text, Padding::Refused)?;
                let (user, key, until) = self.obo(&obo, keys, now)?;
                signed_by.push(key);
                expires = expires.min(until);
                let groups = self.groups(&user, &obo.jws, tokens, now);
                (Some(user), groups)
            }
        };
        let mut caller = Caller {
            kind: CallerKind::Service,
            proof,
            issuer: self.name.clone(),
            on_behalf_of,
            expires,
            id: tokens.next_id(),
            ..Caller::supposed(Label::lossy(&format!("plugin:{id}")))
        };
        caller.plugin = Some(id);
        match groups {
            Ok(groups) => caller.groups = groups,
            Err(refusal) => return Err(refusal.about(caller)),
        }
        Ok((caller, signed_by))
    }

    /// The user a plugin acts for: a limited user token within the plugin's.
    fn obo(
        &self,
        token: &Token<'_>,
        keys: &Keys,
        now: Now,
    ) -> Result<(Label, Arc<Key>, u64), Refusal> {
        if Kind::of(token) != Some(Kind::LimitedUser) {
            let seen = Label::lossy("`obo` is not a limited user token");
            return Err(TokenFault::TypeWrong { seen }.into());
        }
        self.algorithm(&token.jws)?;
        let until = claims::times(&token.claims, &self.written.leeway, now)?;
        let key = self.verified(&token.jws, &self.source, keys, now)?;
        let user = claims::subject(&token.claims, &self.written.claims.subject)?;
        Ok((user, key, until))
    }

    /// A user's groups. Backstage returns them for a user token or a limited user token.
    fn groups(
        &self,
        user: &Label,
        jws: &Jws<'_>,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Vec<Label>, Refusal> {
        tokens.groups(&self.source, user, now).ok_or_else(|| Refusal {
            denial: Denial::GroupsUnavailable { issuer: self.name.clone() },
            lack: Some(Lack::Groups {
                issuer: self.name.clone(),
                subject: user.clone(),
                token: Secret::new(jws.text()),
            }),
            suspect: false,
            known: None,
        })
    }
}
