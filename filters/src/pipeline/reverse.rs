//! The way through: every check a request passes on a reverse listener, in order.
//!
//! The order is fixed on purpose. Each step takes what an earlier step proved, so nobody can be
//! charged before they are known. A new filter is one more line here.

use std::{net::IpAddr, sync::Arc};

use crate::{
    Admitted, Denial, Exchange, Head, Label, Now, Policy, State,
    checks::{
        api_key::{self, SignedIn},
        graphql::Operation,
    },
    denial::{Lack, step::Step},
    identity::{
        Asked, Caller, Refusal,
        headers::{Edits, Vouched},
    },
    pipeline::routes::Route,
    request::{client, host, normal_form::NormalPath},
    response::coalesce,
    upstream::breaker::{Outcome, Transition},
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
    let query = judge(policy, state, head, now, exchange)?;
    let route = exchange.route.as_ref().expect("a judged request has a route");
    let path = exchange.path.as_ref().expect("a judged request has a path");
    let caller = exchange.caller.as_deref();
    let workspace = exchange.workspace.as_ref();
    let mut edits = match caller {
        // Who calls is none of a stranger's business.
        _ if route.external => Edits::default(),
        Some(caller) => {
            let workspace = workspace.map(|workspace| &workspace.name);
            let (plugin, upstream) = (route.plugin.as_ref(), &route.upstream);
            let of = Vouched { caller, workspace, plugin, upstream };
            policy.headers.vouch(&of, &state.assertions, now)
        }
        None => policy.headers.anonymous(route.plugin.as_ref()),
    };
    if !route.external {
        let trusted = &policy.listeners[head.listener].trusted_proxies;
        policy.headers.preserve(head, trusted, &mut edits);
    }
    edits.target = target(head, route, path, query);
    let sent = edits.target.as_deref().map_or(head.target, str::as_bytes);
    let workspace = workspace.map(|workspace| &workspace.name);
    let key = route.coalesce.as_ref().and_then(|rules| {
        let asked = coalesce::Asked { head, target: sent, rules, caller, workspace };
        coalesce::Key::of(&asked, &policy.headers, &policy.digest)
    });
    let admitted = Admitted { upstream: route.upstream.clone(), edits, key };
    if key.is_none() && exchange.signed_in.is_none() {
        depart(state, now, exchange)?;
    }
    Ok(admitted)
}

