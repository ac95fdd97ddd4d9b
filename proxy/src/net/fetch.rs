//! HTTP requests of our own: bounded in time and size, and only to addresses that `Dial` found.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use filters::{addresses::AddressClass, guard::Guard, target::Target};
use http::{HeaderMap, HeaderValue, header};
use rustls::client::WantsClientCert;

use crate::{
    clock,
    net::{
        dial::Dial,
        parent::{Parent, with_parent},
    },
};

/// The longest wait for an issuer.
const PATIENCE: Duration = Duration::from_secs(3);
const BYTES_MAX: usize = 512 << 10;

/// The location of a request, and whether that may be within our own network.
#[derive(Clone, Debug)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: bool,
    inside: bool,
}

impl Endpoint {
    /// A configured location. An address, or a name that only our own network can resolve, counts as inside.
    pub fn declared(url: &config::Url) -> Self {
        let name = &*url.host;
        let inside = url.ip().is_some()
            || !name.contains('.')
            || name.ends_with(".svc")
            || name.ends_with(".cluster.local");
        Self { host: name.to_owned(), port: url.port, tls: url.tls, inside }
    }

    /// A location from the command line, which is trusted: inside, without a parent proxy.
    pub fn told(url: &config::Url) -> Self {
        Self { inside: true, ..Self::declared(url) }
    }

    /// Whether both have the same scheme, host and port.
    pub fn is_same(&self, other: &Self) -> bool {
        self.tls == other.tls && self.port == other.port && self.host == other.host
    }

    /// Whether it uses TLS, so that nobody on the path can read it.
    pub fn is_private(&self) -> bool {
        self.tls
    }

