//! Who is calling: a verified token, or a client certificate.

mod backstage;
mod claims;
mod crypto;
mod json;
mod keys;
mod p521;
mod token;
mod tokens;

use std::sync::Arc;

use http::{HeaderMap, header};
use ring::digest::{SHA256, digest};

use crate::{
    Denial, Label, Now,
    denial::{Lack, TokenFault},
};

pub use crypto::install_crypto;
pub use keys::{KeyFacts, KeySet, Keys, Source};
pub use tokens::Tokens;

use tokens::Entry;

/// Who is calling, as the IdP (or our CA) vouches.
#[derive(Debug)]
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
    /// Nothing: a caller that `explain` supposes.
    Supposed,
}

/// A client certificate that our CA signed.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificate {
    /// The subject's common name.
    pub common_name: Option<Label>,
    /// DNS names.
    pub dns: Vec<Label>,
    /// URIs, for example a SPIFFE id.
    pub uris: Vec<Label>,
    /// Email addresses.
    pub emails: Vec<Label>,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: Option<Label>,
}

/// Whose tokens are believed. Part of a policy.
#[derive(Debug)]
pub struct Identity {
    issuers: Vec<Issuer>,
    certificates: Vec<config::CertificateCaller>,
    /// Tells verified tokens of another identity config apart.
    version: u64,
}

#[derive(Debug)]
struct Issuer {
    name: Label,
    written: config::Issuer,
}

/// What of a request says who is calling.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Whether the route takes Backstage's cookie.
    pub cookie_allowed: bool,
    /// Whether the client asks for an upgrade.
    pub upgrade: bool,
    /// The verified client certificate, if any.
    pub certificate: Option<&'a ClientCertificate>,
}

/// Why nobody in particular is calling.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The reason.
    pub denial: Denial,
    /// What would help, if it were fetched.
    pub lack: Option<Lack>,
    /// Whether it looks like someone trying tokens.
    pub suspect: bool,
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
            expires: u64::MAX,
            id: u64::MAX,
        }
    }
}

impl Proof {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Cookie => "cookie",
            Self::WebSocketProtocol => "websocket_protocol",
            Self::ClientCertificate => "client_certificate",
            Self::Supposed => "supposed",
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        Self { denial: Denial::Token(fault), lack: None, suspect: true }
    }
}

impl Refusal {
    fn plain(denial: Denial) -> Self {
        Self { denial, lack: None, suspect: false }
    }
}

/// A token longer than this is nobody's; Backstage's go up to 32 KiB.
const TOKEN_BYTES_MAX: usize = 32 << 10;

impl Identity {
    /// From what the operator wrote.
    pub fn new(written: &config::Identity) -> Self {
        let issuers = written.issuers.iter();
        let text = serde_json::to_vec(written).expect("a config is data");
        let hash = digest(&SHA256, &text);
        let version = hash.as_ref()[..8].try_into().expect("a SHA-256 has 32 bytes");
        Self {
            issuers: issuers
                .map(|(name, issuer)| Issuer { name: name.into(), written: issuer.value.clone() })
                .collect(),
            certificates: written.client_certificates.iter().map(|c| c.value.clone()).collect(),
            version: u64::from_be_bytes(version),
        }
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
        let (token, proof) = match find_token(asked)? {
            Some(found) => found,
            None => return self.by_certificate(asked),
        };
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
        let iss = token.claims.get("iss").ok_or(TokenFault::ClaimMissing { claim: "iss" })?;
        let issuer = self
            .issuers
            .iter()
            .find(|i| i.written.kind == config::IssuerKind::Oidc && *iss == *i.written.issuer)
            .ok_or(TokenFault::IssuerUnknown)?;
        issuer.algorithm(&token)?;
        let rules = &issuer.written;
        let types = &rules.token_types;
        if !types.is_empty() && !types.iter().any(|wanted| token.is_type(wanted)) {
            return Err(TokenFault::TypeWrong.into());
        }
        let source = Source { issuer: issuer.name.clone(), plugin: None };
        let key = issuer.verified(&token, &source, keys, now)?;
        let expires = claims::times(&token.claims, &rules.leeway, now)?;
        claims::audience(&token.claims, |aud| rules.audiences.iter().any(|own| own == aud))?;
        claims::party(&token.claims, &rules.authorized_parties)?;
        let subject = claims::subject(&token.claims, &rules.claims.subject)?;
        let kind = claims::kind(&token.claims);
        let list = |claim, name| claims::list(&token.claims, claim, name);
        let caller = Caller {
            subject,
            kind,
            proof,
            issuer: issuer.name.clone(),
            on_behalf_of: None,
            roles: list(&rules.claims.roles, "roles")?,
            groups: list(&rules.claims.groups, "groups")?,
            workspaces: list(&rules.claims.workspaces, "workspaces")?,
            expires,
            id: tokens.next_id(),
        };
        Ok(Entry::new(caller, vec![key], self.version, &rules.leeway))
    }

