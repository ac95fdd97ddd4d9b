//! Fetches signing keys and groups: one flight at a time for each source, and not too often.

mod fault;
mod inspect;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certs::LoadError;
use config::{Issuer, IssuerKind, Located};
use filters::{
    Label, Secret, State,
    audit::event::Event,
    denial::Lack,
    guard::Guard,
    identity::{KeySet, Source},
};
use futures_util::{StreamExt, stream};
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::{
    clock,
    net::{
        allowance::{Allowance, Rate},
        dial::Dial,
        fetch::{self, Endpoint},
    },
    observability::{audit::Audit, metrics::Metrics},
    secret_file,
};

pub use self::{fault::Contradiction, fault::Fault, inspect::Inspection};

/// Fetches what a decision lacked.
pub struct Fetcher {
    dial: Dial,
    state: Arc<State>,
    metrics: Arc<Metrics>,
    audit: Option<Arc<Audit>>,
    flights: Cache<Source, Arc<Flight>>,
    /// Key ids that a source did not have at its last fetch.
    absent: Cache<(Source, Option<Label>), ()>,
    /// For sources that have never had a key: strangers' tokens name plugins as they like.
    unproven: Allowance,
    groups_flights: tokio::sync::Semaphore,
}

/// The flights to one source.
struct Flight {
    /// Locked during a fetch; waiting requests find fresh keys after it.
    in_flight: tokio::sync::Mutex<()>,
    progress: Mutex<Progress>,
    allowance: Allowance,
}

impl Default for Flight {
    fn default() -> Self {
        let (in_flight, progress) = Default::default();
        Self { in_flight, progress, allowance: Allowance::new(OF_SOURCE) }
    }
}

/// How the flights to one source went so far.
#[derive(Default)]
struct Progress {
    /// When the last fetch ended.
    ended: Option<Duration>,
    /// Why it failed, so that an outage is logged once.
    failing: Option<Fault>,
    /// The other issuer that discovery named, so that it is logged once, whatever outages are in between.
    contradicted: Option<Contradiction>,
    /// Key ids that several keys had, so that each is logged once.
    repeated: Vec<Label>,
}

/// Why keys are fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A token needs them, from any client.
    Token,
    /// It is time.
    Time,
}

/// Fetches of one source that tokens may cause: a burst, then one per interval.
const OF_SOURCE: Rate = Rate::new(3, Duration::from_secs(10));
/// The same for all sources together that never had a key.
const OF_UNPROVEN: Rate = Rate::new(20, Duration::from_secs(1));
/// A missing key id is not fetched again before this.
const ABSENT: Duration = Duration::from_secs(30);
/// Keys this old may have arrived while a request was decided without them.
const JUST_NOW: Duration = KeySet::FETCHED_JUST_NOW;
/// Concurrent background fetches.
const FETCHES_MAX: usize = 16;
/// Plugins and key ids are named by strangers' tokens.
const FLIGHTS_MAX: u64 = 1000;
const ABSENT_MAX: u64 = 10_000;

impl Fetcher {
    /// Fetches keys into this state. Changes of keys are recorded, if there is an audit log.
    pub fn new(
        dial: Dial,
        state: Arc<State>,
        metrics: Arc<Metrics>,
        audit: Option<Arc<Audit>>,
    ) -> Self {
        Self {
            dial,
            state,
            metrics,
            audit,
            flights: Cache::new(FLIGHTS_MAX),
            absent: Cache::builder().max_capacity(ABSENT_MAX).time_to_live(ABSENT).build(),
            unproven: Allowance::new(OF_UNPROVEN),
            groups_flights: tokio::sync::Semaphore::new(32),
        }
    }

