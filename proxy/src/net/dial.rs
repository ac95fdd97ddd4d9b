//! Name resolution and connections: the only place where names become addresses.

mod hosts;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use filters::{
    Denial,
    guard::Guard,
    target::{Host, Target},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};

use self::hosts::Hosts;
use crate::{
    clock,
    net::parent::{self, Parents},
};

/// Resolves names, both families, and connects.
#[derive(Clone, Default)]
pub struct Dial {
    inner: Arc<Inner>,
    /// The parent proxies.
    parents: Arc<ArcSwapOption<Parents>>,
}

#[derive(Default)]
struct Inner {
    /// The name servers; the system's if empty.
    name_servers: Vec<SocketAddr>,
    resolver: OnceLock<Option<TokioResolver>>,
    hosts: Hosts,
    own: Mutex<Option<(Instant, Arc<[IpAddr]>)>>,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dial")
    }
}

/// A name has no address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot resolve `{host}`: {cause}")]
pub struct Unresolved {
    host: String,
    cause: String,
}

/// Why there is nothing to connect to.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The name has no address.
    #[error(transparent)]
    Unresolved(Unresolved),
    /// Its parent proxy is unavailable.
    #[error(transparent)]
    Parent(parent::Fault),
    /// None of its addresses may be dialled.
    #[error("{0}")]
    Refused(Box<Denial>),
}

const PATIENCE: Duration = Duration::from_secs(3);
/// How long an attempt runs before the next starts in parallel (RFC 8305 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long our own addresses are cached.
const OWN_FOR: Duration = Duration::from_secs(10);

impl Unresolved {
    /// It had addresses, and has none now.
    pub(crate) fn gone(host: &str) -> Self {
        Self { host: host.to_owned(), cause: "it no longer has an address".to_owned() }
    }
}

impl Dial {
    /// With these name servers instead of the system's.
    pub fn asking(name_servers: &[SocketAddr]) -> Self {
        let name_servers = name_servers.to_vec();
        let inner = Arc::new(Inner { name_servers, ..Inner::default() });
        Self { inner, parents: Arc::default() }
    }

    /// A copy with these parent proxies, independent of later changes to the original.
    #[must_use]
    pub fn through(&self, parents: Arc<Parents>) -> Self {
        let parents = Arc::new(ArcSwapOption::from(Some(parents)));
        Self { inner: Arc::clone(&self.inner), parents }
    }

    /// Uses these parent proxies from now on, in all clones.
    pub fn use_parents(&self, parents: &Arc<Parents>) {
        self.parents.store(Some(Arc::clone(parents)));
    }

    /// The parent proxies.
    pub(crate) fn parents(&self) -> Arc<Parents> {
        self.parents.load_full().unwrap_or_default()
    }

