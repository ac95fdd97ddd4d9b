//! Who is calling: a verified token, or a client certificate.

pub mod assertion;
pub mod credentials;
pub mod headers;
pub mod passwords;
pub mod ticket;

mod backstage;
mod bound;
mod certificates;
mod claims;
mod crypto;
#[doc(hidden)]
pub mod fuzz;
mod issuer;
mod keys;
mod opaque;
mod p521;
mod presented;
mod proxy_authorization;
mod token;
mod tokens;
mod types;

use std::sync::Arc;

use config::{IssuerKind, Located, Name, Padding};
use http::HeaderName;

use crate::{Denial, Label, Now, denial::Lack, request::header_name, types::sha256};

pub use crate::{denial::TokenFault, request::certificate::ClientCertificate};
pub use crypto::install_crypto;
pub use keys::{KeyFacts, KeySet, Keys, Source};
pub use opaque::{Opaque, TokenDigest};
pub use presented::Presented;
pub(crate) use presented::{Found, without_tokens};
pub use proxy_authorization::ProxyCredentials;
pub(crate) use proxy_authorization::of_listener;
pub use tokens::Tokens;

use assertion::Assertions;
use certificates::Certificates;
use issuer::Issuer;
use opaque::ByOpaqueToken;
use passwords::Passwords;
use proxy_authorization::ByPassword;
use tokens::Entry;

/// Who is calling, as the IdP (or our CA) vouches.
#[derive(Debug, PartialEq)]
pub struct Caller {
    /// The name, for example `user:default/ada`.
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
    /// The workspace its token names for requests that name none.
    pub default_workspace: Option<Label>,
    /// What its issuer left out of its token.
    pub left_out: LeftOut,
    /// The client certificate that its token is bound to, by its SHA-256 in hex.
    pub bound_to: Option<Label>,
    /// The plugin it is, if it is one.
    pub plugin: Option<Label>,
    /// When the proof ends, in seconds since 1970.
    pub expires: u64,
    /// A unique number, for what is cached per proof.
    pub id: u64,
}

/// Which lists an issuer left out of a token because they are too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the list of its name")]
pub struct LeftOut {
    pub roles: bool,
    pub groups: bool,
    pub workspaces: bool,
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
    /// A token that a trusted proxy set in a header.
    ProxyHeader,
    /// An opaque token in `Authorization`.
    StaticToken,
    /// A client certificate.
    ClientCertificate,
    /// A password in `Proxy-Authorization`, or in an API's sign-in.
    Password,
    /// A ticket issued for a password.
    Ticket,
    /// Nothing but the listener, which names the caller of its calls.
    Listener,
    /// Nothing: a caller that `explain` assumes.
    Supposed,
}

/// Whose tokens are trusted. Part of a policy.
#[derive(Debug)]
pub struct Identity {
    issuers: Vec<Issuer>,
    /// The headers in which trusted proxies present tokens.
    headers: Vec<HeaderName>,
    /// By listener: its only issuer, if it accepts no others.
    alone: Vec<Option<usize>>,
    /// Whether it matters on which listener a token is presented.
    by_listener: bool,
    certificates: Certificates,
    opaque: ByOpaqueToken,
    by_password: ByPassword,
    /// Separates tokens verified under another identity config.
    version: u64,
}

/// What a credential is verified against: the trusted issuers and callers, and what was verified before.
#[derive(Clone, Copy)]
pub struct Authenticator<'a> {
    /// The trusted issuers and callers.
    pub identity: &'a Identity,
    /// The issuers' keys.
    pub keys: &'a Keys,
    /// The tokens verified before.
    pub tokens: &'a Tokens,
    /// The passwords of callers.
    pub passwords: &'a Passwords,
    /// The key that tickets are signed with.
    pub assertions: &'a Assertions,
    /// The time of the request.
    pub now: Now,
}

/// Where a request was received.
#[derive(Clone, Copy)]
struct At<'a> {
    listener: usize,
    certificate: Option<&'a ClientCertificate>,
}

/// Why the caller is not authenticated.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The reason.
    pub denial: Denial,
    /// What to fetch before deciding again, if that could help.
    pub lack: Option<Lack>,
    /// Whether it looks like guessing: garbage, or a signature by no known key. An expired token does not.
    pub suspect: bool,
    /// The caller, if its token verified and only facts outside the token are missing.
    pub known: Option<Arc<Caller>>,
}

