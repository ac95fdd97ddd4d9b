//! After a file change, SIGHUP or an admin request: config → policy → swap, or keep the last and report why.

use std::{path::Path, sync::Arc, time::Duration};

use certs::LoadError;
use filters::{Label, Policy, Secret, audit::event::Event, passwords::PASSWORD_MIN};
use ring::digest::{Context, SHA256};
use tokio::time::timeout;

use crate::{
    clock,
    data_plane::{gateway::Snapshot, listener::tls},
    identity::{jwks, opaque_tokens},
    lifecycle::{
        file_watch::FileStates, low_priority::aside, process::Process, reload_history::Entry,
        restart_required,
    },
    net::{dial::Dial, parent::Parents},
    observability::metrics::{Counts, Metrics},
    upstream::{Upstreams, credentials::Credentials},
};

/// How long a reload waits for the names and keys of a config that is in force already.
const LOOKUP_WAIT: Duration = Duration::from_secs(4);
/// How often files are checked. Kubernetes swaps symlinks and editors rename files: polling is more reliable
/// than notifications.
const PACE: Duration = Duration::from_secs(2);

/// Why a config is loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file changed.
    Files,
    /// SIGHUP.
    Signal,
    /// A call of the admin listener.
    Admin,
    /// The control source has a new response.
    Control,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Signal => "signal",
            Self::Admin => "admin",
            Self::Control => "control",
        }
    }
}

/// How a reload went.
#[derive(Clone, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub struct ReloadResult {
    /// Whether the config is in force.
    pub successful: bool,
    /// When, in seconds since 1970.
    pub time: u64,
    /// The digest of the config in force.
    pub digest: String,
    /// The problems, or what needs a restart.
    pub messages: Vec<String>,
}

/// Loads a config file with the environment of this process.
///
/// # Errors
/// Every problem.
pub fn load(path: &Path) -> Result<config::Loaded, config::Problems> {
    load_from(path, &config::Disk)
}

/// The same, with the content of a file as its control source's response.
///
/// # Errors
/// Every problem.
pub fn load_with(path: &Path, said: Option<&Path>) -> Result<config::Loaded, config::Problems> {
    let loaded = load(path)?;
    let Some(said) = said else { return Ok(loaded) };
    let wrong = |cause: String| {
        let mut problems = config::Problems::default();
        let file = said.display().to_string();
        let place = config::Place { file: file.as_str().into(), ..config::Place::default() };
        problems.add(&place, cause);
        problems
    };
    let Some(control) = &loaded.config.control else {
        return Err(wrong("the config has no `control`, so nothing can send this".to_owned()));
    };
    let text = certs::bytes(said).map_err(|error| wrong(error.cause))?;
    loaded.with(&config::ControlDocument::read(control, &text)?)
}

/// Like [`load`], from another source of files.
///
/// # Errors
/// Every problem.
pub fn load_from(
    path: &Path,
    files: &dyn config::Files,
) -> Result<config::Loaded, config::Problems> {
    config::load_from(path, files, &|name| std::env::var(name).ok())
}

/// SHA-256 of all files of a config, in hex.
pub fn digest(loaded: &config::Loaded) -> String {
    let mut context = Context::new(&SHA256);
    for (path, bytes) in &loaded.files {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(path.file_name().map_or(&b""[..], |name| name.as_encoded_bytes()));
        context.update(bytes);
    }
    filters::hex::write(&context.finish().as_ref()[..16])
}

