//! One call of a client: a request to a route, or a call out through a forward listener.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use certs::dev::Authority;
use http::Method;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::{aims::Shown, http::MARK, tokens::Mint};
use crate::dial::Dial;

/// What is asked for, how, and by whom.
#[derive(Clone)]
pub(super) enum Call {
    /// A request to a route.
    Request {
        method: Method,
        url: String,
        action: bool,
        /// Whether no two may be the same, because the answer to one is given to others.
        unlike: bool,
        /// The header that chooses the workspace.
        header: Option<(String, String)>,
        shown: Shown,
    },
    /// A call to a host through a forward listener.
    Out {
        proxy: SocketAddr,
        proxy_tls: bool,
        host: String,
        port: u16,
        /// CONNECT and TLS within; else the absolute form.
        tunnel: bool,
        shown: Shown,
    },
}

/// What a caller saw.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Saw {
    /// A good answer of a stand-in.
    Good,
    /// Another answer: of the proxy, with its code, or of a stand-in.
    Answer { status: u16, code: Option<String> },
    /// None.
    Broken(String),
}

impl Saw {
    pub(super) fn label(&self) -> String {
        match self {
            Self::Good => "200".to_owned(),
            Self::Answer { status, code: Some(code) } => format!("{status} {code}"),
            Self::Answer { status, code: None } => format!("{status} of the upstream"),
            Self::Broken(why) => why.clone(),
        }
    }
}

/// Calls that the proxy answered, which must all be on record.
#[derive(Default)]
pub(super) struct Answered {
    /// What the records of requests are called.
    pub(super) ids: Vec<String>,
    /// Calls out, whose records have names that clients are not told.
    pub(super) out: usize,
}

/// Makes calls.
pub(super) struct Client {
    http: reqwest::Client,
    tls: TlsConnector,
    mint: Arc<Mint>,
    dial: Dial,
    count: AtomicU64,
    answered: Mutex<Answered>,
}

/// Longer than a proxy with default timeouts lets anything take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Every name is here.
struct Here;

impl reqwest::dns::Resolve for Here {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let here: reqwest::dns::Addrs =
            Box::new(std::iter::once(SocketAddr::from(([127, 0, 0, 1], 0))));
        Box::pin(std::future::ready(Ok(here)))
    }
}