    /// Fetches what a decision lacked; returns whether to decide again.
    pub async fn fetch(&self, config: &config::Config, lack: &Lack) -> bool {
        match lack {
            // It is the client's to send.
            Lack::Body => false,
            // And that is the store's.
            Lack::Tokens { .. } => false,
            Lack::Keys { issuer, plugin, kid } => {
                let Some(written) = config.identity.issuers.get(&**issuer) else { return false };
                let source = Source::new(issuer.clone(), written, plugin.clone());
                let wanted = (source, kid.clone());
                if self.absent.contains_key(&wanted) {
                    // The keys arrived just after the decision, so decide again.
                    let age = self.state.keys.age(&wanted.0, clock::now());
                    return age.is_some_and(|age| age < JUST_NOW);
                }
                let fetched =
                    self.keys(&guard(config), written, &wanted.0, Cause::Token).await.is_ok();
                if fetched {
                    // If the source has it now, it will not be requested again.
                    self.absent.insert(wanted, ());
                    return true;
                }
                // If there are keys but the fetch failed, decide again: it is not the token's fault.
                let failed = self.state.keys.failed(&wanted.0, clock::now());
                failed.is_some_and(|ago| ago < JUST_NOW)
            }
            Lack::Groups { issuer, subject, token } => {
                let Some(written) = config.identity.issuers.get(&**issuer) else { return false };
                self.groups(&guard(config), written, issuer, subject, token).await
            }
        }
    }

    /// Fetches the keys of all issuers that are due. For a background task.
    pub async fn refresh(&self, config: &config::Config) {
        let mut due: Vec<(Issuer, Source)> = Vec::new();
        for (name, issuer) in &config.identity.issuers {
            let own = Source::new(name.into(), issuer, None);
            let plugins = self.state.keys.sources().into_iter();
            let plugins = plugins.filter(|other| other.is_beside(&own) && *other != own);
            for source in std::iter::once(own.clone()).chain(plugins) {
                let age = self.state.keys.age(&source, clock::now());
                if age.is_none_or(|age| age >= *issuer.keys.refresh) {
                    due.push((issuer.value.clone(), source));
                }
            }
        }
        let guard = &guard(config);
        let each = |(issuer, source): (Issuer, Source)| async move {
            let _ = self.keys(guard, &issuer, &source, Cause::Time).await;
        };
        stream::iter(due).for_each_concurrent(FETCHES_MAX, each).await;
    }

    /// Reads keys and secrets from files again. Returns the problems.
    pub async fn read(&self, config: &config::Config) -> Vec<String> {
        let all = sources(config).into_iter().zip(config.identity.issuers.values());
        self.renew(config, all.filter(|(_, issuer)| is_in_file(issuer))).await
    }

    /// Fetches the keys of issuers whose location differs from `last`. Returns the problems.
    pub async fn ask_anew(&self, config: &config::Config, last: &config::Config) -> Vec<String> {
        let last = sources(last);
        let all = sources(config).into_iter().zip(config.identity.issuers.values());
        let others = all.filter(|(source, issuer)| !is_in_file(issuer) && !last.contains(source));
        self.renew(config, others).await
    }

    async fn renew<'a>(
        &self,
        config: &config::Config,
        all: impl Iterator<Item = (Source, &'a Located<Issuer>)>,
    ) -> Vec<String> {
        let guard = &guard(config);
        let all: Vec<(Source, Issuer)> =
            all.map(|(source, issuer)| (source, issuer.value.clone())).collect();
        let each = all.into_iter().map(|(source, issuer)| self.renewed(guard, issuer, source));
        let failures = stream::iter(each).buffered(FETCHES_MAX);
        failures.filter_map(|failure| async { failure }).collect().await
    }

    /// Why the keys of a source could not be renewed.
    async fn renewed(&self, guard: &Arc<Guard>, issuer: Issuer, source: Source) -> Option<String> {
        let cause = self.keys(guard, &issuer, &source, Cause::Time).await.err()?;
        let kept = self.state.keys.age(&source, clock::now()).is_some();
        let then = if kept {
            "the last keys stay in use"
        } else {
            "its tokens get 503 until they can be fetched"
        };
        Some(format!("issuer `{}`: {cause}; {then}", source.issuer))
    }

