//! The parent proxy: the proxy between us and the internet, if there is one. Which requests go through it,
//! and how to connect through it.

mod connection;
mod environment;
mod trust;
mod tunnelling;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use certs::LoadError;
use config::{HostPorts, HostRule, NoProxy, Url};
use filters::{Denial, Label, Secret};
use http::HeaderValue;
use pingora::{
    upstreams::peer::HttpPeer,
    utils::tls::{WrappedX509, parse_x509},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

pub(crate) use self::{connection::Connection, trust::with_parent, tunnelling::Tunnelling};
use crate::net::{dial::Dial, fetch};

/// Who goes through which proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parents {
    /// For tunnels and `https`.
    secure: Option<Arc<Parent>>,
    /// For requests without TLS.
    plain: Option<Arc<Parent>>,
    no_proxy: Vec<NoProxy>,
    /// Hosts of our own network, by the config.
    private: Vec<HostPorts>,
    /// Ignored environment variables.
    pub(crate) aside: Vec<String>,
}

/// A proxy, and who we are to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// Where it is.
    pub url: Url,
    /// How it is called, in records and messages.
    pub name: Label,
    /// Where it is configured.
    from: &'static str,
    /// `Basic` and name and password.
    authorization: Option<Secret>,
    /// The CAs for its certificate, instead of the system's.
    pub(crate) ca: Option<PathBuf>,
}

/// Why there is no connection through a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no connection to it.
    #[error("the parent proxy `{0}` cannot be reached: {1}")]
    Unreachable(Label, String),
    /// It does not respond, or not completely.
    #[error("the parent proxy `{0}` did not respond in time")]
    Late(Label),
    /// It refused.
    #[error("the parent proxy `{0}` responded with {1}")]
    Refused(Label, u16),
    /// Its response is not a proxy's.
    #[error("the parent proxy `{0}` does not respond like a proxy")]
    Malformed(Label),
}

/// The largest response head to a CONNECT.
const HEAD_MAX: usize = 16 << 10;

impl Fault {
    /// The denial for it.
    pub(crate) fn denial(self) -> Denial {
        match self {
            Self::Unreachable(parent, _) => Denial::ParentUnreachable { parent },
            Self::Late(parent) => Denial::ParentTimeout { parent },
            Self::Refused(parent, status) => Denial::ParentRefused { parent, status },
            Self::Malformed(parent) => Denial::ParentMalformed { parent },
        }
    }

    /// Whether the fault is the target's: the proxy reports that it cannot reach it.
    pub(crate) fn is_of_target(&self) -> bool {
        matches!(self, Self::Refused(_, 502..=504))
    }
}

impl Parents {
    /// From the config, or else the environment.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn of(config: &config::Config) -> Result<Self, String> {
        let egress = &config.egress;
        let private = egress.private.iter().map(|private| private.host.value.clone()).collect();
        let Some(written) = &egress.parent else {
            if !egress.parent_from_environment {
                return Ok(Self::default());
            }
            let found = environment::parents(config, &|name| std::env::var(name).ok());
            return Ok(Self { private, ..found });
        };
        let authorization = match (&written.username, &written.password_file) {
            (Some(name), Some(file)) => {
                let password = password(file).map_err(|error| error.to_string())?;
                Some(basic(name, password.expose()))
            }
            _ => None,
        };
        if let Some(ca) = &written.ca {
            certs::roots(ca).map_err(|error| error.to_string())?;
        }
        let ca = written.ca.as_ref().map(|ca| ca.value.clone());
        let parent = Parent::new(written.url.value.clone(), "egress.parent", authorization, ca);
        let parent = Some(Arc::new(parent));
        let no_proxy = written.no_proxy.clone();
        Ok(Self { secure: parent.clone(), plain: parent, no_proxy, private, aside: Vec::new() })
    }

    /// Whether there are none.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.secure.is_none() && self.plain.is_none()
    }

    /// The proxy that a host is reached through, in a tunnel or in the clear.
    pub fn on_the_way_to(&self, host: &str, port: u16, secure: bool) -> Option<&Arc<Parent>> {
        let parent = if secure { &self.secure } else { &self.plain }.as_ref()?;
        let bare = host.trim_matches(['[', ']']);
        let ip = bare.parse::<std::net::IpAddr>().ok();
        let here = bare == "localhost" || ip.is_some_and(|ip| ip.to_canonical().is_loopback());
        let called = HostRule { host: bare.to_owned(), subdomains: false, port };
        let private = |own: &HostPorts| {
            own.shares_host_with(&called) && (own.every_port || own.rule.port == port)
        };
        let direct = here
            || self.no_proxy.iter().any(|entry| entry.covers(bare, port))
            || self.private.iter().any(private);
        (!direct).then_some(parent)
    }

    /// Logs which proxies are in use, without their credentials.
    pub(crate) fn tell(&self) {
        for why in &self.aside {
            tracing::warn!("environment: {why}");
        }
        let no_proxy: Vec<String> = self.no_proxy.iter().map(ToString::to_string).collect();
        let no_proxy = no_proxy.join(",");
        let mut last = None;
        for parent in [&self.secure, &self.plain].into_iter().flatten() {
            if last.is_some_and(|last| last == parent) {
                continue;
            }
            last = Some(parent);
            tracing::info!(parent = %parent.url, from = parent.from, no_proxy, "outbound traffic goes through a parent proxy");
        }
    }
}