    /// All addresses of a host, each with the port.
    ///
    /// # Errors
    /// If there is none, or none in time.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        // RFC 6761 6.3: never sent to a server. IPv4 first, because most local servers listen there.
        if host == "localhost" {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Ok(both.map(|ip| SocketAddr::new(ip, port)).to_vec());
        }
        let unresolved = |cause: String| Unresolved { host: host.to_owned(), cause };
        let found = self.inner.find(host, host).await.map_err(unresolved)?;
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// All addresses of a fully qualified name, for callers that check their class. No search domain is
    /// added.
    ///
    /// # Errors
    /// If there is none, or none in time.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let found = self.inner.find(name, &format!("{name}.")).await;
        found.map_err(|cause| Unresolved { host: name.to_owned(), cause })
    }

    /// The allowed addresses of a host, each with the port, for connections to a host that someone else
    /// named.
    ///
    /// # Errors
    /// If there is none.
    pub async fn vetted(
        &self,
        host: &str,
        port: u16,
        guard: &Guard,
    ) -> Result<Vec<SocketAddr>, Unreachable> {
        let refused = |denial| Unreachable::Refused(Box::new(denial));
        let called =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let target = Target::of_connect(called.as_bytes());
        let target = target.map_err(|fault| refused(Denial::TargetInvalid(fault)))?;
        let found = match &target.host {
            Host::Address(ip) => vec![*ip],
            Host::Name(name) => self.lookup(name).await.map_err(Unreachable::Unresolved)?,
        };
        let own = self.own_addresses();
        let passed = guard.vet(&target, &found, &own, clock::now()).map_err(refused)?;
        Ok(passed.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Connects to the first of these addresses that accepts (Happy Eyeballs, RFC 8305): the families
    /// alternate, and each attempt starts shortly after the previous one or as soon as that has failed. An
    /// address that drops packets delays nothing.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn connect(
        &self,
        addresses: &[SocketAddr],
        patience: Duration,
    ) -> io::Result<(TcpStream, SocketAddr)> {
        let mut left = in_turn(addresses).into_iter();
        let mut in_flight = FuturesUnordered::new();
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        let deadline = Instant::now() + patience;
        loop {
            if let Some(address) = left.next() {
                let rest = deadline.saturating_duration_since(Instant::now());
                in_flight.push(async move { (reach(address, rest).await, address) });
            }
            let next = in_flight.next();
            let ended = if left.as_slice().is_empty() {
                next.await
            } else {
                match timeout(ATTEMPT_DELAY, next).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                }
            };
            match ended {
                Some((Ok(stream), address)) => return Ok((stream, address)),
                Some((Err(error), _)) => last = error,
                None => return Err(last),
            }
        }
    }

    /// The addresses of this machine, as they were a moment ago.
    pub fn own_addresses(&self) -> Arc<[IpAddr]> {
        let mut own = self.inner.own.lock();
        if let Some((seen, addresses)) = &*own
            && seen.elapsed() < OWN_FOR
        {
            return Arc::clone(addresses);
        }
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let addresses: Arc<[IpAddr]> = interfaces.iter().map(if_addrs::Interface::ip).collect();
        *own = Some((Instant::now(), Arc::clone(&addresses)));
        addresses
    }
}

/// The families alternate, beginning with that of the first address (RFC 8305 4).
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let of_first = |address: &&SocketAddr| address.is_ipv4() == addresses[0].is_ipv4();
    let (first, second): (Vec<&SocketAddr>, Vec<_>) = addresses.iter().partition(of_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| match (first.next(), second.next()) {
        (None, None) => None,
        (one, other) => Some([one, other].into_iter().flatten().copied()),
    });
    pairs.flatten().collect()
}

/// Connects to an address. Every connection of ours goes through here.
pub(crate) async fn reach(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "an address, not a name")]
    let connected = timeout(patience, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // Small messages must not wait for each other.
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Inner {
    /// The addresses of a name by the hosts file, or else by name servers for `question`.
    async fn find(&self, name: &str, question: &str) -> Result<Vec<IpAddr>, String> {
        if let Some(found) = self.hosts.addresses(name) {
            return Ok(found);
        }
        let resolver = self.resolver.get_or_init(|| self.resolver());
        ask(resolver.as_ref(), question).await
    }

    fn resolver(&self) -> Option<TokioResolver> {
        let mut builder = self.builder()?;
        let options = builder.options_mut();
        // Judging addresses requires all of them.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // It would be read once, and that by a program that runs for months: see `hosts`.
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().ok()
    }

    fn builder(&self) -> Option<ResolverBuilder<TokioRuntimeProvider>> {
        if self.name_servers.is_empty() {
            return TokioResolver::builder_tokio().ok();
        }
        let servers = self.name_servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|c| c.port = address.port());
            server
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        Some(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }
}

async fn ask(resolver: Option<&TokioResolver>, host: &str) -> Result<Vec<IpAddr>, String> {
    let resolver = resolver.ok_or("the system has no resolver")?;
    let found = timeout(PATIENCE, resolver.lookup_ip(host))
        .await
        .map_err(|_| "no response in time")?
        .map_err(|error| error.to_string())?;
    let found: Vec<_> = found.iter().collect();
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_respond_is_not_the_last_that_is_tried() {
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listening.local_addr().unwrap();
        // Bound, so that no one else gets the port, but not listening.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = closed.local_addr().unwrap();
        let patience = Duration::from_secs(5);
        let (_, reached) = Dial::default().connect(&[closed, open], patience).await.unwrap();
        assert_eq!(reached, open);
        let refused = Dial::default().connect(&[closed], patience).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(Dial::default().connect(&[], patience).await.is_err());
    }
}