    async fn keys(
        &self,
        guard: &Arc<Guard>,
        issuer: &Issuer,
        source: &Source,
        cause: Cause,
    ) -> Result<(), Fault> {
        let flight = self.flights.get_with_by_ref(source, Arc::default);
        let asked = clock::now();
        let _only = flight.in_flight.lock().await;
        {
            let progress = flight.progress.lock();
            // Another request fetched them while we waited.
            if progress.ended.is_some_and(|ended| ended >= asked.elapsed) {
                return progress.failing.clone().map_or(Ok(()), Err);
            }
        }
        if cause == Cause::Token && !self.may_ask(source, &flight) {
            return Err("it was queried too often".to_owned().into());
        }
        let result = self.key_set(guard, issuer, source).await;
        let now = clock::now();
        self.metrics.keys_fetched(&source.issuer, result.as_ref().map(drop).map_err(drop));
        flight.progress.lock().note(source, now.elapsed, &result);
        if result.is_err() {
            self.state.keys.fail(source, now);
        }
        let rotation = self.state.keys.replace(source, result?, now);
        if let Some(audit) = self.audit.as_ref().filter(|_| !rotation.is_none()) {
            audit.happened(&Event::Keys {
                issuer: &source.issuer,
                plugin: source.plugin.as_deref(),
                added: &rotation.added,
                removed: &rotation.removed,
            });
        }
        Ok(())
    }

    /// Whether a token may cause another fetch.
    fn may_ask(&self, source: &Source, flight: &Flight) -> bool {
        let proven = self.state.keys.age(source, clock::now()).is_some();
        if !proven && !self.unproven.take() {
            return false;
        }
        flight.allowance.take()
    }

    async fn key_set(
        &self,
        guard: &Arc<Guard>,
        issuer: &Issuer,
        source: &Source,
    ) -> Result<KeySet, Fault> {
        let keys = &issuer.keys;
        if let Some(file) = &keys.secret_file {
            return secret(file).map_err(|error| error.to_string().into());
        }
        if let Some(file) = &keys.file {
            return set(file).map_err(|error| error.to_string().into());
        }
        let (url, place) = self.place(guard, issuer, source).await?;
        let client = self.client(guard, issuer, &place)?;
        let token = self.token(issuer, &place)?;
        let text = get(&client, &url, token.as_ref()).await?;
        let set = KeySet::from_jwks(&text)?;
        // A Backstage plugin has no keys until it has signed something.
        if set.is_empty() && source.plugin.is_none() {
            return Err(Fault::Keyless { url });
        }
        Ok(set)
    }

    /// Where the keys of a source are that are in no file.
    async fn place(
        &self,
        guard: &Arc<Guard>,
        issuer: &Issuer,
        source: &Source,
    ) -> Result<(String, Endpoint), Fault> {
        let keys = &issuer.keys;
        Ok(match (issuer.kind, &keys.url, &keys.backstage_url) {
            (IssuerKind::Backstage, _, Some(base)) => {
                let path = match &source.plugin {
                    Some(plugin) => format!("/api/{plugin}/.backstage/auth/v1/jwks.json"),
                    None => "/api/auth/.well-known/jwks.json".to_owned(),
                };
                (format!("{}{path}", base.value), Endpoint::declared(base))
            }
            (_, Some(url), _) => (url.value.to_string(), Endpoint::declared(url)),
            _ => self.discovered(guard, issuer).await?,
        })
    }