impl Parent {
    fn new(
        url: Url,
        from: &'static str,
        authorization: Option<Secret>,
        ca: Option<PathBuf>,
    ) -> Self {
        let name = Label::lossy(&url.authority());
        Self { url, name, from, authorization, ca }
    }

    /// The credential for it, which goes nowhere else.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.authorization.as_ref()?.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The denial in place of one about the target, for a request without TLS: the connection was only to
    /// this proxy.
    pub(crate) fn instead_of(&self, denial: Denial) -> Denial {
        let parent = self.name.clone();
        match denial {
            Denial::UpstreamUnreachable { .. } | Denial::UpstreamTls { .. } => {
                Denial::ParentUnreachable { parent }
            }
            Denial::ConnectTimeout { .. } => Denial::ParentTimeout { parent },
            Denial::UpstreamMalformed { .. } => Denial::ParentMalformed { parent },
            denial => denial,
        }
    }

    /// A peer for one of its addresses, for requests without TLS.
    ///
    /// # Errors
    /// Its CAs cannot be read.
    pub(crate) fn peer(&self, at: SocketAddr) -> pingora::Result<HttpPeer> {
        let mut peer = self.template().map_err(|error| {
            pingora::Error::because(pingora::ErrorType::InvalidCert, "parent proxy", error)
        })?;
        peer._address = at.into();
        peer.options.set_http_version(1, 1);
        Ok(peer)
    }

