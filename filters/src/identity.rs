//! Who is calling: a verified token, or a client certificate.

mod asked;
mod backstage;
mod certificates;
mod claims;
mod crypto;
mod keys;
mod p521;
mod proxy_authorization;
mod token;
mod tokens;

use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::{
    Denial, Label, Now,
    denial::{Lack, TokenFault},
};

pub use asked::Asked;
pub(crate) use asked::without_tokens;
pub use certificates::ClientCertificate;
pub use crypto::install_crypto;
pub use keys::{KeyFacts, KeySet, Keys, Source};
pub use proxy_authorization::Shown;
pub(crate) use proxy_authorization::of_listener;
pub use tokens::Tokens;

use certificates::Certificates;
use proxy_authorization::ByPassword;
use token::Jws;
use tokens::Entry;

/// Who is calling, as the IdP (or our CA) vouches.
#[derive(Debug, PartialEq)]
pub struct Caller {
    /// Who, for example `user:default/ada`.
    pub subject: Label,
    /// A person or a program.
    pub kind: CallerKind,
    /// What proved it.
    pub proof: Proof,
    /// Who vouches, by its name in the config.
    pub issuer: Label,
    /// The user a plugin acts for.
    pub on_behalf_of: Option<Label>,
    /// Its roles.
    pub roles: Vec<Label>,
    /// Its groups.
    pub groups: Vec<Label>,
    /// The workspaces its token names.
    pub workspaces: Vec<Label>,
    /// The plugin it is, if it is one.
    pub plugin: Option<Label>,
    /// When the proof ends, in seconds since 1970.
    pub expires: u64,
    /// A number of its own, for what is kept per proof.
    pub id: u64,
}

/// A person or a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A person.
    User,
    /// A program.
    Service,
}

/// What proved who is calling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A bearer token in `Authorization`.
    Token,
    /// A Backstage limited user token in its cookie.
    Cookie,
    /// A token in `Sec-WebSocket-Protocol`, as Backstage's signals send it.
    WebSocketProtocol,
    /// A client certificate.
    ClientCertificate,
    /// A password in `Proxy-Authorization`, or in signing in to an API.
    Password,
    /// A ticket that was given for a password.
    Ticket,
    /// Nothing but having reached a listener that says whose its calls are.
    Listener,
    /// Nothing: a caller that `explain` supposes.
    Supposed,
}

/// Whose tokens are believed. Part of a policy.
#[derive(Debug)]
pub struct Identity {
    issuers: Vec<Issuer>,
    certificates: Certificates,
    by_password: ByPassword,
    /// Tells verified tokens of another identity config apart.
    version: u64,
}

#[derive(Debug)]
struct Issuer {
    name: Label,
    written: config::Issuer,
    source: Source,
}

/// Why nobody in particular is calling.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The reason.
    pub denial: Denial,
    /// What would help, if it were fetched.
    pub lack: Option<Lack>,
    /// Whether it looks like someone trying tokens: garbage, or a signature that is no one's. A
    /// token that was good yesterday does not.
    pub suspect: bool,
    /// Who it is, if the token verified and only what it does not say itself is lacking.
    pub known: Option<Arc<Caller>>,
}

impl Caller {
    /// Somebody that nobody vouches for, to try a policy with.
    pub fn supposed(subject: Label) -> Self {
        Self {
            subject,
            kind: CallerKind::User,
            proof: Proof::Supposed,
            issuer: Label::lossy("supposed"),
            on_behalf_of: None,
            roles: Vec::new(),
            groups: Vec::new(),
            workspaces: Vec::new(),
            plugin: None,
            expires: u64::MAX,
            id: u64::MAX,
        }
    }
}

impl Proof {
    /// That of a name in records.
    pub fn of(name: &str) -> Option<Self> {
        use Proof as P;
        [
            P::Token,
            P::Cookie,
            P::WebSocketProtocol,
            P::ClientCertificate,
            P::Password,
            P::Ticket,
            P::Listener,
            P::Supposed,
        ]
        .into_iter()
        .find(|proof| proof.name() == name)
    }

    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Cookie => "cookie",
            Self::WebSocketProtocol => "websocket_protocol",
            Self::ClientCertificate => "client_certificate",
            Self::Password => "password",
            Self::Ticket => "ticket",
            Self::Listener => "listener",
            Self::Supposed => "supposed",
        }
    }

    /// How much it says of which plugin calls. One process runs all plugins: whatever one of them
    /// knows the others can take, so nothing here is a boundary between them.
    pub fn strength(self) -> &'static str {
        match self {
            Self::Token | Self::Cookie | Self::WebSocketProtocol => "token",
            Self::ClientCertificate => "certificate",
            Self::Password | Self::Ticket => "shared_secret",
            Self::Listener => "listener",
            Self::Supposed => "supposed",
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        use TokenFault as T;
        // Each of these takes a genuine token, or costs nothing to find out.
        let honest = matches!(
            fault,
            T::AudienceWrong | T::PartyWrong | T::Expired | T::NotYetValid | T::ClaimMissing { .. }
        );
        Self { denial: Denial::Token(fault), lack: None, suspect: !honest, known: None }
    }
}

impl Refusal {
    pub(crate) fn plain(denial: Denial) -> Self {
        Self { denial, lack: None, suspect: false, known: None }
    }

    /// The same of somebody who is known, but for what is lacking.
    fn about(self, caller: Caller) -> Self {
        Self { known: Some(Arc::new(caller)), ..self }
    }

