//! What every request needs: the policy in force, and what outlives it.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use filters::{Policy, State};
use parking_lot::Mutex;

use crate::{
    audit::Audit,
    dial::Dial,
    front::Drain,
    jwks::Fetcher,
    metrics::{Counts, Metrics},
    upstreams::Upstreams,
};

/// What a config means, made ready to run. Replaced whole.
pub struct Live {
    /// Its decisions.
    pub policy: Arc<Policy>,
    /// Where they lead.
    pub upstreams: Upstreams,
    /// How often each.
    pub counts: Counts,
    /// What the operator wrote.
    pub loaded: config::Loaded,
}

/// What every request needs.
pub struct Stage {
    /// The policy in force.
    pub live: ArcSwap<Live>,
    /// What has happened.
    pub state: Arc<State>,
    /// Where records go.
    pub audit: Audit,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Fetches keys.
    pub fetcher: Fetcher,
    /// Resolves names.
    pub dial: Dial,
    /// Whether the process is stopping.
    pub drain: Arc<Drain>,
    /// The config file.
    pub path: PathBuf,
    /// How the last reload went.
    pub last_reload: Mutex<ReloadResult>,
    /// The certificates of each TLS listener.
    pub certificates: Vec<ListenerCertificates>,
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