impl LeftOut {
    /// Their names.
    pub(crate) fn names(self) -> Vec<Label> {
        [("roles", self.roles), ("groups", self.groups), ("workspaces", self.workspaces)]
            .into_iter()
            .filter(|(_, out)| *out)
            .map(|(name, _)| Label::lossy(name))
            .collect()
    }
}

impl Caller {
    /// A caller without any proof, to try a policy with.
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
            default_workspace: None,
            left_out: LeftOut::default(),
            bound_to: None,
            plugin: None,
            expires: u64::MAX,
            id: u64::MAX,
        }
    }
}

impl Proof {
    /// The proof with this name in records.
    pub fn of(name: &str) -> Option<Self> {
        use Proof as P;
        [
            P::Token,
            P::Cookie,
            P::WebSocketProtocol,
            P::ProxyHeader,
            P::StaticToken,
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
            Self::ProxyHeader => "proxy_header",
            Self::StaticToken => "static_token",
            Self::ClientCertificate => "client_certificate",
            Self::Password => "password",
            Self::Ticket => "ticket",
            Self::Listener => "listener",
            Self::Supposed => "supposed",
        }
    }

    /// How strongly it identifies the calling plugin. One process runs all plugins, and each can read what
    /// another holds, so none of these is a boundary between them.
    pub fn strength(self) -> &'static str {
        match self {
            Self::Token | Self::Cookie | Self::WebSocketProtocol | Self::ProxyHeader => "token",
            Self::ClientCertificate => "certificate",
            Self::Password | Self::Ticket | Self::StaticToken => "shared_secret",
            Self::Listener => "listener",
            Self::Supposed => "supposed",
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        let honest = fault.is_honest();
        Self { denial: Denial::Token(fault), lack: None, suspect: !honest, known: None }
    }
}

impl Refusal {
    pub(crate) fn plain(denial: Denial) -> Self {
        Self { denial, lack: None, suspect: false, known: None }
    }

    /// The same, with the caller that is known but for what is missing.
    fn about(self, caller: Caller) -> Self {
        Self { known: Some(Arc::new(caller)), ..self }
    }

    pub(crate) fn suspect(denial: Denial) -> Self {
        Self { denial, lack: None, suspect: true, known: None }
    }
}

impl Authenticator<'_> {
    /// Authenticates a request.
    ///
    /// # Errors
    /// As [`Identity::authenticate`].
    pub fn request(&self, presented: &Presented<'_>) -> Result<Arc<Caller>, Refusal> {
        self.identity.authenticate(presented, self.keys, self.tokens, self.now)
    }
}

/// A longer token is refused; Backstage's go up to 32 KiB.
const TOKEN_BYTES_MAX: usize = 32 << 10;

/// The numbers of listeners, as a policy has them.
fn numbers(config: &config::Config, named: &[Located<Name>]) -> Vec<usize> {
    let number = |name: &Located<Name>| config.listeners.get_index_of(&name.value);
    named.iter().filter_map(number).collect()
}

impl Identity {
    /// From what the operator wrote.
    pub fn new(config: &config::Config) -> Self {
        let written = &config.identity;
        let text = serde_json::to_vec(written).expect("a config is data");
        let headers = written.issuers.values().filter_map(|issuer| issuer.token_from.as_ref());
        let mut headers: Vec<_> =
            headers.map(|from| header_name::of_config(&from.header)).collect();
        headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        headers.dedup();
        let issuers: Vec<Issuer> = written
            .issuers
            .iter()
            .map(|(name, issuer)| Issuer::new(config, name, issuer, &headers))
            .collect();
        let alone = |listener: usize| {
            let takes = |issuer: &Issuer| {
                issuer.written.kind == IssuerKind::Orbit && issuer.listeners.contains(&listener)
            };
            issuers.iter().position(takes)
        };
        Self {
            alone: (0..config.listeners.len()).map(alone).collect(),
            by_listener: issuers.iter().any(|issuer| !issuer.listeners.is_empty()),
            issuers,
            headers,
            certificates: Certificates::new(&written.client_certificates),
            opaque: ByOpaqueToken::new(config),
            by_password: ByPassword::new(config.egress.callers.iter()),
            version: sha256::number(&text),
        }
    }

    /// Whether there is an issuer of this name.
    pub(crate) fn has_issuer(&self, name: &str) -> bool {
        self.issuers.iter().any(|issuer| *issuer.name == *name)
    }