    /// Whether it is this machine.
    pub fn is_this_machine(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// A location that a response from `asked` named. It is inside only if that is.
    ///
    /// # Errors
    /// If it is not an HTTP URL.
    pub fn found(url: &str, asked: &Self) -> Result<Self, String> {
        let wrong = || format!("`{}` is not an HTTP URL", url.escape_debug());
        let read = reqwest::Url::parse(url).map_err(|_| wrong())?;
        let host = read.host_str().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = read.port_or_known_default().ok_or_else(wrong)?;
        let inside = asked.inside && host == asked.host;
        let tls = read.scheme() == "https";
        Ok(Self { host, port, tls, inside })
    }
}

impl Endpoint {
    /// The parent proxy for it. Locations inside have none.
    pub fn parent(&self, dial: &Dial) -> Option<Arc<Parent>> {
        let public = |ip| AddressClass::of(ip) == AddressClass::Public;
        if self.inside && !self.host.parse().is_ok_and(public) {
            return None;
        }
        dial.parents().on_the_way_to(&self.host, self.port, self.tls).cloned()
    }
}

/// Finds the addresses of one place, and of no other. Behind a proxy that is the proxy.
struct Bound {
    dial: Dial,
    guard: Arc<Guard>,
    place: Endpoint,
    parent: Option<Arc<Parent>>,
}

impl reqwest::dns::Resolve for Bound {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let Self { dial, guard, place, parent } = self;
        let (dial, guard, place) = (dial.clone(), Arc::clone(guard), place.clone());
        let parent = parent.clone();
        Box::pin(async move {
            let expected = parent.as_ref().map_or(&place.host, |parent| &parent.url.host);
            if name.as_str() != expected {
                return Err(format!("`{}` must not be called", name.as_str()).into());
            }
            let found = match &parent {
                Some(parent) => parent.addresses(&dial).await?,
                None => addresses(&dial, &guard, &place).await?,
            };
            let found: reqwest::dns::Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

/// The addresses of a place that may be dialled.
pub async fn addresses(
    dial: &Dial,
    guard: &Guard,
    place: &Endpoint,
) -> Result<Vec<SocketAddr>, String> {
    if place.inside {
        return dial.addresses(&place.host, place.port).await.map_err(|error| error.to_string());
    }
    dial.vetted(&place.host, place.port, guard).await.map_err(|error| error.to_string())
}

/// A client for one location, through its parent proxy if it has one.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    dial: Dial,
    place: Endpoint,
    parent: Option<Arc<Parent>>,
}

impl std::ops::Deref for Client {
    type Target = reqwest::Client;
    fn deref(&self) -> &reqwest::Client {
        &self.http
    }
}

/// A client for one location that trusts these CAs (or the system's). Follows no redirects.
pub fn client(
    dial: &Dial,
    guard: &Arc<Guard>,
    place: &Endpoint,
    ca: Option<&Path>,
) -> Result<Client, String> {
    client_of(dial, guard, place, ca, |builder| builder)
}

/// The same, with connection reuse.
pub fn client_of(
    dial: &Dial,
    guard: &Arc<Guard>,
    place: &Endpoint,
    ca: Option<&Path>,
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<Client, String> {
    let parent = place.parent(dial);
    let builder = builder(dial, guard, place, ca, parent.as_ref())?;
    let http = change(builder).build().map_err(|error| error.to_string())?;
    Ok(Client { http, dial: dial.clone(), place: place.clone(), parent })
}

fn builder(
    dial: &Dial,
    guard: &Arc<Guard>,
    place: &Endpoint,
    ca: Option<&Path>,
    parent: Option<&Arc<Parent>>,
) -> Result<reqwest::ClientBuilder, String> {
    if let (Ok(ip), false) = (place.host.parse::<IpAddr>(), place.inside) {
        // A literal address is not resolved.
        let target = SocketAddr::new(ip, place.port).to_string();
        let target = Target::of_connect(target.as_bytes()).map_err(|_| "it is no address")?;
        let vetted = guard.vet(&target, &[ip], &dial.own_addresses(), clock::now());
        vetted.map_err(|denial| denial.to_string())?;
    }
    let bound = Bound {
        dial: dial.clone(),
        guard: Arc::clone(guard),
        place: place.clone(),
        parent: parent.cloned(),
    };
    let tls = match parent.filter(|parent| parent.url.tls) {
        Some(parent) => with_parent(parent, ca)?,
        None => tls(ca)?,
    };
    // A request may override it.
    let accept = (header::ACCEPT, HeaderValue::from_static("application/json"));
    let builder = reqwest::Client::builder()
        .default_headers(HeaderMap::from_iter([accept]))
        .use_preconfigured_tls(tls)
        .dns_resolver(Arc::new(bound))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("stagedoor/", env!("CARGO_PKG_VERSION")));
    let Some(parent) = parent else { return Ok(builder) };
    let mut proxy =
        reqwest::Proxy::all(parent.url.to_string()).map_err(|error| error.to_string())?;
    if let Some(authorization) = parent.authorization() {
        proxy = proxy.custom_http_auth(authorization);
    }
    Ok(builder.proxy(proxy))
}

/// A TLS config that trusts these CAs (or the system's).
pub fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    Ok(believing(ca)?.with_no_client_auth())
}

/// The same, for clients that may present a certificate.
pub fn believing(
    ca: Option<&Path>,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, WantsClientCert>, String> {
    let roots = roots(ca)?;
    let builder = rustls::ClientConfig::builder_with_provider(certs::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots))
}

/// These CAs, or the system's.
pub fn roots(ca: Option<&Path>) -> Result<rustls::RootCertStore, String> {
    match ca {
        Some(file) => certs::roots(file).map_err(|error| error.to_string()),
        None => Ok(system_roots()),
    }
}

fn system_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

impl Client {
    /// Sends a request to `url`.
    pub async fn send(
        &self,
        request: reqwest::RequestBuilder,
        url: &str,
    ) -> Result<reqwest::Response, String> {
        match request.send().await {
            Ok(answer) if answer.status() == 407 && self.parent.is_some() => {
                Err(format!("cannot get `{url}`: {}", self.refused(407)))
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(format!("cannot get `{url}`: {}", self.cause(&error).await)),
        }
    }

    /// The cause of an error. The library hides why a proxy refused, so connect once more to find out.
    pub async fn cause(&self, error: &reqwest::Error) -> String {
        let Some(parent) = self.parent.as_ref().filter(|_| error.is_connect()) else {
            return root(error);
        };
        let place = (&*self.place.host, self.place.port);
        if !self.place.tls {
            return format!("the parent proxy `{}`: {}", parent.name, root(error));
        }
        match parent.tunnel(&self.dial, place, PATIENCE).await {
            Err(fault) => fault.to_string(),
            Ok(_) => format!("through the parent proxy `{}`: {}", parent.name, root(error)),
        }
    }

    /// Whether it goes through a parent proxy.
    pub fn is_behind_parent(&self) -> bool {
        self.parent.is_some()
    }

    /// The sentence about a status that the parent proxy itself responded with.
    pub fn refused(&self, status: u16) -> String {
        let name = self.parent.as_ref().map_or("?", |parent| parent.name.as_str());
        format!("the parent proxy `{name}` responded with {status}")
    }
}

/// The root cause of an error.
pub fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// The body of a response from `url`, up to a limit.
pub async fn body(answer: reqwest::Response, url: &str) -> Result<Vec<u8>, String> {
    body_up_to(answer, url, BYTES_MAX).await
}

/// The same, up to another limit.
pub async fn body_up_to(
    mut answer: reqwest::Response,
    url: &str,
    bytes_max: usize,
) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) =
        answer.chunk().await.map_err(|_| format!("the response of `{url}` was cut off"))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > bytes_max {
            return Err(format!("the response of `{url}` is larger than {bytes_max} bytes"));
        }
    }
    Ok(body)
}