    pub(crate) fn suspect(denial: Denial) -> Self {
        Self { denial, lack: None, suspect: true, known: None }
    }
}

/// A token longer than this is nobody's; Backstage's go up to 32 KiB.
const TOKEN_BYTES_MAX: usize = 32 << 10;

impl Identity {
    /// From what the operator wrote.
    pub fn new(config: &config::Config) -> Self {
        let written = &config.identity;
        let issuers = written.issuers.iter();
        let text = serde_json::to_vec(written).expect("a config is data");
        let hash = digest(&SHA256, &text);
        let version = hash.as_ref()[..8].try_into().expect("a SHA-256 has 32 bytes");
        Self {
            issuers: issuers
                .map(|(name, issuer)| Issuer {
                    name: name.into(),
                    written: issuer.value.clone(),
                    source: Source::new(name.into(), issuer, None),
                })
                .collect(),
            certificates: Certificates::new(&written.client_certificates),
            by_password: ByPassword::new(config.egress.callers.iter()),
            version: u64::from_be_bytes(version),
        }
    }

    /// Whether there is an issuer of this name.
    pub(crate) fn has_issuer(&self, name: &str) -> bool {
        self.issuers.iter().any(|issuer| *issuer.name == *name)
    }

    /// Says who is calling. A token that was verified is not verified again until it expires, its
    /// key is withdrawn or the rules change.
    ///
    /// # Errors
    /// Why nobody in particular is calling, and what would help.
    pub fn authenticate(
        &self,
        asked: &Asked<'_>,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Arc<Caller>, Refusal> {
        let Some((token, proof)) = asked.token()? else {
            let caller = asked.certificate.and_then(|shown| self.certificates.caller(shown));
            return caller.ok_or_else(|| Refusal::plain(Denial::CallerMissing));
        };
        self.authenticate_token(token, proof, keys, tokens, now)
    }

    fn authenticate_token(
        &self,
        token: &str,
        proof: Proof,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Arc<Caller>, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLarge.into());
        }
        let key = tokens::key(token, proof);
        if let Some(caller) = tokens.get(&key, self.version, now) {
            return Ok(caller);
        }
        let entry = self.verify(token, proof, keys, tokens, now)?;
        let caller = Arc::clone(&entry.caller);
        tokens.put(key, entry);
        Ok(caller)
    }

    fn verify(
        &self,
        text: &str,
        proof: Proof,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Entry, Refusal> {
        let token = token::Token::read(text)?;
        if let Some(kind) = backstage::Kind::of(&token) {
            return self.backstage(&token, kind, proof, keys, tokens, now);
        }
        if proof == Proof::Cookie {
            return Err(TokenFault::TypeWrong.into());
        }
        let iss = claims::issuer(&token.claims)?;
        let issuer = self
            .issuers
            .iter()
            .find(|i| i.written.kind == config::IssuerKind::Oidc && i.written.issuer == iss)
            .ok_or(TokenFault::IssuerUnknown)?;
        issuer.algorithm(&token.jws)?;
        let rules = &issuer.written;
        let types = &rules.token_types;
        if !types.is_empty() && !types.iter().any(|wanted| token.jws.is_type(wanted)) {
            return Err(TokenFault::TypeWrong.into());
        }
        // Before the signature: old tokens are common, and so cost nothing.
        let expires = claims::times(&token.claims, &rules.leeway, now)?;
        let key = issuer.verified(&token.jws, &issuer.source, keys, now)?;
        claims::audience(&token.claims, |aud| rules.audiences.iter().any(|own| own == aud))?;
        claims::party(&token.claims, &rules.authorized_parties)?;
        let subject = claims::subject(&token.claims, &rules.claims.subject)?;
        let kind = claims::kind(&token.claims);
        let list = |claim| claims::list(&token.claims, claim);
        let caller = Caller {
            subject,
            kind,
            proof,
            issuer: issuer.name.clone(),
            on_behalf_of: None,
            roles: list(&rules.claims.roles)?,
            groups: list(&rules.claims.groups)?,
            workspaces: list(&rules.claims.workspaces)?,
            plugin: None,
            expires,
            id: tokens.next_id(),
        };
        Ok(Entry::new(caller, vec![key], self.version, &rules.leeway))
    }
}

impl Issuer {
    /// Checks that this issuer signs with the token's algorithm. Never taken from the token alone.
    fn algorithm(&self, jws: &Jws<'_>) -> Result<(), TokenFault> {
        let allowed = self.written.algorithms.contains(&jws.algorithm);
        if allowed { Ok(()) } else { Err(TokenFault::AlgorithmRefused) }
    }

    /// The key that signed the token.
    fn verified(
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
        let held = keys.of(source).filter(|held| held.age(now) <= *self.written.keys.age_max);
        let Some(held) = held else {
            let denial = Denial::KeysUnavailable { issuer: self.name.clone() };
            return Err(Refusal { denial, lack: lack(), suspect: false, known: None });
        };
        let Some(key) = held.set.choose(jws.algorithm, jws.key_id.as_deref()) else {
            let denial = Denial::Token(TokenFault::KeyUnknown { issuer: self.name.clone() });
            return Err(Refusal { denial, lack: lack(), suspect: true, known: None });
        };
        if !crypto::verify(jws.algorithm, key, jws.message, jws.signature) {
            return Err(TokenFault::SignatureWrong.into());
        }
        Ok(Arc::clone(key))
    }
}

#[cfg(test)]
mod tests;
