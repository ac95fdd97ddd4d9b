//! `/switches`: an operator opens or closes a switch for some time.

use std::time::Duration;

use config::{IssuerKind, ListenerKind};
use filters::{
    Label, Now,
    switches::{Scope, Switch},
};
use http::{Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use super::{
    another_method, from_page,
    switch_request::{Names, SwitchRequest, remover},
    text,
};
use crate::{clock, data_plane::gateway::Snapshot, lifecycle::process::Process};

const BODY_MAX: usize = 16 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a path is one of these endpoints.
pub(super) fn is_one(path: &str) -> bool {
    path == "/switches" || path.starts_with("/switches/")
}

pub(super) async fn answer(
    process: &Process,
    session: &mut ServerSession,
    method: &Method,
    path: &str,
) -> Response<Vec<u8>> {
    let id = path.strip_prefix("/switches/");
    let allowed = if id.is_some() { Method::DELETE } else { Method::POST };
    let read = *method == Method::GET || *method == Method::HEAD;
    match id {
        None if read => {
            process.gateway.switchboard.expire();
            return super::json(StatusCode::OK, &all(process));
        }
        _ if *method == allowed => {}
        None => return another_method("GET, HEAD, POST"),
        Some(_) => return another_method("DELETE"),
    }
    if let Some(refused) = from_page(session.req_header()) {
        return refused;
    }
    let body = match body(session).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    match id {
        None => set(process, &body),
        Some(id) => remove(process, id, &body),
    }
}

/// A switch that is set. It applies to what is named here.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "Switch")]
pub(super) struct SwitchStatus {
    /// Its number, by which it is removed.
    id: u64,
    /// `open` or `closed`.
    position: &'static str,
    /// Why, as the operator said.
    reason: String,
    /// Who set it.
    by: String,
    /// When, in seconds since 1970.
    set: u64,
    /// When it ends, in seconds since 1970.
    until: u64,
    /// How long that is from now.
    seconds_left: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    /// `read`, `action` or `admin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    /// How many exchanges it cut, in the response to the request that set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<usize>,
}

impl SwitchStatus {
    fn of(switch: &Switch, now: Now) -> Self {
        let Scope { upstream, plugin, workspace, caller, class } = &switch.scope;
        let text = |label: &Option<Label>| label.as_ref().map(ToString::to_string);
        Self {
            id: switch.id,
            position: switch.position.name(),
            reason: switch.reason.to_string(),
            by: switch.by.to_string(),
            set: switch.set.unix_seconds(),
            until: switch.until.unix_seconds(),
            seconds_left: switch.until.elapsed.saturating_sub(now.elapsed).as_secs(),
            upstream: text(upstream),
            plugin: text(plugin),
            workspace: text(workspace),
            caller: text(caller),
            class: class.map(config::Class::name),
            cut: None,
        }
    }
}

/// The switches that are set.
pub(super) fn all(process: &Process) -> Vec<SwitchStatus> {
    let now = clock::now();
    let all = process.gateway.state.switches.all();
    all.iter()
        .filter(|switch| switch.lasts(now))
        .map(|switch| SwitchStatus::of(switch, now))
        .collect()
}

fn set(process: &Process, body: &[u8]) -> Response<Vec<u8>> {
    let wanted = match SwitchRequest::read(body, &known(&process.gateway.snapshot.load())) {
        Ok(wanted) => wanted,
        Err(wrong) => return refused(StatusCode::UNPROCESSABLE_ENTITY, &wrong),
    };
    let SwitchRequest { scope, position, lasts, cuts, by, reason } = wanted;
    match process.gateway.switchboard.set(scope, position, lasts, cuts, (&by, &reason)) {
        Some((switch, cut)) => super::json(
            StatusCode::CREATED,
            &SwitchStatus { cut, ..SwitchStatus::of(&switch, clock::now()) },
        ),
        None => {
            let why = "there are too many switches; remove some with `DELETE /switches/{id}`";
            refused(StatusCode::CONFLICT, &[why.to_owned()])
        }
    }
}

fn remove(process: &Process, id: &str, body: &[u8]) -> Response<Vec<u8>> {
    let by = match remover(body) {
        Ok(by) => by,
        Err(wrong) => return refused(StatusCode::UNPROCESSABLE_ENTITY, &wrong),
    };
    match id.parse().ok().and_then(|id| process.gateway.switchboard.remove(id, &by)) {
        Some(switch) => super::json(StatusCode::OK, &SwitchStatus::of(&switch, clock::now())),
        None => {
            let why = "there is no such switch; `GET /switches` lists them".to_owned();
            refused(StatusCode::NOT_FOUND, &[why])
        }
    }
}

fn refused(status: StatusCode, messages: &[String]) -> Response<Vec<u8>> {
    super::json(status, &json!({"messages": messages}))
}

async fn body(session: &mut ServerSession) -> Result<Vec<u8>, Response<Vec<u8>>> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(part)) = session.read_request_body().await {
            body.extend_from_slice(&part);
            if body.len() > BODY_MAX {
                return false;
            }
        }
        true
    };
    let read = timeout(BODY_TIMEOUT, read).await;
    if read == Ok(true) {
        return Ok(body);
    }
    // What is left of it is not waited for.
    session.set_keepalive(None);
    Err(match read {
        Ok(_) => text(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 16 KiB\n"),
        Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive\n"),
    })
}

/// What the config in force calls things.
fn known(snapshot: &Snapshot) -> Names<'_> {
    let config = &snapshot.loaded.config;
    let mut plugins: Vec<&str> = config.plugins.keys().map(|name| &**name).collect();
    let (routes, rules) = (snapshot.policy.routes.all(), &config.egress.rules);
    plugins.extend(routes.iter().filter_map(|route| route.plugin.as_deref()));
    plugins.extend(rules.iter().flat_map(|rule| &rule.plugins).map(|name| &**name));
    plugins.extend(config.listeners.values().filter_map(|listener| listener.plugin.as_deref()));
    let certificates = &config.identity.client_certificates;
    plugins.extend(certificates.iter().filter_map(|caller| caller.plugin.as_deref()));
    plugins.extend(config.egress.callers.values().filter_map(|caller| caller.plugin.as_deref()));
    plugins.sort_unstable();
    plugins.dedup();
    let asks = |listener: &config::Listener| {
        listener.kind == ListenerKind::Forward && listener.plugin.is_none()
    };
    let may_say = config.listeners.values().any(|listener| asks(listener))
        && config.identity.issuers.values().any(|issuer| issuer.kind == IssuerKind::Backstage);
    let workspaces = &config.workspaces;
    Names {
        upstreams: config.upstreams.keys().map(|name| &**name).collect(),
        plugins: (!may_say).then_some(plugins),
        workspaces: (!workspaces.undeclared)
            .then(|| workspaces.named.keys().map(|name| &**name).collect()),
    }
}