/// Prepares a config for use: `files` merged with the control source's response. `last` are the credentials
/// in use.
///
/// # Errors
/// Every file in it that cannot be used.
pub fn make(
    loaded: config::Loaded,
    files: Arc<config::Loaded>,
    dial: &Dial,
    metrics: &Arc<Metrics>,
    last: Option<&Credentials>,
) -> Result<Snapshot, Vec<String>> {
    let parents = Arc::new(Parents::of(&loaded.config).map_err(|error| vec![error])?);
    let dial = &dial.through(Arc::clone(&parents));
    let upstreams = Upstreams::new(&loaded.config, dial)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>());
    let credentials = Credentials::new(&loaded.config, dial, metrics, last);
    let (upstreams, credentials) = match (upstreams, credentials) {
        (Ok(upstreams), Ok(credentials)) => (upstreams, credentials),
        (upstreams, credentials) => {
            let errors = [upstreams.err(), credentials.err()];
            return Err(errors.into_iter().flatten().flatten().collect());
        }
    };
    let policy = Arc::new(Policy::new(&loaded.config, &digest(&loaded)));
    let counts = Counts::new(&policy, &loaded.config);
    let (passwords, opaque) = match (passwords(&loaded.config), opaque_tokens::all(&loaded.config))
    {
        (Ok(passwords), Ok(opaque)) => (passwords, opaque),
        (passwords, opaque) => {
            let errors = [passwords.err(), opaque.err()];
            return Err(errors.into_iter().flatten().flatten().collect());
        }
    };
    let needs_restart = Vec::new();
    Ok(Snapshot {
        policy,
        upstreams: Arc::new(upstreams),
        credentials,
        counts,
        parents,
        passwords,
        opaque,
        loaded,
        files,
        needs_restart,
    })
}

