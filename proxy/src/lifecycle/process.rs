//! The process: what serves requests, and what operating it needs beside that.

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
    /// What the control source says.
    pub control: Control,
    /// The config file.
    pub path: PathBuf,
    /// What the last attempt to load the config looked at. Held while one is under way.
    pub seen: tokio::sync::Mutex<FileStates>,
    /// Policies that were in force, until nobody uses them any more.
    pub retired: Mutex<Vec<Arc<Snapshot>>>,
    /// How the last reload went.
    pub last_reload: Mutex<ReloadResult>,
    /// How those before went.
    pub history: History,
    /// The certificates of each TLS listener.
    pub served: Vec<ListenerCertificates>,
}

impl Process {
    /// Lets go of what is in force no more and that nobody uses. Not by whoever uses it last: to free
    /// thousands of routes takes longer than a request.
    pub fn sweep(&self) {
        let mut retired = self.retired.lock();
        let (used, unused) =
            retired.drain(..).partition(|snapshot: &Arc<Snapshot>| Arc::strong_count(snapshot) > 1);
        *retired = used;
        drop(retired);
        drop::<Vec<_>>(unused);
    }

    /// What is served now: the listener, and what an operator may know of each certificate.
    pub fn certificates(&self) -> Vec<(String, certs::CertificateInfo)> {
        let each = self.served.iter().map(|served| (served, served.certificates.current()));
        each.flat_map(|(served, store)| {
            let facts = store.facts().iter();
            facts.map(|facts| (served.listener.clone(), facts.clone())).collect::<Vec<_>>()
        })
        .collect()
    }
}
