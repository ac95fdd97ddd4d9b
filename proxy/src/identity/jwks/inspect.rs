//! What an issuer answers, for whoever looks before it is run. Nothing is kept of it.

use std::sync::Arc;

use config::{Issuer, IssuerKind, Name};
use filters::{
    guard::Guard,
    identity::{KeySet, Source},
};

use super::{Fault, Fetcher, guard};
use crate::net::fetch::Endpoint;

/// What an issuer answers.
pub struct Inspection {
    /// Its keys, unless they are in a file.
    pub keys: Option<Result<KeySet, Fault>>,
    /// Whether its discovery document says that it is who the config says. `None` if that was asked
    /// for its keys, too, or there is none to ask.
    pub discovery: Option<Result<(), Fault>>,
}

impl Fetcher {
    /// Asks an issuer as a request would that lacks its keys.
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

    /// What discovery says where keys are found without. A running proxy does not ask that; it is where a
    /// wrong `issuer` is seen before the first token.
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
