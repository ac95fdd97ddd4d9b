//! Credentials for upstreams: secrets from files, and tokens that are fetched with them.

mod answer;
mod client;
mod client_credentials;
mod github_app;
mod outage;
mod secret;
mod spacelift;
mod token;
mod token_exchange;
mod tokens;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use config::CredentialKind;
use filters::{Denial, Label, Secret, guard::Guard, reverse::Judged};
use http::HeaderValue;

use self::{
    client::Client,
    client_credentials::ClientCredentials,
    github_app::GithubApp,
    spacelift::ApiKey,
    token::Token,
    token_exchange::{OfCaller, TokenExchange},
    tokens::{Issuer, Tokens},
};
use crate::{
    net::{
        dial::Dial,
        fetch::{self, Endpoint},
        parent::Parents,
    },
    observability::metrics::Metrics,
};

pub use secret::secret;

/// All credentials of a config, ready for use. Replaced with the config; unchanged ones are carried over.
pub struct Credentials {
    all: HashMap<Label, Arc<Credential>>,
    /// Why the last secret of some stays in use.
    pub kept: Vec<String>,
}

/// One credential.
struct Credential {
    written: config::Credential,
    secret: Secret,
    /// The content of its CA file.
    ca: Option<Vec<u8>>,
    guard: Arc<Guard>,
    /// The parent proxies at that time.
    parents: Arc<Parents>,
    means: Means,
}

enum Means {
    /// The header's value.
    Fixed(Secret),
    /// One token for all callers.
    Tokens(Arc<Tokens>),
    /// A token for each caller's.
    Exchanged(Arc<TokenExchange>),
}

/// A header's value for one exchange.
pub struct PresentedCredential {
    value: Secret,
    /// If it is a token: among which, and since when.
    token: Option<(Among, Duration)>,
}

/// Where a token is cached.
enum Among {
    Tokens(Arc<Tokens>),
    OfCaller(Arc<OfCaller>),
}

/// The status of a credential, for operators.
#[derive(Debug, PartialEq, Eq)]
pub struct CredentialStatus {
    /// Its name.
    pub name: Label,
    /// Its kind in the config.
    pub kind: &'static str,
    /// When the token ends, in seconds since 1970, if there is one.
    pub until: Option<u64>,
    /// Why the last fetch failed, if it did.
    pub failing: Option<String>,
}

