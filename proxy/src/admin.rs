//! The admin listener: health, metrics, state, reload and switches. For operators, on loopback.

mod bounded;
mod breakers;
mod metrics_page;
mod quota_status;
pub mod state;
mod switch_request;
mod switches;

use std::sync::Arc;

use async_trait::async_trait;
use filters::audit::event::Event;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::{apps::http_app::ServeHttp, http::RequestHeader, protocols::http::ServerSession};
use serde::Serialize;
use serde_json::{Value, json};

use crate::lifecycle::{process::Process, reload::Source};

pub use self::bounded::Bounded;

/// The admin service for operators.
pub struct Admin {
    /// The process it reports on.
    pub process: Arc<Process>,
    /// Which endpoints it serves.
    pub answers: Answers,
}

/// Which endpoints are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// All endpoints.
    Everything,
    /// Only the public ones.
    Status,
}

/// The public endpoints, which are requested too often to be recorded.
const STATUS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// When paths got their new names: 2026-11-30.
const RENAMED_AT: &str = "@1795996800";

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
            "/state" if read => json(StatusCode::OK, &state::read(process)),
            "/quota-status" if read => {
                quota_status::answer(process, head.uri.query().unwrap_or_default())
            }
            "/standing" if read => deprecated(
                quota_status::answer(process, head.uri.query().unwrap_or_default()),
                "/quota-status",
            ),
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
                json(status, &result)
            }
            "/livez" | "/readyz" | "/metrics" | "/config" | "/config/history" | "/state"
            | "/quota-status" | "/standing" | "/jwks" | "/audit/head" => {
                another_method("GET, HEAD")
            }
            "/reload" => another_method("POST"),
            _ => text(
                StatusCode::NOT_FOUND,
                "there is /livez /readyz /metrics /config /config/history /state /quota-status /jwks /audit/head /switches, and POST /reload\n",
            ),
        }
    }
}

/// The answer at a path's old name, which goes with the next version (RFC 9745).
fn deprecated(mut answer: Response<Vec<u8>>, now: &'static str) -> Response<Vec<u8>> {
    let headers = answer.headers_mut();
    headers.insert("deprecation", HeaderValue::from_static(RENAMED_AT));
    if let Ok(link) = format!("<{now}>; rel=\"successor-version\"").parse() {
        headers.insert(header::LINK, link);
    }
    answer
}

/// A browser page may post anywhere, but cannot omit its origin.
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

/// The end of the chain of records, to store elsewhere: everything up to it is durable.
async fn audit_head(process: &Process) -> Response<Vec<u8>> {
    match process.gateway.audit.head().await {
        Some(head) => json(StatusCode::OK, &state::chain(&head)),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "audit records cannot be written\n"),
    }
}

/// The config in force: it holds no secret, only paths to them.
fn config(process: &Process) -> Value {
    let snapshot = process.gateway.snapshot.load();
    json!({
        "digest": snapshot.policy.digest.as_str(),
        "files": snapshot.loaded.files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        "warnings": snapshot.loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "config": snapshot.loaded.config,
        "needs_restart": snapshot.needs_restart,
    })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Vec<u8>> {
    let mut body = serde_json::to_vec_pretty(value).expect("a value is JSON");
    body.push(b'\n');
    answer(status, "application/json", body)
}

fn text(status: StatusCode, text: &str) -> Response<Vec<u8>> {
    answer(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
}

fn another_method(allowed: &'static str) -> Response<Vec<u8>> {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
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
