//! The admin listener: health, metrics, state, reload and switches. For operators, on loopback.

mod bounded;
mod breakers;
mod metrics_page;
mod quota_status;
mod switch_request;
mod switches;

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use base64::Engine;
use filters::{
    audit::{checkpoint::PublicKey, event::Event},
    breaker::{Facts, Key, Position},
};
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::{apps::http_app::ServeHttp, http::RequestHeader, protocols::http::ServerSession};
use serde_json::{Value, json};

use crate::{
    clock,
    data_plane::gateway::Live,
    lifecycle::{process::Process, reload::Source},
    observability::audit::Head,
};

pub use self::bounded::Bounded;

/// Answers operators.
pub struct Admin {
    /// What it tells of.
    pub process: Arc<Process>,
    /// How much of it.
    pub answers: Answers,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// All there is.
    Everything,
    /// What everybody may know.
    Status,
}

/// What everybody may know, and what is asked too often to be put on record.
const STATUS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let process = &self.process;
        if self.answers == Answers::Status && !STATUS.contains(&&*path) {
            return text(StatusCode::NOT_FOUND, "there is /livez /readyz /metrics\n");
        }
        let answer = if switches::is_one(&path) {
            switches::answer(process, session, &method, &path).await
        } else {
            Self::answer(process, session.req_header(), &method, &path).await
        };
        if !STATUS.contains(&&*path) {
            let client = session.client_addr().and_then(|a| a.as_inet()).map(|a| a.ip());
            let status = answer.status().as_u16();
            let event = Event::Admin { client, method: method.as_str(), path: &path, status };
            process.gateway.audit.happened(&event);
        }
        answer
    }
}

impl Admin {
    async fn answer(
        process: &Arc<Process>,
        head: &RequestHeader,
        method: &Method,
        path: &str,
    ) -> Response<Vec<u8>> {
        let read = *method == Method::GET || *method == Method::HEAD;
        match path {
            "/livez" if read => text(StatusCode::OK, "ok\n"),
            "/readyz" if read => ready(process),
            "/metrics" if read => metrics(process),
            "/config" if read => json(StatusCode::OK, &config(process)),
            "/state" if read => json(StatusCode::OK, &state(process)),
            "/standing" if read => {
                quota_status::answer(process, head.uri.query().unwrap_or_default())
            }
            "/jwks" if read => jwks(process),
            "/config/history" if read => json(StatusCode::OK, &json!(process.history.all())),
            "/audit/head" if read => audit_head(process).await,
            "/reload" if *method == Method::POST => {
                if let Some(refused) = from_page(head) {
                    return refused;
                }
                let result = process.reload(Source::Admin).await;
                let status = if result.successful {
                    StatusCode::OK
                } else {
                    StatusCode::UNPROCESSABLE_ENTITY
                };
                json(status, &serde_json::to_value(&result).expect("a result is JSON"))
            }
            "/livez" | "/readyz" | "/metrics" | "/config" | "/config/history" | "/state"
            | "/standing" | "/jwks" | "/audit/head" => another_method("GET, HEAD"),
            "/reload" => another_method("POST"),
            _ => text(
                StatusCode::NOT_FOUND,
                "there is /livez /readyz /metrics /config /config/history /state /standing /jwks /audit/head /switches, and POST /reload\n",
            ),
        }
    }
}

/// A page in a browser may post anywhere; it cannot leave out its origin.
fn from_page(head: &RequestHeader) -> Option<Response<Vec<u8>>> {
    let from_page = head.headers.contains_key(header::ORIGIN);
    from_page.then(|| text(StatusCode::FORBIDDEN, "not from a browser\n"))
}

fn ready(process: &Process) -> Response<Vec<u8>> {
    if process.gateway.drain.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    text(StatusCode::OK, "ok\n")
}

fn metrics(process: &Process) -> Response<Vec<u8>> {
    answer(StatusCode::OK, "text/plain; version=0.0.4", process.gateway.metrics.text(process))
}

fn jwks(process: &Process) -> Response<Vec<u8>> {
    let body = process.gateway.state.assertions.jwks().into_bytes();
    let mut answer = answer(StatusCode::OK, "application/jwk-set+json", body);
    let cached = "public, max-age=60".parse().expect("a valid header");
    answer.headers_mut().insert(header::CACHE_CONTROL, cached);
    answer
}

/// The end of the chain of records, for keeping elsewhere: what it names is durable.
async fn audit_head(process: &Process) -> Response<Vec<u8>> {
    match process.gateway.audit.head().await {
        Some(head) => json(StatusCode::OK, &chain(&head)),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "records cannot be written\n"),
    }
}

fn chain(head: &Head) -> Value {
    let spki = |key: &PublicKey| base64::engine::general_purpose::STANDARD.encode(key.spki());
    json!({
        "run": head.run,
        "lines": head.lines,
        "signed": head.signed,
        "last": head.last.to_string(),
        "segment": head.segment,
        "key": head.key.as_ref().map(|key| json!({"id": key.id, "spki": spki(key)})),
    })
}

/// The config in force: it holds no secret, only paths to them.
fn config(process: &Process) -> Value {
    let live = process.gateway.live.load();
    json!({
        "digest": live.policy.digest.as_str(),
        "files": live.loaded.files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        "warnings": live.loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "config": live.loaded.config,
        "needs_restart": live.needs_restart,
    })
}

/// A circuit, and what its breaker does.
fn circuit(key: &Key, facts: Facts) -> Value {
    json!({
        "upstream": key.upstream.as_str(),
        "plugin": key.plugin.as_deref(),
        "host": key.host.as_deref(),
        "part": key.part.as_deref(),
        "position": facts.position.name(),
        "cause": facts.cause.map(|cause| cause.name()),
        "probing": facts.position == Position::Open,
    })
}

