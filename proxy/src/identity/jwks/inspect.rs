//! Inspects an issuer before the proxy runs (`check --online`). Nothing is stored.

use std::sync::Arc;

use config::{Issuer, IssuerKind, Name};
use filters::{
    guard::Guard,
    identity::{KeySet, Source},
};

use super::{Fault, Fetcher, guard};
use crate::net::fetch::Endpoint;

/// The responses of an issuer.
pub struct Inspection {
    /// Its keys, unless they are in a file.
    pub keys: Option<Result<KeySet, Fault>>,
    /// Whether its discovery document names the configured issuer. `None` if the keys were found through it,
    /// or there is no discovery.
    pub discovery: Option<Result<(), Fault>>,
}

impl Fetcher {
    /// Fetches from an issuer like a request that needs its keys.
    pub async fn inspect(
        &self,
        config: &config::Config,
        name: &Name,
        written: &Issuer,
    ) -> Inspection {
        let in_file = written.keys.file.is_some() || written.keys.secret_file.is_some();
        if in_file {
            return Inspection { keys: None, discovery: None };
        }
        let guard = guard(config);
        let source = Source::new(name.into(), written, None);
        let (keys, discovery) =
            tokio::join!(self.key_set(&guard, written, &source), self.compared(&guard, written));
        Inspection { keys: Some(keys), discovery }
    }

    /// Checks discovery where keys are found without it. A running proxy does not fetch it; it reveals a
    /// wrong `issuer` before the first token.
    async fn compared(&self, guard: &Arc<Guard>, written: &Issuer) -> Option<Result<(), Fault>> {
        let (base, place) = match (written.kind, &written.keys) {
            (IssuerKind::Backstage, keys) => {
                let url = keys.backstage_url.as_ref()?;
                (format!("{}/api/auth", url.value), Endpoint::declared(url))
            }
            (IssuerKind::Oidc, keys) if keys.url.is_some() => {
                let url: config::Url = written.issuer.parse().ok()?;
                (written.issuer.clone(), Endpoint::declared(&url))
            }
            _ => return None,
        };
        Some(self.document(guard, written, &base, &place).await.map(drop))
    }
}
