//! Callers that prove themselves by a client certificate.

use std::sync::Arc;

use config::{CertificateCaller, Located};

use super::{Caller, CallerKind, Proof};
use crate::{Label, request::certificate::ClientCertificate, types::sha256};

/// The callers known by certificate, in the config's order.
#[derive(Debug)]
pub(super) struct Certificates(Vec<(String, Arc<Caller>)>);

impl Certificates {
    pub(super) fn new(written: &[Located<CertificateCaller>]) -> Self {
        let named = |entry: &Located<CertificateCaller>| {
            (entry.value.name.clone(), Arc::new(caller(&entry.value)))
        };
        Self(written.iter().map(named).collect())
    }

    /// The first caller that the certificate names.
    pub(super) fn caller(&self, shown: &ClientCertificate) -> Option<Arc<Caller>> {
        let (_, caller) = self.0.iter().find(|(name, _)| shown.names(name))?;
        Some(Arc::clone(caller))
    }
}

fn caller(written: &CertificateCaller) -> Caller {
    let labels = |texts: &[String]| texts.iter().map(|text| Label::lossy(text)).collect();
    // Derived from the config, so that after a reload no caller has another's number.
    let text = serde_json::to_vec(written).expect("a config is data");
    Caller {
        kind: CallerKind::Service,
        proof: Proof::ClientCertificate,
        issuer: Label::lossy("client-certificate"),
        roles: labels(&written.roles),
        groups: labels(&written.groups),
        workspaces: written.workspaces.iter().map(Label::from).collect(),
        plugin: written.plugin.as_ref().map(Label::from),
        // The upper half: those of tokens count up from 0.
        id: sha256::number(&text) | 1 << 63,
        ..Caller::supposed(Label::lossy(&written.caller))
    }
}