/// The passwords of callers on forward listeners.
fn passwords(config: &config::Config) -> Result<Vec<(Label, Secret)>, Vec<String>> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for (name, caller) in &config.egress.callers {
        match password(&caller.password_file) {
            Ok(password) => all.push((Label::from(name), password)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

/// The password in a file. A line end after it is not part of it.
///
/// # Errors
/// If there is none, or it is too short.
pub fn password(file: &Path) -> Result<Secret, LoadError> {
    let wrong = |cause: String| LoadError { file: file.to_owned(), cause };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.len() < PASSWORD_MIN {
        let length = text.len();
        return Err(wrong(format!(
            "the password has {length} bytes; it needs at least {PASSWORD_MIN}"
        )));
    }
    Ok(Secret::new(text))
}

impl Process {
    /// Reads everything again: the config, its certificates, keys and secrets. A config is applied as a
    /// whole or not at all; if a certificate, key or secret cannot be used, the last one stays.
    pub async fn reload(self: &Arc<Self>, source: Source) -> ReloadResult {
        let process = Arc::clone(self);
        match aside(async move { process.reload_now(source).await }).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "cannot reload");
                let digest = self.gateway.snapshot.load().policy.digest.to_string();
                let messages = vec![format!("cannot reload: {error}")];
                let time = clock::now().unix_seconds();
                ReloadResult { successful: false, time, digest, messages }
            }
        }
    }

    async fn reload_now(self: &Arc<Self>, source: Source) -> ReloadResult {
        // One at a time: a reload must not replace a newer config with an older one.
        let mut seen = self.seen.lock().await;
        let (now_seen, files) = FileStates::load(&self.path);
        let last = self.gateway.snapshot.load_full();
        let taken_over = match files {
            Ok(files) => self.take_over_files(Arc::new(files)).await,
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        };
        *seen = now_seen;
        let snapshot = self.gateway.snapshot.load_full();
        drop(seen);
        let (time, digest) = (clock::now().unix_seconds(), snapshot.policy.digest.to_string());
        let (mut result, asked) = match taken_over {
            Ok((messages, asked)) => {
                (ReloadResult { successful: true, time, digest, messages }, asked)
            }
            Err(messages) => (ReloadResult { successful: false, time, digest, messages }, true),
        };
        if result.successful {
            tracing::info!(policy = %result.digest, messages = ?result.messages, "policy in force");
        } else {
            tracing::error!(policy = %result.digest, problems = ?result.messages, "config has problems, keeping the policy in force");
        }
        self.gateway.metrics.reloaded(result.successful, time);
        self.last_reload.lock().clone_from(&result);
        self.on_record(source.name(), result.successful, Some(&last), &result.messages);
        if result.successful {
            // It is in force. What follows delays neither it nor the next reload.
            let ask = source != Source::Files && !asked;
            let more = self.look_around(&snapshot, &last, ask).await;
            result.messages.extend(more);
            if Arc::ptr_eq(&snapshot, &self.gateway.snapshot.load()) {
                self.last_reload.lock().clone_from(&result);
            }
        }
        drop((snapshot, last));
        self.sweep();
        result
    }

    /// Fetches what a config in force refers to: addresses, keys, and the control source's response. Returns
    /// what is missing.
    async fn look_around(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        last: &Snapshot,
        ask: bool,
    ) -> Vec<String> {
        let lookup = self.gateway.lookup(snapshot);
        let names = snapshot.upstreams.resolve(&lookup);
        let keys = self.gateway.fetcher.ask_anew(&snapshot.loaded.config, &last.loaded.config);
        // Runs to its end even if the caller is dropped, so that a config is never applied in part.
        let control = async {
            let process = Arc::clone(self);
            match ask {
                true => aside(async move { process.ask_control().await }).await.unwrap_or_default(),
                false => Vec::new(),
            }
        };
        let (names, keys, control) = tokio::join!(
            timeout(LOOKUP_WAIT, names),
            timeout(LOOKUP_WAIT, keys),
            timeout(LOOKUP_WAIT, control)
        );
        let late =
            |what: &str| vec![format!("{what} within {LOOKUP_WAIT:?}; Stagedoor keeps trying")];
        let mut messages =
            names.map_or_else(|_| late("not all upstreams got an address"), |()| Vec::new());
        let keys = keys.unwrap_or_else(|_| late("not all issuers' keys were fetched"));
        if Arc::ptr_eq(snapshot, &self.gateway.snapshot.load()) {
            self.gateway.metrics.not_taken_over_either(keys.len());
        }
        for missing in messages.iter().chain(&keys) {
            tracing::warn!(missing, "the config is in force");
        }
        messages.extend(keys);
        messages.extend(control.unwrap_or_else(|_| late("the control source did not answer")));
        messages
    }

    /// Records the result, also for the admin listener.
    pub(crate) fn on_record(
        &self,
        source: &'static str,
        successful: bool,
        last: Option<&Snapshot>,
        messages: &[String],
    ) {
        let snapshot = self.gateway.snapshot.load();
        let changes =
            last.map(|last| config::changes(&last.loaded.config, &snapshot.loaded.config));
        let changes = changes.unwrap_or_default();
        let (digest, previous) = (&snapshot.policy.digest, last.map(|last| &*last.policy.digest));
        self.gateway.audit.happened(&Event::Config {
            source,
            successful,
            digest,
            previous,
            changes: &changes,
            messages,
        });
        self.history.add(Entry {
            time: clock::now().unix_seconds(),
            times: 1,
            source,
            successful,
            digest: digest.to_string(),
            previous: previous.map(str::to_owned),
            changes,
            messages: messages.to_vec(),
        });
    }

    /// Applies files, with the last response of their control source; it is polled first if there is none.
    /// Returns other problems, and whether it was polled.
    async fn take_over_files(
        &self,
        files: Arc<config::Loaded>,
    ) -> Result<(Vec<String>, bool), Vec<String>> {
        let ask = !self.control.has_answer(&files);
        let mut told = Vec::new();
        let mut fresh = None;
        if ask {
            match self.control.ask(&files, &self.gateway.dial).await {
                Ok(said) => fresh = said,
                Err(failure) => {
                    self.refused(&failure);
                    told.extend(failure.messages);
                }
            }
        }
        let loaded = match &fresh {
            Some(said) => said.loaded.clone(),
            None => self.control.last(&files)?,
        };
        let mut messages = self.take_over(loaded, Arc::clone(&files)).await?;
        messages.extend(told);
        match fresh {
            Some(said) => messages.extend(self.control.hold(said).await),
            None => self.control.forget_others(&files),
        }
        self.control.changed.notify_one();
        Ok((messages, ask))
    }

    pub(crate) async fn take_over(
        &self,
        mut loaded: config::Loaded,
        files: Arc<config::Loaded>,
    ) -> Result<Vec<String>, Vec<String>> {
        let mut messages: Vec<String> =
            loaded.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        let last = self.gateway.snapshot.load_full();
        let needs_restart = restart_required::keep_started(
            &self.gateway.started,
            &last.loaded.config,
            &mut loaded.config,
        );
        messages.extend(needs_restart.iter().cloned());
        let snapshot = Arc::new(Snapshot {
            needs_restart,
            ..make(
                loaded,
                files,
                &self.gateway.dial,
                &self.gateway.metrics,
                Some(&last.credentials),
            )?
        });
        snapshot.upstreams.begin_with(&last.upstreams);
        let config = &snapshot.loaded.config;
        self.use_parents(&snapshot.parents);
        let mut failures = self.swap_certificates(config);
        failures.extend(self.gateway.fetcher.read(config).await);
        failures.extend(snapshot.credentials.kept.iter().cloned());
        self.gateway.metrics.not_taken_over(failures.len());
        self.gateway.metrics.need_restart(snapshot.needs_restart.len());
        messages.extend(failures);
        self.use_passwords(&snapshot);
        self.gateway.snapshot.store(Arc::clone(&snapshot));
        self.retired.lock().push(last);
        let routes = snapshot.policy.routes.all();
        self.gateway
            .state
            .breakers
            .keep(|key| routes.iter().any(|route| route.breaker.key == *key));
        self.gateway.state.health.keep(|upstream| snapshot.upstreams.get(upstream).is_some());
        let sources = jwks::sources(config);
        self.gateway.state.keys.keep(|held| sources.iter().any(|source| held.is_beside(source)));
        Ok(messages)
    }

    /// Uses these parent proxies from now on. Logs them if they have changed.
    pub(crate) fn use_parents(&self, parents: &Arc<Parents>) {
        if *self.gateway.dial.parents() != **parents {
            parents.tell();
        }
        self.gateway.dial.use_parents(parents);
        self.shipping.use_parents(parents);
    }

    /// Believes these passwords and opaque tokens, and no others.
    pub fn use_passwords(&self, snapshot: &Snapshot) {
        let opaque = snapshot.opaque.iter().map(|(name, digests)| (name, &**digests));
        self.gateway.state.tokens.opaque.replace(opaque);
        let passwords = snapshot.passwords.iter();
        let all = passwords.map(|(name, secret)| (name.clone(), secret.expose().as_bytes()));
        self.gateway.state.passwords.replace(all);
    }

    /// Swaps certificates; if one cannot be used, the old one stays. Returns which files, and why.
    fn swap_certificates(&self, config: &config::Config) -> Vec<String> {
        let mut messages = Vec::new();
        for served in &self.served {
            let listener = config.listeners.get(served.listener.as_str());
            let Some(written) = listener.and_then(|listener| listener.tls.as_ref()) else {
                continue;
            };
            match tls::store(written) {
                Ok(store) => {
                    let last = served.certificates.current();
                    served.certificates.swap(store);
                    self.swapped(
                        &served.listener,
                        last.facts(),
                        served.certificates.current().facts(),
                    );
                }
                Err(error) => {
                    tracing::error!(listener = served.listener, %error, "keeping the old certificate");
                    messages.push(format!("{error}; the old certificate is kept"));
                }
            }
            let (Some(clients), Some(ca)) = (&served.clients, &written.client_ca) else { continue };
            let swapped = certs::roots(ca)
                .map_err(|error| error.to_string())
                .and_then(|roots| clients.swap(roots).map_err(|error| error.to_string()));
            if let Err(error) = swapped {
                tracing::error!(listener = served.listener, error, "keeping the old client CA");
                messages.push(format!("{error}; the old client CA is kept"));
            }
        }
        messages
    }

    /// Puts on record which certificates are others now.
    fn swapped(
        &self,
        listener: &str,
        last: &[certs::CertificateInfo],
        now: &[certs::CertificateInfo],
    ) {
        for facts in now.iter().filter(|facts| !last.contains(facts)) {
            self.gateway.audit.happened(&Event::Certificate {
                listener,
                file: &facts.file.to_string_lossy(),
                subject: &facts.subject,
                serial: &facts.serial,
                not_after: facts.not_after,
            });
        }
    }

    /// Watches the files of the last attempt, even a failed one, until the process ends; reloads when one
    /// has changed.
    pub async fn watch(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(PACE).await;
            self.sweep();
            let Some(change) = self.change().await else { continue };
            // A change may come in several steps: wait until two checks agree.
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.change().await == Some(change) {
                self.reload(Source::Files).await;
            }
        }
    }

    /// The current state of the files, if one has changed. Files are read on a blocking thread.
    async fn change(&self) -> Option<FileStates> {
        let seen = self.seen.lock().await.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let now = seen.again();
            (now != seen).then_some(now)
        });
        looked.await.ok().flatten()
    }
}
