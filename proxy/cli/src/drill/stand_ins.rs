//! Stand-ins for everything that the config connects to: upstreams, called hosts, issuers, name servers.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use certs::dev::Authority;
use http::{Request, StatusCode};
use indexmap::IndexMap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};

use super::{
    http::{Mood, Play, Server},
    names,
    tokens::Mint,
};

/// Scheme, host and port, as they were written.
pub(super) type Origin = (bool, String, u16);

/// A poisoned name also resolves to this address, where connections are counted.
pub(super) const TRAP: Ipv4Addr = Ipv4Addr::new(127, 66, 66, 66);

/// Sockets of stand-ins, bound before the copy of the config is written, so that it can name them.
pub(super) struct Sockets {
    /// Of each upstream's origin, with whether it speaks HTTP/2 without TLS.
    pub(super) origins: IndexMap<Origin, (std::net::TcpListener, bool)>,
    /// Of called hosts: with TLS, and without.
    pub(super) called: [std::net::TcpListener; 2],
    pub(super) issuers: std::net::TcpListener,
    pub(super) names: std::net::UdpSocket,
}

impl Sockets {
    pub(super) fn bind(config: &config::Config) -> io::Result<Self> {
        let mut origins = IndexMap::new();
        for upstream in config.upstreams.values() {
            let url = &upstream.url;
            let http2 = upstream.http == config::HttpVersion::H2;
            let origin = (url.tls, url.host.clone(), url.port);
            if !origins.contains_key(&origin) {
                origins.insert(origin, (anywhere()?, http2));
            }
        }
        let names = std::net::UdpSocket::bind((names::HOME, 0))?;
        Ok(Self { origins, called: [anywhere()?, anywhere()?], issuers: anywhere()?, names })
    }

    /// The port of the stand-in for an upstream's origin.
    pub(super) fn of(&self, url: &config::Url) -> Option<u16> {
        let (listener, _) = self.origins.get(&(url.tls, url.host.clone(), url.port))?;
        Some(port(listener))
    }

    pub(super) fn name_server(&self) -> SocketAddr {
        self.names.local_addr().expect("it is bound")
    }
}

/// A socket that listens on a free port of loopback.
pub(super) fn anywhere() -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind((names::HOME, 0))
}

/// Where a socket listens.
pub(super) fn port(listener: &std::net::TcpListener) -> u16 {
    listener.local_addr().expect("it is bound").port()
}

/// The running stand-ins, until they are dropped.
pub(super) struct StandIns {
    /// How upstreams and called hosts are.
    pub(super) upstreams: watch::Sender<Mood>,
    /// How issuers are.
    pub(super) issuers: watch::Sender<Mood>,
    /// Where names lead.
    pub(super) names: watch::Sender<Vec<Ipv4Addr>>,
    tls: watch::Sender<Arc<ServerConfig>>,
    good: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
    seen: Arc<Upstream>,
    trapped: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl StandIns {
    /// `hosts` are the names that upstreams and called hosts have.
    pub(super) fn begin(
        sockets: Sockets,
        authority: &Authority,
        hosts: &[String],
        mint: Arc<Mint>,
    ) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("cannot begin a stand-in: {error}");
        let mut all: Vec<&str> = hosts.iter().map(String::as_str).collect();
        all.extend(["127.0.0.1", "localhost"]);
        let good = authority.server(&all).map_err(|error| told(&error))?;
        let expired = authority.expired_server(&all).map_err(|error| told(&error))?;
        let (good, expired) = (serving(&good)?, serving(&expired)?);
        let (tls, tls_seen) = watch::channel(Arc::clone(&good));
        let (upstreams, mood) = watch::channel(Mood::Well);
        let (issuers, issuers_mood) = watch::channel(Mood::Well);
        let (names, addresses) = watch::channel(vec![names::HOME]);
        let seen = Arc::new(Upstream::default());
        let mut tasks = JoinSet::new();
        let mut serve = |listener: std::net::TcpListener, server: Server| -> io::Result<()> {
            listener.set_nonblocking(true)?;
            tasks.spawn(server.serve(TcpListener::from_std(listener)?));
            Ok(())
        };
        let upstream =
            Server { mood, tls: None, plain_http2: false, play: Arc::<Upstream>::clone(&seen) };
        let with_tls = Server { tls: Some(tls_seen), ..upstream.clone() };
        let begun: io::Result<()> = (|| {
            for ((is_tls, ..), (listener, plain_http2)) in sockets.origins {
                let server = if is_tls { &with_tls } else { &upstream };
                serve(listener, Server { plain_http2, ..server.clone() })?;
            }
            let [called_tls, called] = sockets.called;
            serve(called_tls, with_tls)?;
            serve(called, upstream)?;
            let issuer = Server { mood: issuers_mood, tls: None, plain_http2: false, play: mint };
            serve(sockets.issuers, issuer)?;
            sockets.names.set_nonblocking(true)
        })();
        let begun = begun.and_then(|()| {
            tasks.spawn(names::serve(UdpSocket::from_std(sockets.names)?, addresses));
            Ok(())
        });
        begun.map_err(|error| told(&error))?;
        let trapped = Arc::default();
        Ok(Self { upstreams, issuers, names, tls, good, expired, seen, trapped, tasks })
    }

    /// Presents expired certificates, or valid ones again.
    pub(super) fn show_expired(&self) {
        self.tls.send_replace(Arc::clone(&self.expired));
    }

    pub(super) fn show_good(&self) {
        self.tls.send_replace(Arc::clone(&self.good));
    }

    /// Waits at the trap, on the ports that a poisoned name would be called at.
    pub(super) fn set_trap(&mut self, ports: &[u16]) -> io::Result<()> {
        for port in ports {
            let listener = std::net::TcpListener::bind((TRAP, *port))?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let trapped = Arc::clone(&self.trapped);
            self.tasks.spawn(async move {
                while listener.accept().await.is_ok() {
                    trapped.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(())
    }

    /// Connections that reached the trap.
    pub(super) fn trapped(&self) -> usize {
        self.trapped.load(Ordering::Relaxed)
    }

    /// Actions that were sent upstream more than once.
    pub(super) fn twice(&self) -> usize {
        self.seen.keys.lock().values().filter(|count| **count > 1).count()
    }
}

fn serving(issued: &certs::dev::Issued) -> Result<Arc<ServerConfig>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("a certificate just made: {error}");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(issued.cert.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes());
    let (chain, key) = (chain.map_err(|error| wrong(&error))?, key.map_err(|error| wrong(&error))?);
    let builder = ServerConfig::builder_with_provider(certs::provider());
    let mut config = builder
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Any upstream: responds with success, and counts actions by their keys.
#[derive(Default)]
struct Upstream {
    keys: Mutex<HashMap<String, u32>>,
}

impl Play for Upstream {
    fn answer(&self, asked: &Request<Bytes>) -> (StatusCode, Value) {
        let key = asked.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
        if let Some(key) = key {
            *self.keys.lock().entry(key.to_owned()).or_default() += 1;
        }
        (StatusCode::OK, json!({"stand-in": asked.uri().path()}))
    }
}
