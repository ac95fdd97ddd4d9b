//! The way through: every check a request passes on a reverse listener, in order.
//!
//! The order is fixed on purpose. Each step takes what an earlier step proved, so nobody can be
//! charged before they are known. A new filter is one more line here.

use crate::{
    Admitted, Denial, Exchange, Head, Now, Policy, State, access,
    breaker::Outcome,
    breaker::Transition,
    client,
    identity::Asked,
    normal_form::NormalPath,
    routes::{self, Route},
};

/// Decides about one request. Reads no clock and does no I/O: the same policy, state, head and
/// moment always come out the same. `exchange` is filled in as far as we get.
///
/// # Errors
/// The reason to say no. If `exchange.lack` is set then, fetching it and asking again with a new
/// exchange may come out differently.
pub fn decide(
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<Admitted, Denial> {
    let listener = &policy.listeners[head.listener];
    let client = *exchange.client.insert(client::address(
        head.peer,
        head.headers,
        &listener.trusted_proxies,
    ));
    let host = routes::host(head)?;
    let host = std::str::from_utf8(&host).map_err(|_| Denial::HostInvalid)?;
    let path = exchange.path.insert(NormalPath::of(head.path())?);
    let route =
        exchange.route.insert(policy.routes.find(head.listener, host, head.method, path)?);
    access::passable(route, head)?;
    slashes(route, path)?;
    let query = route.query.judge(head.query())?;

    let mut edits = if route.options.public {
        let standing = policy.rate_limits.take_stranger(&state.limiters, client, now)?;
        exchange.standing = Some(standing);
        policy.headers.anonymous(route)
    } else {
        let asked = Asked {
            headers: head.headers,
            cookie_allowed: route.options.cookie,
            upgrade: head.is_upgrade(),
            certificate: head.certificate,
        };
        let known = match exchange.supposed.take() {
            Some(supposed) => Ok(supposed),
            None => policy.identity.authenticate(&asked, &state.keys, &state.tokens, now),
        };
        let known = known.map_err(|refusal| {
            exchange.lack = refusal.lack;
            // Whoever keeps trying tokens that do not verify is held to the share of a stranger.
            let stranger = refusal
                .suspect
                .then(|| policy.rate_limits.take_stranger(&state.limiters, client, now));
            stranger.and_then(Result::err).unwrap_or(refusal.denial)
        })?;
        let caller = exchange.caller.insert(known);
        let workspace = policy.workspaces.resolve(head, path, route, caller)?;
        exchange.workspace = workspace;
        let workspace = exchange.workspace.as_ref();
        policy.plugins.enabled(route.plugin.as_ref(), workspace)?;
        access::permit(route, caller)?;
        let standing = policy.rate_limits.take(&state.limiters, route, caller, workspace, now)?;
        exchange.standing = Some(standing);
        exchange.running = state.in_flight.begin(head, path, caller)?;
        policy.headers.vouch(route, caller, workspace, &state.assertions, now)
    };
    state.recording.ready(route.class)?;
    // Last, so that a request refused above does not use up the one chance a resting upstream gets.
    let permit = state.breakers.admit(&route.breaker, &route.breaker_rules, now)?;
    exchange.permit = Some(permit);
    exchange.credential.clone_from(&route.credential);
    edits.target = target(head, path, query);
    Ok(Admitted { upstream: route.upstream.clone(), edits })
}

/// Tells the breaker how an admitted exchange ended. `Some` if that moved it.
pub fn report(exchange: &mut Exchange, outcome: Option<Outcome>, now: Now) -> Option<Transition> {
    let permit = exchange.permit.take()?;
    let route = exchange.route.as_ref()?;
    permit.report(outcome?, &route.breaker_rules, now)
}

/// An escaped slash is one thing to us and may be another to the upstream.
fn slashes(route: &Route, path: &NormalPath) -> Result<(), Denial> {
    if path.has_encoded_slash() && !route.options.encoded_slashes {
        return Err(Denial::PathAmbiguous { why: "an escaped slash" });
    }
    Ok(())
}

/// Path and query as the upstream gets them, if not as they came.
fn target(head: &Head<'_>, path: &NormalPath, query: Option<String>) -> Option<String> {
    if !path.changed() && query.is_none() {
        return None;
    }
    let mut target = path.as_str().to_owned();
    let query = match query {
        Some(query) => Some(query),
        None => head.query().map(|query| String::from_utf8_lossy(query).into_owned()),
    };
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        target.push('?');
        target.push_str(&query);
    }
    Some(target)
}