    /// The caller that an opaque token gives this name, as if the token had been presented.
    pub(crate) fn of_static_token(&self, subject: &str) -> Option<Arc<Caller>> {
        self.opaque.of_subject(subject)
    }

    /// The headers in which trusted proxies present tokens.
    pub(crate) fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Authenticates the caller. A verified token is not verified again until it expires, its key is
    /// withdrawn or the rules change.
    ///
    /// # Errors
    /// Why the caller is not authenticated, and what to fetch before deciding again.
    pub fn authenticate(
        &self,
        presented: &Presented<'_>,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Arc<Caller>, Refusal> {
        let at = At { listener: presented.listener, certificate: presented.certificate };
        let Some(found) = presented.token()? else {
            let caller = presented.certificate.and_then(|shown| self.certificates.caller(shown));
            return caller.ok_or_else(|| Refusal::plain(Denial::CallerMissing));
        };
        self.authenticate_token(&found, at, keys, tokens, now)
    }

    fn authenticate_token(
        &self,
        found: &Found<'_>,
        at: At<'_>,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Arc<Caller>, Refusal> {
        if found.text.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLarge.into());
        }
        let alone = self.alone.get(at.listener).copied().flatten();
        if found.proof == Proof::Token
            && alone.is_none()
            && let Some(caller) = self.opaque.caller(found.text, &tokens.opaque, at.listener)
        {
            return Ok(caller);
        }
        let key = tokens::key(found, if self.by_listener { at.listener } else { 0 });
        let caller = match tokens.get(&key, self.version, now) {
            Some(caller) => caller,
            None => {
                let entry = self.verify(found, at.listener, alone, keys, tokens, now)?;
                let caller = Arc::clone(&entry.caller);
                tokens.put(key, entry);
                caller
            }
        };
        bound::proved(caller.bound_to.as_ref(), at.certificate)?;
        Ok(caller)
    }

    fn verify(
        &self,
        found: &Found<'_>,
        listener: usize,
        alone: Option<usize>,
        keys: &Keys,
        tokens: &Tokens,
        now: Now,
    ) -> Result<Entry, Refusal> {
        let padded = |issuer: &Issuer| issuer.padding(found.header) == Padding::Allowed;
        let padding = match found.header {
            Some(_) if self.issuers.iter().any(padded) => Padding::Allowed,
            _ => Padding::Refused,
        };
        let token = token::Token::read(found.text, padding)?;
        let unknown =
            |seen: Option<&str>| TokenFault::IssuerUnknown { seen: seen.map(Label::lossy) };
        if let Some(alone) = alone {
            let issuer = &self.issuers[alone];
            let named = token.claims.get("iss").map(|iss| iss.as_str().unwrap_or("?"));
            // The user it names is not the caller.
            if named.is_some() || found.proof != Proof::Token {
                return Err(unknown(named).into());
            }
            let verified = issuer.verify(&token, found.proof, keys, tokens, now)?;
            return Ok(Entry::of(issuer, verified, self.version));
        }
        if let Some(kind) = backstage::Kind::of(&token).filter(|_| found.header.is_none()) {
            backstage::in_place(kind, found.proof)?;
            let issuer = self.backstage_issuer(&token, kind, listener)?;
            let verified = issuer.backstage(&token, kind, found.proof, keys, tokens, now)?;
            return Ok(Entry::of(issuer, verified, self.version));
        }
        if found.proof == Proof::Cookie {
            let seen = Label::lossy("the cookie accepts only Backstage limited user tokens");
            return Err(TokenFault::TypeWrong { seen }.into());
        }
        let iss = claims::issuer(&token.claims)?;
        let is_it = |issuer: &&Issuer| {
            issuer.written.kind == IssuerKind::Oidc
                && issuer.written.issuer == iss
                && issuer.header == found.header
                && issuer.counts_on(listener)
        };
        let issuer = self.issuers.iter().find(is_it).ok_or_else(|| unknown(Some(iss)))?;
        if padding == Padding::Allowed && !padded(issuer) {
            // It was parsed as another issuer's.
            token::Token::read(found.text, Padding::Refused)?;
        }
        let verified = issuer.verify(&token, found.proof, keys, tokens, now)?;
        Ok(Entry::of(issuer, verified, self.version))
    }
}

#[cfg(test)]
mod tests;