    /// `jwks_uri` of OpenID Connect Discovery 1.0; its `issuer` must be the configured one.
    async fn discovered(
        &self,
        guard: &Arc<Guard>,
        written: &Issuer,
    ) -> Result<(String, Endpoint), Fault> {
        let asked: config::Url = written.issuer.parse()?;
        let place = Endpoint::declared(&asked);
        let (url, document) = self.document(guard, written, &written.issuer, &place).await?;
        let found = document["jwks_uri"].as_str();
        let found = found.ok_or_else(|| format!("`{url}` names no `jwks_uri`"))?;
        let place = Endpoint::found(found, &place)?;
        // As for a configured URL: anyone on the path could sign tokens for every caller.
        let in_the_clear = !place.is_private() && (asked.tls || !place.is_this_machine());
        if in_the_clear && !written.keys.insecure_http {
            return Err(format!(
                "`{url}` names keys at `{}`, without TLS; if that network is yours alone, write `keys: {{insecure_http: true}}`",
                found.escape_debug()
            )
            .into());
        }
        Ok((found.to_owned(), place))
    }

    /// The discovery document below `base`, and where it was found. Its `issuer` was checked.
    async fn document(
        &self,
        guard: &Arc<Guard>,
        written: &Issuer,
        base: &str,
        place: &Endpoint,
    ) -> Result<(String, serde_json::Value), Fault> {
        let client = &self.client(guard, written, place)?;
        let url = format!("{}/.well-known/openid-configuration", base.trim_end_matches('/'));
        let token = self.token(written, place)?;
        let text = get(client, &url, token.as_ref()).await?;
        let document: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|_| format!("`{url}` does not respond with JSON"))?;
        let configured = &*written.issuer;
        if document["issuer"] != configured {
            return Err(Fault::Contradicted(Contradiction {
                url,
                configured: configured.to_owned(),
                discovered: document["issuer"].as_str().map(str::to_owned),
            }));
        }
        Ok((url, document))
    }

    /// The credential for fetching keys: only for the configured location, and not for one that a response
    /// names.
    fn token(&self, written: &Issuer, place: &Endpoint) -> Result<Option<Secret>, String> {
        let Some(file) = &written.keys.token_file else { return Ok(None) };
        let declared = match &written.keys.url {
            Some(url) => Endpoint::declared(url),
            None => Endpoint::declared(&written.issuer.parse()?),
        };
        if !place.is_same(&declared) {
            return Ok(None);
        }
        secret_file::token(file).map(Some).map_err(|error| error.to_string())
    }

    /// Backstage's user info: the groups that the token itself leaves out.
    async fn groups(
        &self,
        guard: &Arc<Guard>,
        written: &Issuer,
        issuer: &Label,
        subject: &Label,
        token: &Secret,
    ) -> bool {
        let Some(base) = &written.keys.backstage_url else { return false };
        let Ok(_place) = self.groups_flights.acquire().await else { return false };
        let answer = async {
            let client = self.client(guard, written, &Endpoint::declared(base))?;
            let url = format!("{}/api/auth/v1/userinfo", base.value);
            let text = get(&client, &url, Some(token)).await.map_err(|fault| fault.to_string())?;
            let info: serde_json::Value =
                serde_json::from_slice(&text).map_err(|_| "user info is not JSON".to_owned())?;
            let claims = &info["claims"];
            let named = claims["sub"].as_str().is_some_and(|sub| sub == subject.as_str());
            let groups = claims["ent"].as_array().filter(|_| named);
            let groups = groups.ok_or("user info does not contain this caller's groups")?;
            let labels = groups.iter().map(|group| Label::new(group.as_str()?));
            labels.collect::<Option<Vec<_>>>().ok_or("user info has an invalid group".to_owned())
        };
        match answer.await {
            Ok(groups) => {
                let hour = Duration::from_secs(3600);
                let source = Source::new(issuer.clone(), written, None);
                self.state.tokens.set_groups(&source, subject, &groups, clock::now(), hour);
                true
            }
            Err(cause) => {
                tracing::warn!(%issuer, cause, "the caller's groups could not be fetched");
                false
            }
        }
    }

    fn client(
        &self,
        guard: &Arc<Guard>,
        issuer: &Issuer,
        place: &Endpoint,
    ) -> Result<fetch::Client, String> {
        fetch::client(&self.dial, guard, place, issuer.keys.ca.as_deref().map(PathBuf::as_path))
    }
}