/// The checks of [`decide`], and nothing else: it answers the query that the upstream is to be asked
/// with, if that is another.
///
/// # Errors
/// As [`decide`]'s, but for those of [`depart`].
pub fn judge(
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<Option<String>, Denial> {
    let listener = &policy.listeners[head.listener];
    let client = *exchange.client.insert(client::address(
        head.peer,
        head.headers,
        &listener.trusted_proxies,
    ));
    let query = passable(policy, head, exchange).inspect_err(|_| {
        recognize(policy, state, head, client, now, exchange);
    })?;
    let route = exchange.route.as_ref().expect("a passable request has a route");
    let path = exchange.path.as_ref().expect("a passable request has a path");

    if route.options.public {
        exchange.steps.enter(Step::Switches);
        state.switches.pass(&route.about(None, None, None), now)?;
        exchange.steps.enter(Step::RateLimit);
        let quota = policy.rate_limits.take_public(&state.limiters, &route.limits, client, now)?;
        exchange.quota = Some(quota);
    } else {
        exchange.steps.enter(Step::Caller);
        let asked = asked(policy, head, Some(route));
        let known = match exchange.supposed.take() {
            Some(supposed) => Ok((supposed, None)),
            None => authenticate(policy, state, head, &asked, Some(route), now),
        };
        let (known, signed_in) = known.map_err(|refusal| {
            exchange.lack = refusal.lack;
            // Whoever keeps trying tokens that do not verify is held to the share of a stranger.
            let stranger = refusal
                .suspect
                .then(|| policy.rate_limits.take_stranger(&state.limiters, client, now));
            stranger.and_then(Result::err).unwrap_or(refusal.denial)
        })?;
        exchange.signed_in = signed_in;
        let caller = exchange.caller.insert(known);
        exchange.steps.enter(Step::Workspace);
        let workspace = policy.workspaces.resolve(head, path, &route.workspace, caller)?;
        exchange.workspace = workspace;
        let workspace = exchange.workspace.as_ref();
        exchange.steps.enter(Step::Plugin);
        policy.plugins.enabled(route.plugin.as_ref(), workspace)?;
        exchange.steps.enter(Step::Access);
        route.access.permit(caller, path, workspace)?;
        if let Some(signed_in) = &exchange.signed_in {
            exchange.operation = Some(signed_in.operation.clone());
        } else if let Some(graphql) = &route.graphql {
            exchange.steps.enter(Step::Operation);
            let operation = match (exchange.supposed_operation.take(), head.body) {
                (Some(supposed), _) => supposed,
                (None, Some(body)) => Operation::of(head, body)?,
                (None, None) => {
                    exchange.lack = Some(Lack::Body);
                    return Err(Denial::GraphqlMalformed { why: "it has no body" });
                }
            };
            exchange.operation = Some(Label::lossy(&operation.to_string()));
            exchange.class = Some(operation.class());
            let operation = exchange.graphql.insert(operation);
            graphql.permit(operation, &route.name, caller, workspace)?;
        }
        // As soon as it is known what it is about, a GraphQL request's class last. Not before: whoever
        // may not do it anyway learns nothing of what operators do. And before anything is charged or
        // taken for a request that goes nowhere.
        exchange.steps.enter(Step::Switches);
        let about = route.about(workspace, Some(caller), exchange.class);
        state.switches.pass(&about, now)?;
        if let Some(shown) = &route.credential {
            exchange.steps.enter(Step::Credential);
            exchange.token = shown.token_of(&asked, caller)?;
        }
        exchange.steps.enter(Step::RateLimit);
        let quota = policy.rate_limits.take(
            &state.limiters,
            &route.limits,
            caller,
            workspace,
            now,
            &mut exchange.lack,
        )?;
        exchange.quota = Some(quota);
        exchange.steps.enter(Step::Idempotency);
        exchange.running = state.in_flight.begin(head, path, caller)?;
    }
    exchange.steps.enter(Step::Audit);
    state.recording.ready(exchange.class.unwrap_or(route.class))?;
    Ok(query)
}

/// What can be said of a request before anyone is asked who they are.
fn passable(
    policy: &Policy,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<Option<String>, Denial> {
    exchange.steps.enter(Step::Host);
    let host = host::of(head)?;
    let host = std::str::from_utf8(&host).map_err(|_| Denial::HostInvalid)?;
    exchange.steps.enter(Step::Path);
    let path = exchange.path.insert(NormalPath::of(head.path())?);
    exchange.steps.enter(Step::Route);
    let found = policy.routes.find(head.listener, host, head.method, path)?;
    exchange.yielded = found.yielded;
    let route = exchange.route.insert(found.route);
    exchange.steps.enter(Step::Open);
    route.access.open(head)?;
    exchange.steps.enter(Step::Path);
    ambiguous(route, path)?;
    exchange.steps.enter(Step::Query);
    route.query.judge(head.query())
}

/// Notes who asks for what nobody gets, for the record: the answer stays the same, and nothing is
/// fetched for it. Tokens that do not verify cost what they cost anywhere.
fn recognize(
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    client: IpAddr,
    now: Now,
    exchange: &mut Exchange,
) {
    let route = exchange.route.as_deref();
    let known = match exchange.supposed.take() {
        Some(supposed) => Ok((supposed, None)),
        None => authenticate(policy, state, head, &asked(policy, head, route), route, now),
    };
    exchange.caller = match known {
        Ok((caller, _)) => Some(caller),
        Err(refusal) => {
            if refusal.suspect {
                let _ = policy.rate_limits.take_stranger(&state.limiters, client, now);
            }
            refusal.known
        }
    };
}

fn asked<'a>(policy: &'a Policy, head: &Head<'a>, route: Option<&Route>) -> Asked<'a> {
    let from_proxy = policy.identity.headers();
    let trusted = &policy.listeners[head.listener].trusted_proxies;
    let is_proxy = !from_proxy.is_empty() && client::is_trusted(head.peer, trusted);
    Asked {
        headers: head.headers,
        listener: head.listener,
        from_proxy: if is_proxy { from_proxy } else { &[] },
        cookie_allowed: route.is_some_and(|route| route.options.cookie),
        upgrade: head.is_upgrade(),
        certificate: head.certificate,
    }
}

fn authenticate(
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    asked: &Asked<'_>,
    route: Option<&Route>,
    now: Now,
) -> Result<(Arc<Caller>, Option<SignedIn>), Refusal> {
    let signs_in = |route: &&Route| route.credential.as_ref().is_some_and(|shown| shown.signs_in);
    match route.filter(signs_in) {
        Some(route) => api_key::authenticate(policy, state, head, asked, route, now),
        None => policy
            .identity
            .authenticate(asked, &state.keys, &state.tokens, now)
            .map(|caller| (caller, None)),
    }
}

/// The last checks of an admitted request, for those that go to the upstream. The others are given
/// the answer to one that did.
///
/// # Errors
/// [`Denial::BreakerOpen`] and [`Denial::PaceExceeded`].
pub fn depart(state: &State, now: Now, exchange: &mut Exchange) -> Result<(), Denial> {
    let route = exchange.route.as_ref().expect("an admitted request has a route");
    exchange.steps.enter(Step::Breaker);
    // Last, so that a request refused above does not use up the one chance a resting upstream gets.
    let permit = match state.switches.are_closed(&exchange.about(), now) {
        true => None,
        false => Some(state.breakers.admit(
            &route.breaker,
            exchange.breaker_part(),
            &route.breaker_rules,
            now,
        )?),
    };
    if let Some(pace) = &route.pace {
        exchange.steps.enter(Step::Pace);
        exchange.turn = state.paces.turn(&route.upstream, pace, now)?;
    }
    exchange.permit = permit;
    exchange.credential.clone_from(&route.credential);
    Ok(())
}

/// Asks for leave to make another attempt. The failure of the last was reported.
pub fn dispatch_again(state: &State, exchange: &mut Exchange, now: Now) -> bool {
    let route = exchange.route.as_ref().expect("an admitted request has a route");
    // Somebody may have switched it off since.
    if state.switches.pass(&exchange.about(), now).is_err() {
        return false;
    }
    let percent = route.retries.budget_percent;
    let permit = match state.switches.are_closed(&exchange.about(), now) {
        true => None,
        false => {
            let breakers = &state.breakers;
            let part = exchange.breaker_part();
            match breakers.readmit(&route.breaker, part, &route.breaker_rules, percent, now) {
                Some(permit) => Some(permit),
                None => return false,
            }
        }
    };
    if let Some(pace) = &route.pace {
        match state.paces.turn(&route.upstream, pace, now) {
            Ok(turn) => exchange.turn = turn,
            Err(_) => return false,
        }
    }
    exchange.permit = permit;
    true
}

/// Tells the breaker how an admitted exchange ended. `Some` if that moved it.
pub fn report(exchange: &mut Exchange, outcome: Option<Outcome>, now: Now) -> Option<Transition> {
    let permit = exchange.permit.take()?;
    let route = exchange.route.as_ref()?;
    permit.report(outcome?, &route.breaker_rules, now)
}

/// What is one thing to us and may be another to the upstream.
fn ambiguous(route: &Route, path: &NormalPath) -> Result<(), Denial> {
    if path.has_encoded_slash() && !route.options.encoded_slashes {
        return Err(Denial::PathAmbiguous { why: "an escaped slash or a double escape" });
    }
    match path.foreign() {
        Some(why) if !route.options.any_bytes => Err(Denial::PathAmbiguous { why }),
        _ => Ok(()),
    }
}

/// Path and query as the upstream gets them, if not as they came.
fn target(
    head: &Head<'_>,
    route: &Route,
    path: &NormalPath,
    query: Option<String>,
) -> Option<String> {
    if !path.changed() && query.is_none() && route.url_rewrite.is_plain() {
        return None;
    }
    let mut target = route.url_rewrite.theirs(path).into_owned();
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