    /// It, anywhere.
    ///
    /// # Errors
    /// Its CAs cannot be read.
    pub(crate) fn template(&self) -> Result<HttpPeer, LoadError> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut peer = HttpPeer::new(nowhere, self.url.tls, self.url.host.clone());
        if let Some(file) = &self.ca {
            let cas = certs::ca_certificates(file)?;
            let cas: Vec<WrappedX509> =
                cas.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect();
            peer.options.ca = Some(cas.into());
        }
        Ok(peer)
    }

    /// Its addresses. It is configured, so they are not judged.
    pub(crate) async fn addresses(&self, dial: &Dial) -> Result<Vec<SocketAddr>, Fault> {
        let found = dial.addresses(&self.url.host, self.url.port).await;
        found.map_err(|error| Fault::Unreachable(self.name.clone(), error.to_string()))
    }

    /// Opens a tunnel to a host.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) async fn tunnel(
        &self,
        dial: &Dial,
        (host, port): (&str, u16),
        patience: Duration,
    ) -> Result<(Connection, SocketAddr), Fault> {
        let late = |_| Fault::Late(self.name.clone());
        let tunnel = async {
            let found = self.addresses(dial).await?;
            let (tcp, at) = self.reach(dial, &found, patience).await?;
            Ok((self.ask(tcp, host, port).await?, at))
        };
        timeout(patience, tunnel).await.map_err(late)?
    }

    /// Opens a tunnel through one of its addresses.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) async fn tunnel_by(
        &self,
        dial: &Dial,
        at: SocketAddr,
        (host, port): (&str, u16),
        patience: Duration,
    ) -> Result<Connection, Fault> {
        let late = |_| Fault::Late(self.name.clone());
        let tunnel = async {
            let (tcp, _) = self.reach(dial, &[at], patience).await?;
            self.ask(tcp, host, port).await
        };
        timeout(patience, tunnel).await.map_err(late)?
    }

    async fn reach(
        &self,
        dial: &Dial,
        found: &[SocketAddr],
        patience: Duration,
    ) -> Result<(TcpStream, SocketAddr), Fault> {
        let reached = dial.connect(found, patience).await;
        reached.map_err(|error| Fault::Unreachable(self.name.clone(), error.to_string()))
    }

    /// Requests the tunnel (RFC 9110 9.3.6).
    async fn ask(&self, tcp: TcpStream, host: &str, port: u16) -> Result<Connection, Fault> {
        let unreachable = |error: &dyn std::fmt::Display| {
            Fault::Unreachable(self.name.clone(), error.to_string())
        };
        let mut connection = if self.url.tls {
            let tls = fetch::tls(self.ca.as_deref()).map_err(|error| unreachable(&error))?;
            let name = ServerName::try_from(self.url.host.clone());
            let name = name.map_err(|error| unreachable(&error))?;
            let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await;
            Connection::within_tls(tls.map_err(|error| unreachable(&error))?)
        } else {
            Connection::from(tcp)
        };
        let bare = host.trim_matches(['[', ']']);
        let place =
            if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") };
        let mut head = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(authorization) = &self.authorization {
            head.push_str("Proxy-Authorization: ");
            head.push_str(authorization.expose());
            head.push_str("\r\n");
        }
        head.push_str("User-Agent: stagedoor\r\n\r\n");
        let wrote = async {
            connection.write_all(head.as_bytes()).await?;
            connection.flush().await
        };
        wrote.await.map_err(|error| unreachable(&error))?;
        self.answered(connection).await
    }

    /// Reads the response head, and not a byte of the tunnel.
    async fn answered(&self, mut connection: Connection) -> Result<Connection, Fault> {
        let malformed = || Fault::Malformed(self.name.clone());
        let mut came = BytesMut::with_capacity(1024);
        loop {
            if let Some(end) = memchr::memmem::find(&came, b"\r\n\r\n") {
                let head = came.split_to(end + 4);
                match status(&head).ok_or_else(malformed)? {
                    // Interim responses (RFC 9110 15.2) are skipped.
                    100 | 102..=199 => continue,
                    200..=299 => {
                        connection.unread(came);
                        return Ok(connection);
                    }
                    status => return Err(Fault::Refused(self.name.clone(), status)),
                }
            }
            let begins = came.len().min(5);
            if came.len() > HEAD_MAX || came[..begins] != b"HTTP/"[..begins] {
                return Err(malformed());
            }
            let read = connection.read_buf(&mut came).await;
            let read = read.map_err(|e| Fault::Unreachable(self.name.clone(), e.to_string()))?;
            if read == 0 {
                let cause = "it closed the connection".to_owned();
                return Err(Fault::Unreachable(self.name.clone(), cause));
            }
        }
    }
}

/// The status of a head, if it is HTTP/1.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|b| *b == b'\r').next()?;
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let ends = rest.first().is_none_or(|b| *b == b' ');
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (ends && digits.iter().all(u8::is_ascii_digit) && status >= 100).then_some(status)
}

fn basic(name: &str, password: &str) -> Secret {
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}"))))
}

/// A password that someone else chose: any text.
pub fn password(file: &std::path::Path) -> Result<Secret, LoadError> {
    let wrong = |cause: &str| LoadError { file: file.to_owned(), cause: cause.to_owned() };
    let text = String::from_utf8(certs::bytes(file)?).map_err(|_| wrong("it is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.len() > 4096 || text.contains(char::is_control) {
        return Err(wrong("a password must be one line of text"));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests;
