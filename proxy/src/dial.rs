//! Names to addresses: the only way this program finds whom to connect to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use hickory_resolver::TokioResolver;

/// Looks names up, both families.
#[derive(Clone, Default)]
pub struct Dial(Arc<OnceLock<Option<TokioResolver>>>);

/// A name has no address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot resolve `{host}`: {cause}")]
pub struct Unresolved {
    host: String,
    cause: String,
}

const PATIENCE: Duration = Duration::from_secs(3);

impl Dial {
    /// All addresses of a host, each with the port.
    ///
    /// # Errors
    /// If there is none, or none in time.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        // RFC 6761 6.3: never asked of a server. IPv4 first, as most local servers listen there.
        if host == "localhost" {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Ok(both.map(|ip| SocketAddr::new(ip, port)).to_vec());
        }
        let unresolved = |cause: String| Unresolved { host: host.to_owned(), cause };
        let resolver = self
            .0
            .get_or_init(|| TokioResolver::builder_tokio().and_then(|b| b.build()).ok())
            .as_ref()
            .ok_or_else(|| unresolved("the system has no resolver".to_owned()))?;
        let found = tokio::time::timeout(PATIENCE, resolver.lookup_ip(host))
            .await
            .map_err(|_| unresolved("no answer in time".to_owned()))?
            .map_err(|error| unresolved(error.to_string()))?;
        let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        if addresses.is_empty() {
            return Err(unresolved("it has no address".to_owned()));
        }
        Ok(addresses)
    }
}

impl reqwest::dns::Resolve for Dial {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let dial = self.clone();
        Box::pin(async move {
            let found = dial.addresses(name.as_str(), 0).await?;
            let found: reqwest::dns::Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}
