//! Where requests go: addresses, TLS material and a peer for each attempt.

pub(crate) mod breaker_probe;
pub mod credentials;
pub mod health;
mod transport;
pub mod upgrade;
pub(crate) mod upload;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use certs::LoadError;
use config::BalanceKind;
use filters::{
    Label,
    balance::{self, Pick},
    guard::Guard,
    health::{Attempt as PoolAttempt, Health, Pool},
    idempotency::Scope,
    progress::Timeouts,
    reverse::Judged,
};
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Version};
use pingora::{
    upstreams::peer::HttpPeer,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use smallvec::SmallVec;

pub use crate::net::dial::Unreachable;
use crate::{
    net::{
        dial::{Dial, Unresolved},
        parent::{Parent, Tunnelling},
    },
    progress,
    upstream::upgrade::UpgradeAnswered,
};
pub(crate) use transport::Transport;

/// All upstreams of a config.
pub struct Upstreams(HashMap<Label, Arc<Upstream>>);

/// The inputs of a name lookup.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// Resolves it.
    pub dial: &'a Dial,
    /// Judges the addresses of external upstreams.
    pub guard: &'a Guard,
    /// The health of each address.
    pub health: &'a Health,
}

/// Where requests go.
pub struct Upstream {
    /// Its name.
    pub name: Label,
    /// As the operator wrote it.
    pub written: config::Upstream,
    /// The `Host` it sees, unless it is the client's.
    pub host: HeaderValue,
    /// Scopes idempotency keys to the caller, if configured.
    pub idempotency: Option<Scope>,
    /// Its addresses; those of its parent proxy, if it has one.
    pub pool: Pool,
    /// The proxy that it is behind.
    pub(crate) parent: Option<Arc<Parent>>,
    template: HttpPeer,
    /// How often its connections of HTTP/2 were given up.
    given_up: AtomicU64,
    /// Whether its last response was over HTTP/2.
    multiplexes: AtomicBool,
}

/// Concurrent requests on an HTTP/2 connection.
const STREAMS_MAX: usize = 100;
/// The longest wait in an exchange that nothing else ends.
const LONGEST: Duration = Duration::from_secs(600);
/// How much of a response may be buffered here for its client.
const STREAM_WINDOW: u32 = 256 << 10;
/// Names that are looked up at the same time.
const LOOKUPS_MAX: usize = 32;
/// More addresses of one name are not used.
const ADDRESSES_MAX: usize = 256;

/// What an attempt is made for.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// For an upgrade: where the upstream's response is recorded.
    pub upgrade: Option<UpgradeAnswered>,
    /// Whether it is a stream with its own idle timeout.
    pub stream: bool,
    /// Whether it is gRPC, which needs HTTP/2.
    pub grpc: bool,
    /// Whether its body is long, or of unknown length.
    pub upload: bool,
}

/// The attempts of an exchange so far, so that a retry goes to another address.
#[derive(Debug, Default)]
pub struct Attempts {
    /// The current or last attempt.
    pub attempt: Option<PoolAttempt>,
    /// The exchange's turn among those of the upstream, if it has several addresses.
    turn: Option<usize>,
    /// Addresses that failed.
    failed: SmallVec<[SocketAddr; 2]>,
}

impl Attempts {
    /// The last address is not used again, if there is another.
    pub fn failed(&mut self) {
        if let Some(attempt) = &self.attempt
            && !self.failed.contains(&attempt.at())
        {
            self.failed.push(attempt.at());
        }
    }
}

impl Upstreams {
    /// From what the operator wrote; reads certificates.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn new(written: &config::Config, dial: &Dial) -> Result<Self, Vec<LoadError>> {
        let (mut all, mut errors) = (HashMap::new(), Vec::new());
        for (name, upstream) in &written.upstreams {
            match Upstream::new(name.into(), upstream, dial) {
                Ok(upstream) => _ = all.insert(Label::from(name), Arc::new(upstream)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self(all)) } else { Err(errors) }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Label, &Arc<Upstream>)> {
        self.0.iter()
    }

    /// The upstream of this name.
    pub fn get(&self, name: &Label) -> Option<&Arc<Upstream>> {
        self.0.get(name)
    }

    /// Resolves the names of all upstreams again. If a lookup fails, the addresses stay.
    pub async fn resolve(&self, lookup: &Lookup<'_>) {
        let each = |(name, upstream): (&Label, &Arc<Upstream>)| {
            let (name, upstream) = (name.clone(), Arc::clone(upstream));
            async move {
                match upstream.resolve(lookup).await {
                    Ok(()) => {}
                    Err(Unreachable::Unresolved(error)) => {
                        tracing::warn!(upstream = %name, %error, "keeping the addresses known so far");
                    }
                    Err(Unreachable::Parent(fault)) => {
                        tracing::warn!(upstream = %name, %fault, "keeping the addresses known so far");
                    }
                    Err(Unreachable::Refused(denial)) => {
                        tracing::warn!(upstream = %name, %denial, "no usable address");
                    }
                }
            }
        };
        stream::iter(&self.0).for_each_concurrent(LOOKUPS_MAX, each).await;
    }

