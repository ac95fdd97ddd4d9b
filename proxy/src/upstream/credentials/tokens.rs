//! The tokens of one credential, one at a time: fetched once for all who wait, and renewed before
//! they end.

use std::{sync::Arc, time::Duration};

use filters::Label;
use parking_lot::Mutex;

use super::{
    client_credentials::ClientCredentials,
    github_app::GithubApp,
    outage::Outage,
    spacelift::ApiKey,
    token::{Token, TokenSlot, TokenState},
};
use crate::{clock, observability::metrics::Metrics};

/// The tokens of one credential.
pub(super) struct Tokens {
    name: Label,
    issuer: Issuer,
    metrics: Arc<Metrics>,
    /// Locked during a fetch; waiting requests find the token after that.
    in_flight: tokio::sync::Mutex<()>,
    progress: Mutex<Progress>,
}

/// The kinds of issuers. A new kind is a file with `ask`, and a line here and below.
pub(super) enum Issuer {
    ClientCredentials(ClientCredentials),
    Spacelift(ApiKey),
    GithubApp(GithubApp),
}

/// How the fetches went so far.
struct Progress {
    held: TokenSlot,
    /// When the last fetch ended.
    ended: Option<Duration>,
    outage: Outage,
}

impl Issuer {
    /// Fetches a token. An error says why there is none, and nothing secret.
    async fn ask(&self) -> Result<Token, String> {
        match self {
            Self::ClientCredentials(client) => client.ask().await,
            Self::Spacelift(key) => key.ask().await,
            Self::GithubApp(app) => app.ask().await,
        }
    }
}

impl Tokens {
    /// `last` are those of the same credential with another secret. The issuer may not know the new one yet:
    /// the last token is used until it expires.
    pub(super) fn new(
        name: Label,
        issuer: Issuer,
        metrics: Arc<Metrics>,
        last: Option<&Self>,
    ) -> Arc<Self> {
        let token = last.and_then(|last| last.progress.lock().held.usable(clock::elapsed()));
        let held = TokenSlot::doubtful(token);
        let progress = Mutex::new(Progress { held, ended: None, outage: Outage::default() });
        Arc::new(Self { name, issuer, metrics, in_flight: tokio::sync::Mutex::default(), progress })
    }

    /// The token to use. Waits for one if there is none.
    pub(super) async fn get(self: &Arc<Self>) -> Option<Token> {
        // In a statement of its own, so that no lock is held while we wait.
        let state = self.progress.lock().held.state(clock::elapsed());
        match state {
            TokenState::Fresh(token) => return Some(token),
            TokenState::Due(token) => {
                if self.in_flight.try_lock().is_ok() {
                    self.spawn();
                }
                return Some(token);
            }
            TokenState::Lacking => {}
        }
        let _ = self.spawn().await;
        self.progress.lock().held.usable(clock::elapsed())
    }

    /// Notes that the upstream did not take the token of then.
    pub(super) fn refuse(&self, since: Duration) {
        self.progress.lock().held.refuse(since, clock::elapsed());
    }

    /// When the token ends, in seconds since 1970, and why the last fetch failed.
    pub(super) fn facts(&self) -> (Option<u64>, Option<String>) {
        let progress = self.progress.lock();
        (progress.held.until(), progress.outage.failing().map(str::to_owned))
    }

    /// Fetches in a task: a client that hangs up must not break off what others wait for.
    fn spawn(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let this = Arc::clone(self);
        tokio::spawn(async move { this.fetch().await })
    }

    async fn fetch(&self) {
        let asked = clock::elapsed();
        let _only = self.in_flight.lock().await;
        {
            let progress = self.progress.lock();
            let now = clock::elapsed();
            // Another request fetched one while we waited, or just before.
            let done = progress.ended.is_some_and(|ended| ended >= asked)
                || matches!(progress.held.state(now), TokenState::Fresh(_));
            if done || !progress.outage.may_ask() {
                return;
            }
        }
        let fetched = self.issuer.ask().await;
        let result = if fetched.is_ok() { "ok" } else { "error" };
        self.metrics.credential_fetched(&self.name, result);
        let mut progress = self.progress.lock();
        progress.ended = Some(clock::elapsed());
        progress.outage.note(&self.name, fetched.as_ref().err().map(String::as_str));
        match fetched {
            Ok(token) => progress.held.replace(token),
            Err(_) => progress.held.keep(),
        }
    }
}
