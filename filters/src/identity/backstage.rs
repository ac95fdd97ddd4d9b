//! The three tokens of a Backstage backend: user, plugin and limited user.

use std::sync::Arc;

use config::IssuerKind;

use super::{
    Caller, CallerKind, Identity, Issuer, Keys, Proof, Refusal, Tokens, claims,
    keys::Key,
    token::{Jws, Token},
    tokens::Entry,
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

impl Identity {
    pub(super) fn backstage(
        &self,
        token: &Token<'_>,
        kind: Kind,
        proof: Proof,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Entry, Refusal> {
        // Backstage takes a limited user token from its cookie only, and nothing else there.
        if (kind == Kind::LimitedUser) != (proof == Proof::Cookie) {
            return Err(TokenFault::TypeWrong.into());
        }
        let issuer = self.backstage_issuer(token, kind)?;
        issuer.algorithm(&token.jws)?;
        let (caller, signed_by) = match kind {
            Kind::Plugin => issuer.plugin(token, proof, keys, tokens, now)?,
            Kind::User | Kind::LimitedUser => issuer.user(token, kind, proof, keys, tokens, now)?,
        };
        Ok(Entry::new(caller, signed_by, self.version, &issuer.written.leeway))
    }

    /// Only user tokens say who issued them; the others are those of the one Backstage there is.
    fn backstage_issuer(&self, token: &Token<'_>, kind: Kind) -> Result<&Issuer, Refusal> {
        let mut all = self.issuers.iter().filter(|i| i.written.kind == IssuerKind::Backstage);
        let found = match kind {
            Kind::User => {
                let iss = claims::issuer(&token.claims)?;
                all.find(|issuer| issuer.written.issuer == iss)
            }
            Kind::Plugin | Kind::LimitedUser => all.next().filter(|_| all.next().is_none()),
        };
        found.ok_or_else(|| TokenFault::IssuerUnknown.into())
    }
}

impl Issuer {
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
            claims::audience(&token.claims, |aud| aud == "backstage")?;
        }
        let subject = claims::subject(&token.claims, &self.written.claims.subject)?;
        let mut caller = Caller {
            subject,
            kind: CallerKind::User,
            proof,
            issuer: self.name.clone(),
            on_behalf_of: None,
            roles: Vec::new(),
            groups: Vec::new(),
            workspaces: Vec::new(),
            plugin: None,
            expires,
            id: tokens.next_id(),
        };
        caller.groups = match token.claims.get("ent") {
            Some(_) => {
                let at = config::Claim(vec!["ent".to_owned()]);
                claims::list(&token.claims, &at)?
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
        // It becomes part of the address of its keys.
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !id.bytes().all(plain) || id.len() > 64 {
            return Err(TokenFault::Malformed { why: "the subject is not a plugin id" }.into());
        }
        let source = self.source.of_plugin(id.clone());
        let mut expires = claims::times(&token.claims, &self.written.leeway, now)?;
        let mut signed_by = vec![self.verified(&token.jws, &source, keys, now)?];
        claims::audience(&token.claims, |aud| self.written.audiences.iter().any(|own| own == aud))?;
        let (on_behalf_of, groups) = match token.claims.get("obo") {
            None => (None, Ok(Vec::new())),
            Some(obo) => {
                let text = obo.as_str();
                let text = text.ok_or(TokenFault::Malformed { why: "`obo` is not a text" })?;
                let obo = Token::read(text)?;
                let (user, key, until) = self.obo(&obo, keys, now)?;
                signed_by.push(key);
                expires = expires.min(until);
                let groups = self.groups(&user, &obo.jws, tokens, now);
                (Some(user), groups)
            }
        };
        let mut caller = Caller {
            subject: Label::lossy(&format!("plugin:{id}")),
            kind: CallerKind::Service,
            proof,
            issuer: self.name.clone(),
            on_behalf_of,
            roles: Vec::new(),
            groups: Vec::new(),
            workspaces: Vec::new(),
            plugin: Some(id),
            expires,
            id: tokens.next_id(),
        };
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
            return Err(TokenFault::TypeWrong.into());
        }
        self.algorithm(&token.jws)?;
        let until = claims::times(&token.claims, &self.written.leeway, now)?;
        let key = self.verified(&token.jws, &self.source, keys, now)?;
        let user = claims::subject(&token.claims, &self.written.claims.subject)?;
        Ok((user, key, until))
    }

    /// A user's groups. Backstage tells them to a user token or a limited one of theirs.
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