impl Credentials {
    /// From what the operator wrote; reads secrets. For an unchanged credential, the last secret stays if
    /// its file cannot be used any more.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn new(
        written: &config::Config,
        dial: &Dial,
        metrics: &Arc<Metrics>,
        last: Option<&Self>,
    ) -> Result<Self, Vec<String>> {
        let mut this = Self { all: HashMap::new(), kept: Vec::new() };
        let mut errors = Vec::new();
        let guard = Arc::new(Guard::new(&written.egress));
        for (name, written) in &written.credentials {
            let label = Label::from(name);
            let last = last.and_then(|last| last.all.get(&label));
            let last = last.filter(|last| last.written == written.value);
            let credential = match Credential::new(&label, written, dial, &guard, metrics, last) {
                Ok(credential) => credential,
                Err(error) => {
                    let Some(last) = last else {
                        errors.push(error);
                        continue;
                    };
                    let name = &label;
                    this.kept.push(format!("{error}; credential `{name}` stays as it was"));
                    Arc::clone(last)
                }
            };
            this.all.insert(label, credential);
        }
        if errors.is_empty() { Ok(this) } else { Err(errors) }
    }

    /// The credential for this exchange. Waits for a token if there is none.
    ///
    /// # Errors
    /// [`Denial::CredentialUnavailable`] if there is none, or why there is none for this caller.
    pub async fn get(&self, name: &Label, request: &Judged) -> Result<PresentedCredential, Denial> {
        let unavailable = || Denial::CredentialUnavailable { credential: name.clone() };
        let credential = self.all.get(name).ok_or_else(unavailable)?;
        match &credential.means {
            Means::Fixed(value) => Ok(PresentedCredential { value: value.clone(), token: None }),
            Means::Tokens(tokens) => {
                let token = tokens.get().await.ok_or_else(unavailable)?;
                Ok(PresentedCredential::of(token, Among::Tokens(Arc::clone(tokens))))
            }
            Means::Exchanged(issuer) => {
                let (Some(token), Some(caller)) = (&request.token, request.who.caller()) else {
                    return Err(Denial::CallerTokenMissing { credential: name.clone() });
                };
                let (token, of_caller) = issuer.get(token, caller.expires).await?;
                Ok(PresentedCredential::of(token, Among::OfCaller(of_caller)))
            }
        }
    }

    /// The status of each, sorted by name.
    pub fn facts(&self) -> Vec<CredentialStatus> {
        let fact = |(name, credential): (&Label, &Arc<Credential>)| {
            let (until, failing) = match &credential.means {
                Means::Fixed(_) => (None, None),
                Means::Tokens(tokens) => tokens.facts(),
                Means::Exchanged(issuer) => (None, issuer.failing()),
            };
            CredentialStatus {
                name: name.clone(),
                kind: credential.written.kind.name(),
                until,
                failing,
            }
        };
        let mut all: Vec<CredentialStatus> = self.all.iter().map(fact).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Credential {
    fn new(
        name: &Label,
        written: &config::Credential,
        dial: &Dial,
        guard: &Arc<Guard>,
        metrics: &Arc<Metrics>,
        last: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        let secret = secret(written).map_err(|error| error.to_string())?;
        let ca = written.ca.as_ref().map(|file| certs::bytes(file)).transpose();
        let ca = ca.map_err(|error| error.to_string())?;
        if let Some(last) = last
            && last.secret == secret
            && last.ca == ca
            && last.guard == *guard
            && last.parents == dial.parents()
        {
            return Ok(Arc::clone(last));
        }
        let http = || {
            let ca = written.ca.as_deref().map(PathBuf::as_path);
            fetch::client(dial, guard, &Endpoint::declared(&asked_at(written)), ca)
        };
        let tokens = |issuer: Issuer| {
            let last = last.and_then(|last| match &last.means {
                Means::Tokens(tokens) => Some(&**tokens),
                _ => None,
            });
            Means::Tokens(Tokens::new(name.clone(), issuer, Arc::clone(metrics), last))
        };
        let means = match written.kind {
            CredentialKind::Basic => {
                let username = written.username.as_deref().unwrap_or_default();
                let pair = BASE64.encode(format!("{username}:{}", secret.expose()));
                Means::Fixed(Secret::new(format!("Basic {pair}")))
            }
            CredentialKind::Header => {
                let prefix = written.prefix.as_deref().unwrap_or_default();
                Means::Fixed(Secret::new(format!("{prefix}{}", secret.expose())))
            }
            CredentialKind::SpaceliftApiKey => {
                tokens(Issuer::Spacelift(ApiKey::new(written, &secret, http()?)))
            }
            CredentialKind::ClientCredentials => {
                let client = ClientCredentials::new(written, &secret, http()?);
                tokens(Issuer::ClientCredentials(client))
            }
            CredentialKind::GithubApp => {
                tokens(Issuer::GithubApp(GithubApp::new(written, &secret, http()?)?))
            }
            CredentialKind::TokenExchange => {
                let last = last.and_then(|last| match &last.means {
                    Means::Exchanged(issuer) => Some(&**issuer),
                    _ => None,
                });
                let client = Client::new(written, &secret, http()?);
                let metrics = Arc::clone(metrics);
                let issuer = TokenExchange::new(name.clone(), written, client, metrics, last);
                Means::Exchanged(Arc::new(issuer))
            }
        };
        let guard = Arc::clone(guard);
        let parents = dial.parents();
        Ok(Arc::new(Self { written: written.clone(), secret, ca, guard, parents, means }))
    }
}

/// The token endpoint.
fn asked_at(written: &config::Credential) -> config::Url {
    let named = written.token_url.as_ref().or(written.api.as_ref());
    named.map_or_else(github_app::api, |url| url.value.clone())
}

impl PresentedCredential {
    fn of(token: Token, among: Among) -> Self {
        Self { value: token.value, token: Some((among, token.since.elapsed)) }
    }

    /// The header's value.
    pub fn value(&self) -> HeaderValue {
        let value = HeaderValue::from_str(self.value.expose());
        value.expect("it was looked at when it was read")
    }

    /// Reports that the upstream refused it. A new token is then fetched for the next request.
    pub fn refused(&self) {
        match &self.token {
            Some((Among::Tokens(tokens), since)) => tokens.refuse(*since),
            Some((Among::OfCaller(of_caller), since)) => of_caller.refuse(*since),
            None => {}
        }
    }
}
