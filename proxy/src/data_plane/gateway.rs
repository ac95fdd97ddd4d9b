//! What every request needs: the policy in force, and what outlives it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use filters::{Label, Policy, Secret, State, denial::Lack};

use crate::{
    data_plane::{
        coalescing::Coalescing, listener::Drain, long_lived::LongLived,
        stale_fallback::StaleResponses,
    },
    identity::jwks::Fetcher,
    net::{dial::Dial, parent::Parents},
    observability::{
        audit::Audit,
        metrics::{Counts, Metrics},
    },
    replicas::{store::Store, switches::Switchboard},
    upstream::{Lookup, Upstreams, credentials::Credentials},
};

/// What a config means, made ready to run. Replaced whole.
pub struct Snapshot {
    /// Its decisions.
    pub policy: Arc<Policy>,
    /// Where they lead.
    pub upstreams: Arc<Upstreams>,
    /// The credentials for upstreams.
    pub credentials: Credentials,
    /// How often each.
    pub counts: Counts,
    /// The parent proxies.
    pub parents: Arc<Parents>,
    /// The passwords of callers on forward listeners.
    pub passwords: Vec<(Label, Secret)>,
    /// The opaque tokens of callers.
    pub opaque: crate::identity::opaque_tokens::Digests,
    /// The config in force: the files, merged with the control source's response.
    pub loaded: config::Loaded,
    /// The files alone.
    pub files: Arc<config::Loaded>,
    /// What of it is not, until the next start.
    pub needs_restart: Vec<String>,
}

/// What every request needs.
pub struct Gateway {
    /// The policy in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// What has happened.
    pub state: Arc<State>,
    /// Where records go.
    pub audit: Arc<Audit>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Fetches keys.
    pub fetcher: Fetcher,
    /// Where replicas count together, if they do.
    pub store: Option<Arc<Store>>,
    /// Sets operators' switches.
    pub switchboard: Switchboard,
    /// Resolves names.
    pub dial: Dial,
    /// Responses stored for when upstreams fail.
    pub fallback: StaleResponses,
    /// Coalesced requests.
    pub coalescing: Arc<Coalescing>,
    /// Long-lived exchanges, which a switch can cut.
    pub long_lived: Arc<LongLived>,
    /// Whether the process is stopping.
    pub drain: Arc<Drain>,
    /// What the process started with.
    pub started: config::Config,
}

impl Gateway {
    /// The inputs of an upstream's name lookup.
    pub fn lookup<'a>(&'a self, snapshot: &'a Snapshot) -> Lookup<'a> {
        Lookup { dial: &self.dial, guard: &snapshot.policy.guard, health: &self.state.health }
    }

    /// Fetches what a decision lacked; returns whether to decide again.
    pub async fn supply(&self, config: &config::Config, lack: &Lack) -> bool {
        match (lack, &self.store) {
            (Lack::Tokens { batch }, Some(store)) => {
                store.answered(*batch).await;
                true
            }
            _ => self.fetcher.fetch(config, lack).await,
        }
    }
}
