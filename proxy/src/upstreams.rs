//! Where requests go: addresses, TLS material and a peer for each attempt.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use certs::LoadError;
use filters::{Label, guard::Guard, idempotency::Scope, routes::Timeouts};
use http::HeaderValue;
use pingora::{
    upstreams::peer::HttpPeer,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};

pub use crate::dial::Unreachable;
use crate::{
    dial::{Dial, Unresolved},
    upgrade::Answered,
};

/// All upstreams of a config.
pub struct Upstreams(HashMap<Label, Upstream>);

/// Where requests go.
pub struct Upstream {
    /// As the operator wrote it.
    pub written: config::Upstream,
    /// The `Host` it sees, unless it is the client's.
    pub host: HeaderValue,
    /// Makes idempotency keys the caller's own, if they are to be.
    pub idempotency: Option<Scope>,
    template: HttpPeer,
    addresses: ArcSwap<Vec<SocketAddr>>,
    next: AtomicUsize,
}

/// What an attempt is made for.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// If it goes over to another protocol: where the upstream's answer is noted.
    pub upgrade: Option<Answered>,
    /// Whether it is a stream with its own idle timeout.
    pub stream: bool,
    /// Whether it is gRPC, which needs HTTP/2.
    pub grpc: bool,
    /// The exchange's turn among those of the upstream.
    pub turn: usize,
    /// How many attempts were made before. Each asks the next address.
    pub nth: usize,
}

impl Upstreams {
    /// From what the operator wrote; reads certificates.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn new(written: &config::Config) -> Result<Self, Vec<LoadError>> {
        let (mut all, mut errors) = (HashMap::new(), Vec::new());
        for (name, upstream) in &written.upstreams {
            match Upstream::new(upstream) {
                Ok(upstream) => _ = all.insert(Label::from(name), upstream),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self(all)) } else { Err(errors) }
    }

    /// The upstream of this name.
    pub fn get(&self, name: &Label) -> Option<&Upstream> {
        self.0.get(name)
    }

    /// Looks up the names of all upstreams again. What cannot be found stays as it was.
    pub async fn resolve(&self, dial: &Dial, guard: &Guard) {
        for (name, upstream) in &self.0 {
            match upstream.resolve(dial, guard).await {
                Ok(()) => {}
                Err(Unreachable::Unresolved(error)) => {
                    tracing::warn!(upstream = %name, %error, "keeping the addresses known so far");
                }
                Err(Unreachable::Refused(denial)) => {
                    tracing::warn!(upstream = %name, %denial, "it has no address any more");
                }
            }
        }
    }
}

/// What makes idempotency keys the caller's own.
///
/// # Errors
/// Why its secret cannot be used.
pub fn scope(written: &config::Idempotency) -> Result<Scope, LoadError> {
    let file = &*written.secret_file;
    let secret = certs::bytes(file)?;
    let secret = secret.strip_suffix(b"\n").unwrap_or(&secret);
    Scope::new(secret.strip_suffix(b"\r").unwrap_or(secret))
        .map_err(|cause| LoadError { file: file.clone(), cause })
}

impl Upstream {
    fn new(written: &config::Upstream) -> Result<Self, LoadError> {
        let url = &written.url;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut template = HttpPeer::new(nowhere, url.tls, url.host.clone());
        // Pingora's pool does not tell connections of another CA apart: we do.
        let mut pool = DefaultHasher::new();
        serde_json::to_string(&written.tls).expect("a config is data").hash(&mut pool);
        (url.to_string(), written.http as u8).hash(&mut pool);
        if let Some(ca) = &written.tls.ca {
            let cas = certs::ca_certificates(ca)?;
            cas.hash(&mut pool);
            let cas: Vec<WrappedX509> =
                cas.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect();
            template.options.ca = Some(cas.into());
        }
        if let (Some(cert), Some(key)) = (&written.tls.client_cert, &written.tls.client_key) {
            let (chain, key) = certs::client_pair(cert, key)?;
            (&chain, &key).hash(&mut pool);
            template.client_cert_key = Some(Arc::new(CertKey::new(chain, key)));
        }
        template.group_key = pool.finish();
        match written.http {
            config::HttpVersion::Auto if url.tls => template.options.set_http_version(2, 1),
            config::HttpVersion::Auto | config::HttpVersion::H1 => {
                template.options.set_http_version(1, 1);
            }
            config::HttpVersion::H2 => template.options.set_http_version(2, 2),
        }
        template.options.max_h2_streams = 100;
        template.options.idle_timeout = Some(*written.idle_timeout);
        Ok(Self {
            host: HeaderValue::from_str(&url.authority()).expect("a URL's host is plain"),
            template,
            addresses: ArcSwap::default(),
            next: AtomicUsize::new(0),
            idempotency: written.idempotency.as_ref().map(scope).transpose()?,
            written: written.clone(),
        })
    }

    /// How many addresses it has.
    pub fn len(&self) -> usize {
        self.addresses.load().len()
    }

    /// Whether it has none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn resolve(&self, dial: &Dial, guard: &Guard) -> Result<(), Unreachable> {
        let url = &self.written.url;
        let found = if self.written.external {
            dial.vetted(&url.host, url.port, guard).await.inspect_err(|unreachable| {
                // What may not be dialled any more is not, also if it could be before.
                if matches!(unreachable, Unreachable::Refused(_)) {
                    self.addresses.store(Arc::default());
                }
            })
        } else {
            dial.addresses(&url.host, url.port).await.map_err(Unreachable::Unresolved)
        };
        let mut found = found?;
        found.sort();
        if **self.addresses.load() != found {
            self.addresses.store(Arc::new(found));
        }
        Ok(())
    }

    /// An exchange's turn, so that each begins with another address.
    pub fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whom to ask this time.
    ///
    /// # Errors
    /// If its name has no address, or none that may be dialled.
    pub async fn peer(
        &self,
        attempt: &Attempt,
        dial: &Dial,
        guard: &Guard,
    ) -> Result<Box<HttpPeer>, Unreachable> {
        let mut addresses = self.addresses.load_full();
        if addresses.is_empty() {
            self.resolve(dial, guard).await?;
            addresses = self.addresses.load_full();
        }
        // A background look may have found that none may be dialled, just now.
        if addresses.is_empty() {
            return Err(Unreachable::Unresolved(Unresolved::gone(&self.written.url.host)));
        }
        let address = addresses[attempt.turn.wrapping_add(attempt.nth) % addresses.len()];
        let mut peer = Box::new(self.template.clone());
        peer._address = address.into();
        let timeouts = &attempt.timeouts;
        let options = &mut peer.options;
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.write_timeout = Some(timeouts.upstream);
        let is_stream = attempt.stream || attempt.upgrade.is_some();
        let silence = if is_stream { timeouts.stream_idle } else { timeouts.upstream };
        options.read_timeout = Some(silence);
        if attempt.grpc {
            options.set_http_version(2, 2);
            peer.group_key ^= 1;
        }
        if let Some(answered) = &attempt.upgrade {
            options.set_http_version(1, 1);
            peer.group_key ^= 2;
            crate::upgrade::decorate(&mut peer, timeouts, answered);
        }
        Ok(peer)
    }
}