fn state(process: &Process) -> Value {
    let now = clock::now();
    let live = process.gateway.live.load();
    let breakers: Vec<Value> = breakers::all(&process.gateway)
        .into_iter()
        .map(|(key, facts)| circuit(&key, facts))
        .collect();
    let keys: Vec<Value> = process
        .gateway
        .state
        .keys
        .describe()
        .into_iter()
        .map(|key| {
            json!({
                "issuer": key.source.issuer.as_str(),
                "plugin": key.source.plugin.as_deref(),
                "kid": key.id,
                "kind": key.kind,
                "age_seconds": now.elapsed.saturating_sub(key.fetched.elapsed).as_secs(),
                "repeated": key.repeated,
            })
        })
        .collect();
    let certificates: Vec<Value> = process
        .certificates()
        .into_iter()
        .map(|(listener, facts)| {
            json!({
                "listener": listener,
                "file": facts.file,
                "subject": facts.subject,
                "issuer": facts.issuer,
                "names": facts.names,
                "serial": facts.serial,
                "not_before": facts.not_before,
                "not_after": facts.not_after,
            })
        })
        .collect();
    let credentials: Vec<Value> = live
        .credentials
        .facts()
        .into_iter()
        .map(|facts| {
            json!({
                "name": facts.name.as_str(),
                "kind": facts.kind,
                "until": facts.until,
                "failing": facts.failing,
            })
        })
        .collect();
    let shipping: Vec<Value> = process
        .shipping
        .told()
        .iter()
        .map(|sink| {
            let told = sink.now();
            json!({
                "name": sink.name,
                "kind": sink.kind.name(),
                "segment": told.cursor.as_ref().map(|(segment, _)| segment),
                "byte": told.cursor.as_ref().map(|(_, byte)| byte),
                "behind_seconds": told.oldest.map_or(0, |oldest| now.unix_seconds().saturating_sub(oldest)),
                "failing_since": told.failing.as_ref().map(|(since, _)| since),
                "failing": told.failing.as_ref().map(|(_, cause)| cause),
                "elsewhere": told.elsewhere,
                "records_shipped": sink.shipped.load(Ordering::Relaxed),
                "records_refused": sink.refused.load(Ordering::Relaxed),
                "segments_lost": sink.lost_segments.load(Ordering::Relaxed),
            })
        })
        .collect();
    let control = process.control.facts(&live.files).map(|facts| {
        json!({
            "url": facts.url,
            "shape": facts.shape,
            "answered": facts.answered,
            "etag": facts.etag,
            "confirmed": facts.confirmed,
            "age_seconds": facts.age.map(|age| age.as_secs()),
            "stale": facts.stale,
            "failing": facts.failing,
        })
    });
    let store = process.gateway.store.as_ref().map(|store| {
        let (facts, told) = (store.leases.facts(), store.told());
        json!({
            "kind": store.written().kind,
            "there": facts.there,
            "since": told.since,
            "cause": told.fault.as_ref().map(|fault| fault.cause),
            "failing": told.fault.as_ref().map(ToString::to_string),
            "on_error": store.written().on_error,
            "replicas": facts.replicas,
            "leases": facts.limits,
            "tokens_leased": facts.leased,
            "tokens_spent": facts.spent,
        })
    });
    let (verified, strangers) = process.gateway.state.limiters.len();
    let upstreams: Vec<Value> =
        live.loaded.config.upstreams.keys().map(|name| upstream(name, &live)).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "config": live.policy.digest.as_str(),
        "last_reload": *process.last_reload.lock(),
        "needs_restart": live.needs_restart,
        "draining": process.gateway.drain.is_draining(),
        "requests_in_flight": process.gateway.drain.under_way(),
        "requests_waiting": process.gateway.flights.waiting(),
        "fallback_bytes": process.gateway.fallback.bytes(),
        "breakers": breakers,
        "switches": switches::all(process),
        "limiters": {"verified": verified, "strangers": strangers},
        "tokens_verified": process.gateway.state.tokens.len(),
        "idempotency_keys_in_flight": process.gateway.state.in_flight.len(),
        "keys": keys,
        "certificates": certificates,
        "credentials": credentials,
        "control": control,
        "store": store,
        "upstreams": upstreams,
        "audit": {
            "works": process.gateway.state.recording.works(),
            "records_lost": process.gateway.audit.lost(),
            "bytes_written": process.gateway.audit.written(),
            "head": chain(&process.gateway.audit.last_head()),
            "ship": shipping,
        },
    })
}

fn upstream(name: &config::Name, live: &Live) -> Value {
    let facts = live.upstreams.get(&name.into()).map(|upstream| upstream.pool.facts());
    let addresses: Vec<Value> = facts
        .unwrap_or_default()
        .iter()
        .map(|facts| {
            json!({
                "address": facts.at.to_string(),
                "condition": facts.condition.name(),
                "reason": facts.condition.fault().map(|fault| fault.name()),
                "until": facts.condition.until().map(|until| until.unix_seconds()),
                "used": facts.used,
                "in_flight": facts.in_flight,
            })
        })
        .collect();
    json!({"name": name, "addresses": addresses})
}

fn json(status: StatusCode, value: &Value) -> Response<Vec<u8>> {
    let mut body = serde_json::to_vec_pretty(value).expect("a value is JSON");
    body.push(b'\n');
    answer(status, "application/json", body)
}

fn text(status: StatusCode, text: &str) -> Response<Vec<u8>> {
    answer(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
}

fn another_method(allowed: &'static str) -> Response<Vec<u8>> {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "another method\n");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn answer(status: StatusCode, kind: &str, body: Vec<u8>) -> Response<Vec<u8>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(body)
        .expect("the headers are valid")
}