impl Client {
    /// Believes `authority`, and shows a certificate of it with this name where one is asked for.
    /// With `anew` every request has a connection of its own.
    pub(super) fn new(
        authority: &Authority,
        certificate: &str,
        mint: Arc<Mint>,
        anew: bool,
    ) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("cannot make a client: {error}");
        let uris: &[&str] = if certificate.contains("://") { &[certificate] } else { &[] };
        let own = authority.client(certificate, uris).map_err(|error| told(&error))?;
        let mut roots = rustls::RootCertStore::empty();
        let pem = authority.pem();
        for ca in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
            roots.add(ca).map_err(|error| told(&error))?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(own.cert.as_bytes()).flatten().collect();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes());
        let key = key.map_err(|error| told(&error))?;
        let builder = ClientConfig::builder_with_provider(certs::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| told(&error))?
            .with_root_certificates(roots);
        let tls = builder.with_client_auth_cert(chain, key).map_err(|error| told(&error))?;
        let mut http = reqwest::Client::builder()
            .use_preconfigured_tls(tls.clone())
            .dns_resolver(Arc::new(Here))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE);
        if anew {
            // What is resumed shows no certificate.
            let mut tls = tls.clone();
            tls.resumption = rustls::client::Resumption::disabled();
            http = http.use_preconfigured_tls(tls);
            http = http.pool_max_idle_per_host(0).http1_only();
        }
        Ok(Self {
            http: http.build().map_err(|error| told(&error))?,
            tls: TlsConnector::from(Arc::new(tls)),
            mint,
            dial: Dial::default(),
            count: AtomicU64::new(0),
            answered: Mutex::default(),
        })
    }

    /// Makes a call.
    pub(super) async fn make(&self, call: &Call) -> Saw {
        let (saw, id) = match call {
            Call::Request { .. } => {
                let id = format!("drill-{}", self.count.fetch_add(1, Ordering::Relaxed));
                let saw = self.request(call, &id).await;
                (saw.unwrap_or_else(|error| Saw::Broken(of_http(&error))), Some(id))
            }
            Call::Out { .. } => {
                let saw = tokio::time::timeout(PATIENCE, self.out(call)).await;
                let saw = saw.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                (saw.unwrap_or_else(|error| Saw::Broken(of_io(&error))), None)
            }
        };
        if !matches!(saw, Saw::Broken(_)) {
            let mut answered = self.answered.lock();
            answered.out += usize::from(id.is_none());
            answered.ids.extend(id);
        }
        saw
    }

    /// The calls that were answered.
    pub(super) fn answered(&self) -> Answered {
        std::mem::take(&mut *self.answered.lock())
    }

    async fn request(&self, call: &Call, id: &str) -> reqwest::Result<Saw> {
        let Call::Request { method, url, action, unlike, header, shown } = call else {
            unreachable!("it was asked which it is")
        };
        let mut request = self.http.request(method.clone(), url).header("x-request-id", id);
        if *unlike {
            request = request.query(&[("drill", id)]);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Some(authorization) = self.authorization(shown) {
            request = request.header("authorization", authorization);
        }
        if *action {
            request = request.header("idempotency-key", id).json(&serde_json::json!({}));
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        answer.bytes().await?;
        let proxy_status = headers.get("proxy-status").and_then(|value| value.to_str().ok());
        Ok(seen(status, proxy_status, headers.contains_key(MARK)))
    }

    fn authorization(&self, shown: &Shown) -> Option<String> {
        match shown {
            Shown::Nothing => None,
            Shown::Token { issuer, person } => {
                Some(format!("Bearer {}", self.mint.token(issuer, person)))
            }
            Shown::Password(name, password) => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}"))))
            }
        }
    }

    async fn out(&self, call: &Call) -> io::Result<Saw> {
        let Call::Out { proxy, proxy_tls, host, port, tunnel, shown } = call else {
            unreachable!("it was asked which it is")
        };
        let (stream, _) = self.dial.connect(&[*proxy], PATIENCE).await?;
        if *proxy_tls {
            let stream = self.secured(stream, "localhost").await?;
            return self.called(stream, host, *port, *tunnel, shown).await;
        }
        self.called(stream, host, *port, *tunnel, shown).await
    }

    async fn called<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        mut proxy: S,
        host: &str,
        port: u16,
        tunnel: bool,
        shown: &Shown,
    ) -> io::Result<Saw> {
        let authorization = self.authorization(shown);
        let authorization = authorization
            .map_or_else(String::new, |value| format!("proxy-authorization: {value}\r\n"));
        let at = format!("{host}:{port}");
        if !tunnel {
            let head = format!(
                "GET http://{at}/drill HTTP/1.1\r\nhost: {at}\r\n{authorization}connection: close\r\n\r\n"
            );
            return answer(&mut proxy, &head).await.map(|(saw, _)| saw);
        }
        let head = format!("CONNECT {at} HTTP/1.1\r\nhost: {at}\r\n{authorization}\r\n");
        let (saw, status) = answer(&mut proxy, &head).await?;
        if status != 200 {
            return Ok(saw);
        }
        let mut called = self.secured(proxy, host).await?;
        let head = format!("GET /drill HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let (saw, _) = answer(&mut called, &head).await?;
        let _ = called.shutdown().await;
        Ok(saw)
    }

    async fn secured<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &str,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        self.tls.connect(name, stream).await
    }
}

/// Sends a head and reads the answer with its body.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut S,
    head: &str,
) -> io::Result<(Saw, u16)> {
    wire.write_all(head.as_bytes()).await?;
    wire.flush().await?;
    let mut got = Vec::new();
    let end = loop {
        if let Some(end) = memchr::memmem::find(&got, b"\r\n\r\n") {
            break end;
        }
        if wire.read_buf(&mut got).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let header =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length = header("content-length").and_then(|text| text.parse::<usize>().ok());
    while got.len() < end + 4 + length.unwrap_or(0) {
        if wire.read_buf(&mut got).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    // A tunnel's refusal has its code in the reason phrase.
    let reason = text.lines().next().and_then(|line| line.splitn(3, ' ').nth(2));
    let code = header("proxy-status").map(str::to_owned).or_else(|| {
        let reason = reason.filter(|reason| reason.contains('_'))?;
        Some(format!("stagedoor; error=\"{reason}\""))
    });
    Ok((seen(status, code.as_deref(), header(MARK).is_some()), status))
}

fn seen(status: u16, proxy_status: Option<&str>, marked: bool) -> Saw {
    let code = proxy_status.and_then(|text| text.split('"').nth(1)).map(str::to_owned);
    match (marked, status, &code) {
        (true, 200..=299, _) => Saw::Good,
        (true, ..) => Saw::Answer { status, code: None },
        (false, ..) => Saw::Answer { status, code: Some(code.unwrap_or_default()) },
    }
}

fn of_http(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return of_io(error);
        }
    }
    if error.is_timeout() { "no answer".to_owned() } else { "connection broken".to_owned() }
}

/// In few words, as they are counted.
fn of_io(error: &io::Error) -> String {
    let inner = error.get_ref();
    // Libraries put one into another.
    if let Some(inner) = inner.and_then(|inner| inner.downcast_ref::<io::Error>()) {
        return of_io(inner);
    }
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::InvalidCertificate(_)), _) => "certificate not believed",
        (Some(_), _) => "TLS broken",
        (_, io::ErrorKind::ConnectionRefused) => "connection refused",
        (_, io::ErrorKind::TimedOut) => "no answer",
        _ => "connection broken",
    }
    .to_owned()
}
