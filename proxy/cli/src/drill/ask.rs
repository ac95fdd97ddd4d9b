//! One call of a client: a request to a route, or a call out through a forward listener.

mod out;

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
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsConnector;

use super::{aims::Credential, http::MARK, tokens::Mint};
use proxy::net::dial::Dial;

/// A request or an outbound call, with its caller.
#[derive(Clone)]
pub(super) enum Call {
    /// A request to a route.
    Request {
        method: Method,
        url: String,
        action: bool,
        /// Whether each must be unique, because identical requests are coalesced.
        unlike: bool,
        /// The header that chooses the workspace.
        header: Option<(String, String)>,
        credential: Credential,
    },
    /// A call to a host through a forward listener.
    Out {
        proxy: SocketAddr,
        proxy_tls: bool,
        host: String,
        port: u16,
        /// CONNECT and TLS within; else the absolute form.
        tunnel: bool,
        credential: Credential,
    },
}

/// What a caller saw.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Saw {
    /// A good response of a stand-in.
    Good,
    /// Another response: of the proxy, with its code, or of a stand-in.
    Answer { status: u16, code: Option<String> },
    /// No response.
    Broken(String),
}

impl Saw {
    pub(super) fn label(&self) -> String {
        match self {
            Self::Good => "200".to_owned(),
            Self::Answer { status, code: Some(code) } => format!("{status} {code}"),
            Self::Answer { status, code: None } => format!("{status} from the upstream"),
            Self::Broken(why) => why.clone(),
        }
    }
}

/// Calls that the proxy responded to, which must all be recorded.
#[derive(Default)]
pub(super) struct Answered {
    /// What the records of requests are called.
    pub(super) ids: Vec<String>,
    /// Outbound calls, whose records have ids that clients do not see.
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

/// Longer than any timeout of a proxy with defaults.
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
    /// Trusts `authority`, and presents a certificate of it with this name where one is requested. With
    /// `anew` every request has its own connection.
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
            // A resumed session presents no certificate.
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
        self.told(call).await.0
    }

    /// Makes a call, and also returns the response headers, where they are visible.
    pub(super) async fn told(&self, call: &Call) -> (Saw, HeaderMap) {
        let (saw, id, headers) = match call {
            Call::Request { .. } => {
                let id = format!("drill-{}", self.count.fetch_add(1, Ordering::Relaxed));
                let told = self.request(call, &id).await;
                let (saw, headers) =
                    told.unwrap_or_else(|error| (Saw::Broken(of_http(&error)), HeaderMap::new()));
                (saw, Some(id), headers)
            }
            Call::Out { .. } => {
                let saw = tokio::time::timeout(PATIENCE, self.out(call)).await;
                let saw = saw.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                let saw = saw.unwrap_or_else(|error| Saw::Broken(of_io(&error)));
                (saw, None, HeaderMap::new())
            }
        };
        if !matches!(saw, Saw::Broken(_)) {
            let mut answered = self.answered.lock();
            answered.out += usize::from(id.is_none());
            answered.ids.extend(id);
        }
        (saw, headers)
    }

    /// The calls that got a response.
    pub(super) fn answered(&self) -> Answered {
        std::mem::take(&mut *self.answered.lock())
    }

    async fn request(&self, call: &Call, id: &str) -> reqwest::Result<(Saw, HeaderMap)> {
        let Call::Request { method, url, action, unlike, header, credential } = call else {
            unreachable!("it was asked which it is")
        };
        let mut request = self.http.request(method.clone(), url).header("x-request-id", id);
        if *unlike {
            request = request.query(&[("drill", id)]);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Some(authorization) = self.authorization(credential) {
            request = request.header("authorization", authorization);
        }
        if *action {
            request = request.header("idempotency-key", id).json(&serde_json::json!({}));
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        answer.bytes().await?;
        let proxy_status = headers.get("proxy-status").and_then(|value| value.to_str().ok());
        let saw = seen(status, proxy_status, headers.contains_key(MARK));
        Ok((saw, headers))
    }

    fn authorization(&self, credential: &Credential) -> Option<String> {
        match credential {
            Credential::Nothing => None,
            Credential::Token { issuer, person } => {
                Some(format!("Bearer {}", self.mint.token(issuer, person)))
            }
            Credential::Password(name, password) => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}"))))
            }
        }
    }
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
    if error.is_timeout() { "no response".to_owned() } else { "connection broken".to_owned() }
}

/// In few words, as they are counted.
fn of_io(error: &io::Error) -> String {
    let inner = error.get_ref();
    // Libraries nest errors.
    if let Some(inner) = inner.and_then(|inner| inner.downcast_ref::<io::Error>()) {
        return of_io(inner);
    }
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::InvalidCertificate(_)), _) => "certificate not trusted",
        (Some(_), _) => "TLS broken",
        (_, io::ErrorKind::ConnectionRefused) => "connection refused",
        (_, io::ErrorKind::TimedOut) => "no response",
        _ => "connection broken",
    }
    .to_owned()
}