/// Whether an issuer's keys are in a local file.
fn is_in_file(issuer: &Issuer) -> bool {
    issuer.keys.file.is_some() || issuer.keys.secret_file.is_some()
}

impl Progress {
    /// Records the result of a fetch, and logs it if it is news.
    fn note(&mut self, source: &Source, now: Duration, result: &Result<KeySet, Fault>) {
        self.ended = Some(now);
        let plugin = source.plugin.as_deref().unwrap_or_default();
        let failure = result.as_ref().err();
        let repeated = result.as_ref().map_or(&[][..], KeySet::repeated);
        if result.is_ok() && self.repeated != repeated {
            if let [first, ..] = repeated {
                let count = repeated.len();
                tracing::warn!(issuer = %source.issuer, plugin, kid = %first, count, "the JWKS has several keys with the same key id: up to 4 are tried; report this to the issuer");
            }
            self.repeated = repeated.to_vec();
        }
        match failure {
            Some(Fault::Contradicted(said)) if self.contradicted.as_ref() != Some(said) => {
                let (configured, discovered) = (&said.configured, said.printable());
                let correction = said.correction();
                tracing::warn!(issuer = %source.issuer, configured, discovered, correction, "discovery contradicts the configured issuer, so its keys are not used");
                self.contradicted = Some(said.clone());
            }
            // It was logged, whatever was in between.
            Some(Fault::Contradicted(_)) => {}
            Some(cause) if self.failing.as_ref() != Some(cause) => {
                tracing::warn!(issuer = %source.issuer, plugin, %cause, "keys could not be fetched, keeping the last ones");
            }
            None if self.failing.is_some() => {
                tracing::info!(issuer = %source.issuer, plugin, "keys can be fetched again");
            }
            _ => {}
        }
        if failure.is_none() {
            self.contradicted = None;
        }
        self.failing = failure.cloned();
    }
}

/// Keeps issuers' responses from leading us into our own network.
fn guard(config: &config::Config) -> Arc<Guard> {
    Arc::new(Guard::new(&config.egress))
}

/// The key sources of a config, without Backstage's plugins.
pub fn sources(config: &config::Config) -> Vec<Source> {
    let issuers = config.identity.issuers.iter();
    issuers.map(|(name, issuer)| Source::new(name.into(), issuer, None)).collect()
}

/// The secret in a file.
///
/// # Errors
/// Why it cannot be used.
pub fn secret(file: &Path) -> Result<KeySet, LoadError> {
    let secret = certs::bytes(file)?;
    let secret = secret.strip_suffix(b"\n").unwrap_or(&secret);
    KeySet::from_secret(secret.strip_suffix(b"\r").unwrap_or(secret))
        .map_err(|cause| LoadError { file: file.to_owned(), cause })
}

/// The JWKS in a file.
///
/// # Errors
/// Why it cannot be used.
pub fn set(file: &Path) -> Result<KeySet, LoadError> {
    let wrong = |cause| LoadError { file: file.to_owned(), cause };
    let set = KeySet::from_jwks(&certs::bytes(file)?).map_err(wrong)?;
    if set.is_empty() { Err(wrong("it has no usable key".to_owned())) } else { Ok(set) }
}

/// The body of a 200, up to a limit.
async fn get(client: &fetch::Client, url: &str, token: Option<&Secret>) -> Result<Vec<u8>, Fault> {
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token.expose());
    }
    let answer = client.send(request, url).await?;
    match answer.status().as_u16() {
        200 => Ok(fetch::body(answer, url).await?),
        status @ (404 | 410) => Err(Fault::NotFound { url: url.to_owned(), status }),
        status => Err(format!("`{url}` responded with {status}").into()),
    }
}