    /// Starts with the addresses that `last` had for upstreams with the same host, until their names are
    /// resolved again. Not where addresses are judged: the rules may have changed.
    pub fn begin_with(&self, last: &Self) {
        for (name, upstream) in &self.0 {
            let Some(before) = last.get(name) else { continue };
            let same = before.written.url == upstream.written.url
                && before.parent.is_none()
                && upstream.parent.is_none();
            if same && !upstream.written.external && !before.written.external {
                upstream.pool.replace(before.pool.addresses());
            }
        }
    }
}

/// The scope that makes idempotency keys the caller's own.
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
    pub fn new(name: Label, written: &config::Upstream, dial: &Dial) -> Result<Self, LoadError> {
        let url = &written.url;
        let parents = dial.parents();
        let parent = parents.on_the_way_to(&url.host, url.port, url.tls);
        let parent = parent.filter(|_| written.external).cloned();
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut template = match &parent {
            // It gets whole URLs, and forwards them for us.
            Some(parent) if !url.tls => parent.template()?,
            _ => HttpPeer::new(nowhere, url.tls, url.host.clone()),
        };
        // Pingora's pool does not separate connections by CA, so we do.
        let mut pool = DefaultHasher::new();
        serde_json::to_string(&written.tls).expect("a config is data").hash(&mut pool);
        (url.to_string(), written.http as u8).hash(&mut pool);
        if let Some(parent) = &parent {
            parent.url.to_string().hash(&mut pool);
            parent.ca.as_ref().map(|ca| certs::ca_certificates(ca)).transpose()?.hash(&mut pool);
            if url.tls {
                template.options.custom_l4 = Some(Arc::new(Tunnelling {
                    parent: Arc::clone(parent),
                    dial: dial.clone(),
                    host: (url.host.clone(), url.port),
                }));
            }
        }
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
        if parent.is_some() && !url.tls {
            template.options.set_http_version(1, 1);
        }
        template.options.max_h2_streams = STREAMS_MAX;
        // Each stream may buffer this much for its client, and all together leave room for the others.
        template.options.h2_stream_window_size = Some(STREAM_WINDOW);
        template.options.h2_connection_window_size = Some(STREAM_WINDOW * STREAMS_MAX as u32);
        template.options.idle_timeout = Some(*written.idle_timeout);
        Ok(Self {
            host: HeaderValue::from_str(&url.authority()).expect("a URL's host is plain"),
            template,
            pool: Pool::default(),
            parent,
            given_up: AtomicU64::new(0),
            multiplexes: AtomicBool::new(written.http == config::HttpVersion::H2),
            idempotency: written.idempotency.as_ref().map(scope).transpose()?,
            written: written.clone(),
            name,
        })
    }

    /// Resolves its name, and uses the result from now on.
    ///
    /// # Errors
    /// As those of [`Upstream::peer`].
    pub async fn resolve(&self, lookup: &Lookup<'_>) -> Result<(), Unreachable> {
        let Lookup { dial, guard, health } = *lookup;
        let url = &self.written.url;
        let found = if let Some(parent) = &self.parent {
            if url.ip().is_some() {
                dial.vetted(&url.host, url.port, guard).await?;
            }
            parent.addresses(dial).await.map_err(Unreachable::Parent)
        } else if self.written.external {
            dial.vetted(&url.host, url.port, guard).await.inspect_err(|unreachable| {
                // An address that is no longer allowed is no longer dialled.
                if matches!(unreachable, Unreachable::Refused(_)) {
                    self.pool.replace(health.of(&self.name, &[]));
                }
            })
        } else {
            dial.addresses(&url.host, url.port).await.map_err(Unreachable::Unresolved)
        };
        let mut found = found?;
        found.sort();
        found.dedup();
        let count = found.len();
        found.truncate(ADDRESSES_MAX);
        if !self.pool.holds(&found) {
            if count > ADDRESSES_MAX {
                tracing::warn!(upstream = %self.name, count, "using {ADDRESSES_MAX} of its addresses");
            }
            self.pool.replace(health.of(&self.name, &found));
        }
        Ok(())
    }

    /// The peer of the next attempt, which `asked` then records.
    ///
    /// # Errors
    /// If its name has no address, or none that may be dialled.
    pub async fn peer(
        &self,
        request: &Judged,
        attempt: &Attempt,
        asked: &mut Attempts,
        lookup: &Lookup<'_>,
    ) -> Result<Box<HttpPeer>, Unreachable> {
        asked.attempt = self.pool.only().or_else(|| self.choose(request, asked));
        if asked.attempt.is_none() {
            self.resolve(lookup).await?;
            asked.attempt = self.choose(request, asked);
        }
        let Some(chosen) = &asked.attempt else {
            // A background lookup may just have found that none may be dialled.
            return Err(Unreachable::Unresolved(Unresolved::gone(&self.written.url.host)));
        };
        let mut peer = Box::new(self.template.clone());
        peer._address = chosen.at().into();
        let timeouts = &attempt.timeouts;
        let options = &mut peer.options;
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.write_timeout = Some(timeouts.upstream);
        options.read_timeout = if attempt.stream || attempt.upgrade.is_some() {
            Some(timeouts.stream_idle)
        } else {
            // Pingora cannot distinguish a silent upstream from one that waits for its client, nor recognize
            // a stream: `progress` does that, sooner. But not where Pingora has given up on the client's
            // body.
            let longest = timeouts.stream_idle.max(LONGEST);
            Some(if progress::is_watched() { longest } else { timeouts.upstream })
        };
        peer.group_key ^= self.given_up.load(Relaxed) << 3;
        if attempt.grpc {
            options.set_http_version(2, 2);
            peer.group_key ^= 1;
        }
        if let Some(answered) = &attempt.upgrade {
            options.set_http_version(1, 1);
            peer.group_key ^= 2;
            let transport = self.transport(timeouts, lookup.dial);
            crate::upstream::upgrade::decorate_by(&mut peer, timeouts, answered, transport);
        } else if attempt.upload && !attempt.grpc && !self.multiplexes.load(Relaxed) {
            peer.group_key ^= 4;
            upload::decorate(&mut peer, self.transport(timeouts, lookup.dial));
        }
        Ok(peer)
    }

    /// The transport to it, where Pingora's own does not suffice.
    fn transport(&self, timeouts: &Timeouts, dial: &Dial) -> Transport {
        let parent = self.parent.as_ref().filter(|_| self.written.url.tls);
        let through = parent.map(|parent| Tunnelling {
            parent: Arc::clone(parent),
            dial: dial.clone(),
            host: (self.written.url.host.clone(), self.written.url.port),
        });
        Transport { patience: timeouts.connect, through }
    }

    /// It responded in this version.
    pub fn answered_in(&self, version: Version) {
        let multiplexes = version == Version::HTTP_2;
        // Usually there is nothing to write, and so no contention for a cache line.
        if self.multiplexes.load(Relaxed) != multiplexes {
            self.multiplexes.store(multiplexes, Relaxed);
        }
    }

    /// It timed out: if requests share a connection, that may be the reason, so no more are sent on the
    /// existing ones.
    pub fn give_up_connections(&self, grpc: bool) {
        let may_share = match self.written.http {
            config::HttpVersion::H1 => grpc,
            config::HttpVersion::Auto => grpc || self.written.url.tls,
            config::HttpVersion::H2 => true,
        };
        if may_share {
            self.given_up.fetch_add(1, Relaxed);
        }
    }

    /// Chooses one of several addresses.
    fn choose(&self, request: &Judged, asked: &mut Attempts) -> Option<PoolAttempt> {
        let balance = self.written.balance;
        let pick = Pick {
            balance,
            turn: *asked.turn.get_or_insert_with(|| self.pool.turn()),
            roll: match balance.kind {
                BalanceKind::LeastRequest => fastrand::u64(..),
                BalanceKind::RoundRobin | BalanceKind::ConsistentHash => 0,
            },
            key: balance.by.and_then(|by| {
                let (who, client) = (&request.who, request.client);
                let workspace = who.workspace().map(|workspace| &workspace.name);
                balance::key(by, workspace, who.caller().map(|caller| &**caller), client)
            }),
            tried: &asked.failed,
        };
        self.pool.choose(&pick)
    }

    /// The peer of a health check: one of its addresses, reached like in exchanges, but on a separate
    /// connection.
    pub fn peer_to_check(&self, address: SocketAddr, timeout: Duration) -> HttpPeer {
        let mut peer = self.template.clone();
        peer._address = address.into();
        let options = &mut peer.options;
        options.connection_timeout = Some(timeout);
        options.total_connection_timeout = Some(timeout);
        options.read_timeout = Some(timeout);
        options.write_timeout = Some(timeout);
        // No other stream fits, so the connection is not pooled.
        options.max_h2_streams = 1;
        peer
    }
}