    fn by_certificate(&self, asked: &Asked<'_>) -> Result<Arc<Caller>, Refusal> {
        let missing = || Refusal::plain(Denial::CallerMissing);
        let certificate = asked.certificate.ok_or_else(missing)?;
        let named = |wanted: &str| {
            let sans = [&certificate.uris, &certificate.dns, &certificate.emails];
            let mut sans = sans.into_iter().flatten().peekable();
            // A common name counts only where there is no other name (RFC 6125 6.4.4).
            if sans.peek().is_none() {
                return certificate.common_name.as_deref() == Some(wanted);
            }
            sans.any(|name| **name == *wanted)
        };
        let (index, entry) = self
            .certificates
            .iter()
            .enumerate()
            .find(|(_, entry)| named(&entry.name))
            .ok_or_else(missing)?;
        let labels = |texts: &[String]| texts.iter().map(|text| Label::lossy(text)).collect();
        Ok(Arc::new(Caller {
            subject: Label::lossy(&entry.caller),
            kind: CallerKind::Service,
            proof: Proof::ClientCertificate,
            issuer: Label::lossy("client-certificate"),
            on_behalf_of: None,
            roles: labels(&entry.roles),
            groups: labels(&entry.groups),
            workspaces: entry.workspaces.iter().map(Label::from).collect(),
            expires: u64::MAX,
            // Numbers of tokens begin at 0; those of certificates end at the largest.
            id: u64::MAX - 1 - index as u64,
        }))
    }
}

impl Issuer {
    /// The token's algorithm, if this issuer signs with it. Never taken from the token alone.
    fn algorithm(&self, token: &token::Token<'_>) -> Result<(), Refusal> {
        if self.written.algorithms.contains(&token.algorithm) {
            return Ok(());
        }
        Err(TokenFault::AlgorithmRefused.into())
    }

    /// The key that signed the token.
    fn verified(
        &self,
        token: &token::Token<'_>,
        source: &Source,
        keys: &Keys,
        now: Now,
    ) -> Result<Arc<keys::Key>, Refusal> {
        let lack = || {
            Some(Lack::Keys {
                issuer: source.issuer.clone(),
                plugin: source.plugin.clone(),
                kid: token.key_id.as_deref().map(Label::lossy),
            })
        };
        let held = keys.of(source).filter(|held| held.age(now) <= *self.written.keys.age_max);
        let Some(held) = held else {
            let denial = Denial::KeysUnavailable { issuer: self.name.clone() };
            return Err(Refusal { denial, lack: lack(), suspect: false });
        };
        let fitting = held.keys.iter().filter(|key| key.fits(token.algorithm));
        let mut named = fitting.filter(|key| match &token.key_id {
            Some(wanted) => key.id.as_ref().is_none_or(|own| own == wanted),
            None => true,
        });
        let key = named.next();
        // Without a `kid` the choice must be none; trying keys one by one would be guessing.
        let key = key.filter(|_| token.key_id.is_some() || named.next().is_none());
        let Some(key) = key else {
            let denial = Denial::Token(TokenFault::KeyUnknown { issuer: self.name.clone() });
            return Err(Refusal { denial, lack: lack(), suspect: true });
        };
        if !crypto::verify(token.algorithm, key, token.message, token.signature) {
            return Err(TokenFault::SignatureWrong.into());
        }
        Ok(Arc::clone(key))
    }
}

/// The token of a request and where it stood.
fn find_token<'a>(asked: &Asked<'a>) -> Result<Option<(&'a str, Proof)>, Refusal> {
    let mut lines = asked.headers.get_all(header::AUTHORIZATION).iter();
    if let Some(line) = lines.next() {
        if lines.next().is_some() {
            return Err(Refusal::plain(Denial::AuthorizationAmbiguous));
        }
        let malformed = TokenFault::Malformed { why: "the header is not `Bearer <token>`" };
        let text = line.to_str().map_err(|_| malformed.clone())?;
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            if token.is_empty() || token.contains([' ', ',', '\t']) {
                return Err(malformed.into());
            }
            return Ok(Some((token, Proof::Token)));
        }
        // Another scheme is none of ours, and what it says is not looked at.
        return Err(Refusal::plain(Denial::CallerMissing));
    }
    if asked.upgrade
        && let Some(token) = in_protocols(asked.headers)
    {
        return Ok(Some((token, Proof::WebSocketProtocol)));
    }
    if asked.cookie_allowed
        && let Some(token) = in_cookies(asked.headers)?
    {
        return Ok(Some((token, Proof::Cookie)));
    }
    Ok(None)
}

fn in_protocols(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let values = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    values.map(str::trim).find(|value| value.matches('.').count() == 2 && value.starts_with("ey"))
}

fn in_cookies(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    let mut found = pairs.filter_map(|pair| pair.trim().strip_prefix("backstage-auth="));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(Refusal::plain(Denial::AuthorizationAmbiguous)),
        (token, _) => Ok(token),
    }
}

#[cfg(test)]
mod tests;
