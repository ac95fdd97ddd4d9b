//! Health checks of upstream addresses: ends ejections that are over, and reports each change.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use filters::{Policy, State, health::Address};
use http::{HeaderValue, StatusCode, Uri, Version, header};
use pingora::{
    connectors::http::Connector, http::RequestHeader, protocols::http::client::HttpSession,
};
use tokio::{task::JoinSet, time::timeout};

use super::{Upstream, Upstreams, breaker_probe::Probing};
use crate::{
    clock,
    net::dial::Dial,
    observability::{audit::Audit, changes::address_changed, metrics::Metrics},
};

/// How often due checks are looked for.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("stagedoor/", env!("CARGO_PKG_VERSION"), " health_check"));

/// A check that is over.
struct Checked {
    upstream: Arc<Upstream>,
    address: Arc<Address>,
    /// Or why not.
    went: Result<(), String>,
}

/// Watches the addresses of upstreams.
#[derive(Clone)]
pub struct Watch {
    /// What has happened to them, and to their breakers.
    pub state: Arc<State>,
    /// Resolves their names.
    pub dial: Dial,
    /// The audit log for changes.
    pub audit: Arc<Audit>,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

impl Watch {
    /// Runs until the process ends, for the upstreams that `in_force` returns. At most one check of each
    /// address is in progress.
    pub async fn run(&self, in_force: impl Fn() -> (Arc<Upstreams>, Arc<Policy>)) {
        // It reads the system's CAs: only where there is something to check.
        let connector: OnceLock<Arc<Connector>> = OnceLock::new();
        let (mut checks, mut probing) = (JoinSet::new(), Probing::default());
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            while let Some(Ok(checked)) = checks.try_join_next() {
                self.checked(&checked);
            }
            let (upstreams, policy) = in_force();
            probing.tick(self, &upstreams, &policy, &connector);
            for (name, upstream) in upstreams.iter() {
                let (rules, now) = (upstream.written.health_check.as_ref(), clock::now());
                for change in upstream.pool.expire(rules, now) {
                    address_changed(&self.audit, &self.metrics, name, &change);
                }
                let Some(rules) = rules else { continue };
                let connector = connector.get_or_init(|| Arc::new(Connector::new(None)));
                for address in upstream.pool.due(rules, now.elapsed, fastrand::f64) {
                    checks.spawn(check(Arc::clone(connector), Arc::clone(upstream), address));
                }
            }
        }
    }

    fn checked(&self, checked: &Checked) {
        let Checked { upstream, address, went } = checked;
        // A reload may have happened in between.
        let Some(rules) = &upstream.written.health_check else { return };
        if let Err(cause) = went {
            tracing::debug!(upstream = %upstream.name, address = %address.at, cause, "health check failed");
            self.metrics.health_check_failed(&upstream.name);
        }
        let went = went.as_ref().copied().map_err(|_| ());
        if let Some(change) = upstream.pool.checked(address, went, rules, clock::now()) {
            address_changed(&self.audit, &self.metrics, &upstream.name, &change);
        }
    }
}

async fn check(
    connector: Arc<Connector>,
    upstream: Arc<Upstream>,
    address: Arc<Address>,
) -> Checked {
    let went = match &upstream.written.health_check {
        Some(rules) => {
            match timeout(*rules.timeout, ask(&connector, &upstream, address.at)).await {
                Ok(Ok(status)) if rules.status.contains(status.as_u16()) => Ok(()),
                Ok(Ok(status)) => Err(format!("it responded with {status}")),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no response in time".to_owned()),
            }
        }
        None => Ok(()),
    };
    Checked { upstream, address, went }
}

/// Sends a check to an address, on a connection that is closed after the response head.
pub async fn ask(
    connector: &Connector,
    upstream: &Upstream,
    at: SocketAddr,
) -> pingora::Result<StatusCode> {
    let rules = upstream.written.health_check.as_ref().expect("it is asked for its checks");
    let peer = upstream.peer_to_check(at, *rules.timeout);
    let (mut session, _) = connector.get_http_session(&peer).await?;
    let is_h2 = matches!(session, HttpSession::H2(_));
    session.write_request_header(Box::new(request(upstream, &rules.path, is_h2)?)).await?;
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let status = session.response_header().map_or(StatusCode::BAD_GATEWAY, |head| head.status);
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(status);
        }
    }
}

/// Whether an address accepts a connection, with TLS if configured. No request is sent.
pub async fn takes_connections(
    connector: &Connector,
    upstream: &Upstream,
    at: SocketAddr,
    within: Duration,
) -> bool {
    connects(connector, upstream, at, within).await.is_ok()
}

/// The same, and why not.
pub async fn connects(
    connector: &Connector,
    upstream: &Upstream,
    at: SocketAddr,
    within: Duration,
) -> Result<(), String> {
    let peer = upstream.peer_to_check(at, within);
    match timeout(within, connector.get_http_session(&peer)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no connection in time".to_owned()),
    }
}

/// The request of a check. It has no caller, so it has no identity headers.
fn request(upstream: &Upstream, path: &str, is_h2: bool) -> pingora::Result<RequestHeader> {
    let url = &upstream.written.url;
    let path = format!("{}{path}", url.path);
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(4))?;
    if is_h2 {
        let scheme = if url.tls { "https" } else { "http" };
        let whole = Uri::builder().scheme(scheme).authority(url.authority()).path_and_query(path);
        request.set_uri(whole.build().expect("a config's URL and path are one"));
        request.set_version(Version::HTTP_2);
    } else {
        request.insert_header(header::HOST, upstream.host.clone())?;
        request.insert_header(header::CONNECTION, "close")?;
    }
    if let Some(parent) = upstream.parent.as_ref().filter(|_| !url.tls) {
        // A proxy gets the whole URL.
        let whole = format!("http://{}{}", url.authority(), request.uri.path());
        request.set_raw_path(whole.as_bytes())?;
        if let Some(login) = parent.authorization() {
            request.insert_header(header::PROXY_AUTHORIZATION, login)?;
        }
    }
    request.insert_header(header::ACCEPT, "*/*")?;
    request.insert_header(header::USER_AGENT, USER_AGENT)?;
    Ok(request)
}
