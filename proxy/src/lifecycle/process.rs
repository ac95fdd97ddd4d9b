//! The process: what serves requests, and what operating it needs in addition.

use std::{path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use crate::{
    data_plane::{
        gateway::{Gateway, Snapshot},
        listener::tls::ListenerCertificates,
    },
    lifecycle::{
        control::Control, file_watch::FileStates, reload::ReloadResult, reload_history::History,
    },
    observability::audit::ship::Shipping,
};

/// The process.
pub struct Process {
    /// What serves requests.
    pub gateway: Arc<Gateway>,
    /// Where records go from the folder.
    pub shipping: Shipping,
    /// The control source.
    pub control: Control,
    /// The config file.
    pub path: PathBuf,
    /// The files of the last attempt to load the config. Locked during an attempt.
    pub seen: tokio::sync::Mutex<FileStates>,
    /// Former policies that are still in use.
    pub retired: Mutex<Vec<Arc<Snapshot>>>,
    /// The result of the last reload.
    pub last_reload: Mutex<ReloadResult>,
    /// How those before went.
    pub history: History,
    /// The certificates of each TLS listener.
    pub served: Vec<ListenerCertificates>,
}

impl Process {
    /// Drops former policies that are no longer in use. Not in the last request that used one: freeing
    /// thousands of routes takes longer than a request.
    pub fn sweep(&self) {
        let mut retired = self.retired.lock();
        let (used, unused) =
            retired.drain(..).partition(|snapshot: &Arc<Snapshot>| Arc::strong_count(snapshot) > 1);
        *retired = used;
        drop(retired);
        drop::<Vec<_>>(unused);
    }

    /// The certificates in use, by listener.
    pub fn certificates(&self) -> Vec<(String, certs::CertificateInfo)> {
        let each = self.served.iter().map(|served| (served, served.certificates.current()));
        each.flat_map(|(served, store)| {
            let facts = store.facts().iter();
            facts.map(|facts| (served.listener.clone(), facts.clone())).collect::<Vec<_>>()
        })
        .collect()
    }
}
