//! `/quota-status`: the current state of a request's breaker and limits. The query takes nothing from a limit
//! and leaves no state.

use std::{net::IpAddr, time::Duration};

use filters::{
    Label, Now,
    breaker::BreakerState,
    rate_limit::{Of, Remaining, Who},
    routes::Route,
    workspaces::Workspace,
};
use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Value, json};

use super::state::Breaker;
use crate::{clock, data_plane::gateway::Snapshot, lifecycle::process::Process};

/// The caller and workspace that the query is about.
#[derive(Default)]
struct About {
    route: Option<Label>,
    part: Option<Label>,
    issuer: Option<Label>,
    caller: Option<Label>,
    workspace: Option<Label>,
    client: Option<IpAddr>,
}

const MEMBERS: &str = "`route`, `part`, `issuer`, `caller`, `workspace` and `client`";

pub(super) fn answer(process: &Process, query: &str) -> Response<Vec<u8>> {
    let snapshot = process.gateway.snapshot.load();
    match About::read(query).and_then(|about| standing(process, &snapshot, &about)) {
        Ok(found) => super::json(StatusCode::OK, &found),
        Err(wrong) => super::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({"messages": [wrong]})),
    }
}

impl About {
    fn read(query: &str) -> Result<Self, String> {
        let mut about = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            let label = || {
                Label::new(&value)
                    .ok_or_else(|| format!("`{name}` has 1 to 256 visible characters"))
            };
            match name {
                "route" => about.route = Some(label()?),
                "part" => about.part = Some(label()?),
                "issuer" => about.issuer = Some(label()?),
                "caller" => about.caller = Some(label()?),
                "workspace" => about.workspace = Some(label()?),
                "client" => {
                    let address =
                        value.parse().map_err(|_| "`client` is not an address".to_owned())?;
                    about.client = Some(address);
                }
                _ => {
                    return Err(format!(
                        "unknown member `{}`; the members are {MEMBERS}",
                        name.escape_debug()
                    ));
                }
            }
        }
        Ok(about)
    }
}

fn standing(process: &Process, snapshot: &Snapshot, about: &About) -> Result<Value, String> {
    let wanted = about.route.as_ref().ok_or("write `route`: the name of a route".to_owned())?;
    let routes = snapshot.policy.routes.all();
    let route = routes.iter().find(|route| route.name == *wanted);
    let route = route.ok_or_else(|| format!("the config in force has no route `{wanted}`"))?;
    let now = clock::now();
    let part = about.part.as_deref().filter(|_| route.breaker_by.is_some());
    let peek = process.gateway.state.breakers.peek(&route.breaker.key, part, now);
    let left = left(process, snapshot, about, route, now)?;
    Ok(json!({
        "config": snapshot.policy.digest.as_str(),
        "route": route.name.as_str(),
        "breaker": Moment::of(peek, now),
        "limits": left.iter().map(limit).collect::<Vec<_>>(),
    }))
}

fn left(
    process: &Process,
    snapshot: &Snapshot,
    about: &About,
    route: &Route,
    now: Now,
) -> Result<Vec<Remaining>, String> {
    let (limits, limiters) = (&snapshot.policy.rate_limits, &process.gateway.state.limiters);
    if route.options.public {
        let client =
            about.client.ok_or("that route is public and has no caller: write `client`")?;
        return Ok(vec![limits.remaining_public(limiters, &route.limits, client, now)]);
    }
    let subject = about.caller.as_ref().ok_or("write `caller`: its limits count per caller")?;
    let workspace = about.workspace.as_ref().map(|name| Workspace {
        name: name.clone(),
        declared: snapshot.policy.workspaces.declared(name),
    });
    let of = |issuer: &Label| {
        limits.left(limiters, &route.limits, Who { issuer, subject }, workspace.as_ref(), now)
    };
    if let Some(issuer) = &about.issuer {
        return Ok(of(issuer));
    }
    // Without an issuer it may be any of them: of each limit, the one with the least left.
    let issuers = snapshot.loaded.config.identity.issuers.keys().map(Label::from);
    let all = issuers.map(|issuer| of(&issuer)).reduce(|least, other| {
        let both = least.into_iter().zip(other);
        both.map(|(a, b)| if b.left < a.left { b } else { a }).collect()
    });
    Ok(all.unwrap_or_else(|| of(&Label::lossy("?"))))
}

/// A breaker, and since when it has its position.
#[derive(Serialize)]
struct Moment {
    #[serde(flatten)]
    breaker: Breaker,
    since: Option<u64>,
    for_seconds: Option<f64>,
    tried_in_seconds: Option<f64>,
}

impl Moment {
    fn of(peek: BreakerState, now: Now) -> Self {
        let BreakerState { key, status, since, tried_at } = peek;
        let ago = |then: Duration| now.elapsed.saturating_sub(then);
        Self {
            breaker: Breaker::of(&key, status),
            since: since.map(|since| now.unix.saturating_sub(ago(since)).as_secs()),
            for_seconds: since.map(|since| seconds(ago(since))),
            tried_in_seconds: tried_at.map(|at| seconds(at.saturating_sub(now.elapsed))),
        }
    }
}

fn limit(left: &Remaining) -> Value {
    let (kind, of) = match &left.of {
        Of::Rest => ("rest", None),
        Of::Bucket(name) => ("bucket", Some(name)),
        Of::Plugin(name) => ("plugin", Some(name)),
        Of::Route(name) => ("route", Some(name)),
        Of::Calls => ("calls", None),
    };
    json!({
        "scope": left.scope,
        "name": left.name.as_str(),
        "kind": kind,
        "of": of.map(Label::as_str),
        "rate": left.limit.rate.to_string(),
        "burst": left.limit.burst(),
        "left": left.left,
        "next_in_seconds": seconds(left.next),
        "full_in_seconds": left.left.map(|_| seconds(left.whole())),
        "shared": left.shared,
    })
}

/// Seconds, rounded to milliseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).ceil() / 1000.0
}
