//! What every request needs: the policy in force, and what outlives it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use filters::{
    Label, Policy, Secret, State,
    breaker::{Facts, Key, Position},
    denial::Lack,
};
use parking_lot::Mutex;

use crate::{
    audit::{Audit, ship::Shipping},
    clock,
    control::Control,
    credentials::Credentials,
    dial::Dial,
    fallback::Fallback,
    flights::Flights,
    front::Drain,
    history::History,
    jwks::Fetcher,
    lasting::Lasting,
    metrics::{Counts, Metrics},
    parent::Parents,
    seen::Seen,
    store::Store,
    upstreams::Upstreams,
};

/// What a config means, made ready to run. Replaced whole.
pub struct Live {
    /// Its decisions.
    pub policy: Arc<Policy>,
    /// Where they lead.
    pub upstreams: Upstreams,
    /// What they are shown.
    pub credentials: Credentials,
    /// How often each.
    pub counts: Counts,
    /// The proxies that stand between us and the internet.
    pub parents: Arc<Parents>,
    /// The passwords of callers on forward listeners.
    pub passwords: Vec<(Label, Secret)>,
    /// The opaque tokens of callers.
    pub opaque: crate::opaque::Digests,
    /// What the operator wrote, with what the control source says, as far as it is in force.
    pub loaded: config::Loaded,
    /// What stands in the files alone.
    pub files: Arc<config::Loaded>,
    /// What of it is not, until the next start.
    pub needs_restart: Vec<String>,
}

/// What every request needs.
pub struct Stage {
    /// The policy in force.
    pub live: ArcSwap<Live>,
    /// What has happened.
    pub state: Arc<State>,
    /// Where records go.
    pub audit: Arc<Audit>,
    /// Where they go from there.
    pub shipping: Shipping,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Fetches keys.
    pub fetcher: Fetcher,
    /// What the control source says.
    pub control: Control,
    /// Where replicas count together, if they do.
    pub store: Option<Store>,
    /// Resolves names.
    pub dial: Dial,
    /// Answers for when upstreams fail.
    pub fallback: Fallback,
    /// Requests that are the same.
    pub flights: Arc<Flights>,
    /// What may last, and can be cut.
    pub lasting: Arc<Lasting>,
    /// Whether the process is stopping.
    pub drain: Arc<Drain>,
    /// The config file.
    pub path: PathBuf,
    /// What the process started with.
    pub started: config::Config,
    /// What the last attempt to load the config looked at. Held while one is under way.
    pub seen: tokio::sync::Mutex<Seen>,
    /// Those that were in force, until nobody uses them any more.
    pub retired: Mutex<Vec<Arc<Live>>>,
    /// How the last reload went.
    pub last_reload: Mutex<ReloadResult>,
    /// How those before went.
    pub history: History,
    /// The certificates of each TLS listener.
    pub served: Vec<ListenerCertificates>,
}

impl Stage {
    /// Gets what a decision lacked; answers whether asking again makes sense.
    pub async fn supply(&self, config: &config::Config, lack: &Lack) -> bool {
        match (lack, &self.store) {
            (Lack::Tokens { batch }, Some(store)) => {
                store.answered(*batch).await;
                true
            }
            _ => self.fetcher.fetch(config, lack).await,
        }
    }

    /// Lets go of what is in force no more and that nobody uses. Not by whoever uses it last: to free
    /// thousands of routes takes longer than a request.
    pub fn sweep(&self) {
        let mut retired = self.retired.lock();
        let (used, unused) =
            retired.drain(..).partition(|live: &Arc<Live>| Arc::strong_count(live) > 1);
        *retired = used;
        drop(retired);
        drop::<Vec<_>>(unused);
    }

    /// What the breakers of the policy in force do. One that nothing has happened to is closed.
    pub fn breakers(&self) -> Vec<(Key, Facts)> {
        let seen = self.state.breakers.facts(clock::now());
        let live = self.live.load();
        let closed = Facts { position: Position::Closed, cause: None };
        let named = live.policy.routes.all().iter().map(|route| (route.breaker.clone(), closed));
        let mut all: BTreeMap<Key, Facts> = named.collect();
        for (key, facts) in seen {
            let of_route = Key { part: None, ..key.clone() };
            if all.contains_key(&of_route) {
                all.insert(key, facts);
            }
        }
        all.into_iter().collect()
    }

    /// What is served now: the listener, and what an operator may know of each certificate.
    pub fn certificates(&self) -> Vec<(String, certs::Facts)> {
        let each = self.served.iter().map(|served| (served, served.certificates.current()));
        each.flat_map(|(served, store)| {
            let facts = store.facts().iter();
            facts.map(|facts| (served.listener.clone(), facts.clone())).collect::<Vec<_>>()
        })
        .collect()
    }
}

/// The certificates of a TLS listener, to be swapped when their files change.
pub struct ListenerCertificates {
    /// The listener's name.
    pub listener: String,
    /// What it serves.
    pub certificates: certs::Certificates,
    /// Whom it believes.
    pub clients: Option<Arc<certs::ClientCertificates>>,
}

/// How a reload went.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ReloadResult {
    /// Whether the config was taken over.
    pub successful: bool,
    /// When, in seconds since 1970.
    pub time: u64,
    /// The digest of the config in force.
    pub digest: String,
    /// What was wrong, or what needs a restart.
    pub messages: Vec<String>,
}
