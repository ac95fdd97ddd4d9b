//! Every check that a request passes on a reverse listener, in order.
//!
//! The order is fixed on purpose. Each step takes what an earlier step proved, so no caller can be charged
//! before it is authenticated. A new filter is one more line here.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

pub use super::{
    admitted::{Admitted, Next},
    dispatch::{Dispatched, dispatch},
    judged::{Judged, Supposed, Who},
};
use super::{exchange::Exchange, judged::Routed, policy::Policy, routes::Route, state::State};
use crate::{
    Denial, Head, Now, Secret,
    checks::{
        body::{BodyAnswer, Operation},
        workspaces::Workspace,
    },
    denial::step::Step,
    identity::{
        Caller, Presented, Refusal,
        headers::{Edits, Vouched},
    },
    limits::idempotency::Running,
    request::{client, host, normal_form::NormalPath},
    response::coalesce,
};

/// Decides one request. Reads no clock and does no I/O: the same policy, state, head and time always give
/// the same decision. `exchange` is filled in as far as the checks get.
///
/// # Errors
/// Why it is refused. If `exchange.lack` is set then, fetching it and deciding again with a new exchange may
/// give another decision.
pub fn decide(
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<Admitted, Denial> {
    decide_supposing(&Supposed::default(), policy, state, head, now, exchange)
}

/// As [`decide`], with these assumptions.
///
/// # Errors
/// As [`decide`].
pub fn decide_supposing(
    supposed: &Supposed,
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<Admitted, Denial> {
    let checks = Checks { policy, state, head, now, supposed };
    let mut request = checks.judge(exchange)?;
    let edits = checks.edits(&request);
    let next = match (request.answer.take(), checks.key(&request, &edits)) {
        (Some(answer), _) => Next::Answer(answer),
        (None, Some(key)) => Next::Coalesce(key),
        (None, None) => Next::Dispatched(dispatch(state, &request, now, exchange)?),
    };
    Ok(Admitted { request, edits, next })
}

/// Only the checks of [`decide_supposing`] that need no upstream.
///
/// # Errors
/// As [`decide`]'s, but for those of [`dispatch`].
pub fn judge_supposing(
    supposed: &Supposed,
    policy: &Policy,
    state: &State,
    head: &Head<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<Judged, Denial> {
    Checks { policy, state, head, now, supposed }.judge(exchange)
}

/// One request, and everything that it is checked against.
struct Checks<'a> {
    policy: &'a Policy,
    state: &'a State,
    head: &'a Head<'a>,
    now: Now,
    supposed: &'a Supposed,
}

/// The order.
impl<'a> Checks<'a> {
    fn judge(&self, exchange: &mut Exchange) -> Result<Judged, Denial> {
        let client = self.client(exchange);
        let routed = self.routed(exchange).inspect_err(|_| self.recognize(client, exchange))?;
        if routed.route.options.public {
            self.anonymous(routed, client, exchange)
        } else {
            self.known(routed, client, exchange)
        }
    }

    /// The checks that do not depend on the caller.
    fn routed(&self, exchange: &mut Exchange) -> Result<Routed, Denial> {
        let host = self.host(exchange)?;
        let path = self.path(exchange)?;
        let route = self.route(&host, &path, exchange)?;
        self.open(&route, exchange)?;
        self.unambiguous(&route, &path, exchange)?;
        let query = self.query(&route, exchange)?;
        Ok(Routed { route, path, query })
    }

    /// The checks of a public route.
    fn anonymous(
        &self,
        routed: Routed,
        client: IpAddr,
        exchange: &mut Exchange,
    ) -> Result<Judged, Denial> {
        let Routed { route, path, query } = routed;
        let (who, class) = (Who::Anonymous, route.class);
        self.switches(&route, None, None, class, exchange)?;
        self.rate_limit_of_client(&route, client, exchange)?;
        self.recordable(class, exchange)?;
        let (token, running, answer) = (None, None, None);
        Ok(Judged { client, route, path, query, who, class, token, running, answer })
    }

    /// The checks of a route with an authenticated caller.
    fn known(
        &self,
        routed: Routed,
        client: IpAddr,
        exchange: &mut Exchange,
    ) -> Result<Judged, Denial> {
        let Routed { route, path, query } = routed;
        let presented = self.presented(Some(&route));
        let (caller, answer) = self.caller(&route, &presented, client, exchange)?;
        let own = self.workspace(&route, &path, &caller, exchange)?;
        let workspace = own.as_ref();
        self.plugin(&route, workspace, exchange)?;
        self.access(&route, &path, &caller, workspace, exchange)?;
        let class = match &answer {
            Some(answer) => self.sign_in(&route, answer, exchange),
            None => self.operation(&route, &caller, workspace, exchange)?,
        };
        // As soon as every fact is known that a switch can match; the class by the body comes last. Not
        // earlier: a caller without access must not learn what operators switched off. And before anything
        // is charged or taken for a request that is refused here.
        self.switches(&route, workspace, Some(&caller), class, exchange)?;
        let token = self.token(&route, &presented, &caller, exchange)?;
        self.rate_limit(&route, &caller, workspace, exchange)?;
        let running = self.idempotency(&path, &caller, exchange)?;
        self.recordable(class, exchange)?;
        let who = Who::Known { caller, workspace: own };
        Ok(Judged { client, route, path, query, who, class, token, running, answer })
    }
}

/// The checks themselves.
impl<'a> Checks<'a> {
    fn client(&self, exchange: &mut Exchange) -> IpAddr {
        let trusted = &self.policy.listeners[self.head.listener].trusted_proxies;
        *exchange.client.insert(client::address(self.head.peer, self.head.headers, trusted))
    }

    fn host(&self, exchange: &mut Exchange) -> Result<host::Host, Denial> {
        exchange.steps.enter(Step::Host);
        host::of(self.head)
    }

    fn path(&self, exchange: &mut Exchange) -> Result<NormalPath, Denial> {
        exchange.steps.enter(Step::Path);
        let path = NormalPath::of(self.head.path())?;
        exchange.path = Some(path.clone());
        Ok(path)
    }

    fn route(
        &self,
        host: &host::Host,
        path: &NormalPath,
        exchange: &mut Exchange,
    ) -> Result<Arc<Route>, Denial> {
        exchange.steps.enter(Step::Route);
        let Head { listener, method, .. } = *self.head;
        let found = self.policy.routes.find(listener, host.as_str(), method, path)?;
        exchange.yielded = found.yielded;
        exchange.route = Some(Arc::clone(&found.route));
        Ok(found.route)
    }

    fn open(&self, route: &Route, exchange: &mut Exchange) -> Result<(), Denial> {
        exchange.steps.enter(Step::Open);
        route.access.open(self.head)
    }

    fn unambiguous(
        &self,
        route: &Route,
        path: &NormalPath,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::Path);
        path.fits(route.options.encoded_slashes, route.options.any_bytes)
    }

    fn query(&self, route: &Route, exchange: &mut Exchange) -> Result<Option<String>, Denial> {
        exchange.steps.enter(Step::Query);
        route.query.judge(self.head.query())
    }

    fn caller(
        &self,
        route: &Route,
        presented: &Presented<'_>,
        client: IpAddr,
        exchange: &mut Exchange,
    ) -> Result<(Arc<Caller>, Option<BodyAnswer>), Denial> {
        exchange.steps.enter(Step::Caller);
        let known = self.authenticate(Some(route), presented);
        let (caller, answer) = known.map_err(|refusal| {
            exchange.lack = refusal.lack;
            // A client that keeps trying invalid tokens is limited by its address.
            let Self { policy, state, now, .. } = *self;
            let stranger = refusal
                .suspect
                .then(|| policy.rate_limits.take_stranger(&state.limiters, client, now));
            stranger.and_then(Result::err).unwrap_or(refusal.denial)
        })?;
        exchange.caller = Some(Arc::clone(&caller));
        Ok((caller, answer))
    }

    fn workspace(
        &self,
        route: &Route,
        path: &NormalPath,
        caller: &Caller,
        exchange: &mut Exchange,
    ) -> Result<Option<Workspace>, Denial> {
        exchange.steps.enter(Step::Workspace);
        let found = self.policy.workspaces.resolve(self.head, path, &route.workspace, caller)?;
        exchange.workspace.clone_from(&found);
        Ok(found)
    }

    fn plugin(
        &self,
        route: &Route,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::Plugin);
        self.policy.plugins.enabled(route.plugin.as_ref(), workspace)
    }

    fn access(
        &self,
        route: &Route,
        path: &NormalPath,
        caller: &Caller,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::Access);
        route.access.permit(caller, path, workspace)
    }

    /// The operation of a sign-in by the body.
    fn sign_in(
        &self,
        route: &Route,
        answer: &BodyAnswer,
        exchange: &mut Exchange,
    ) -> config::Class {
        exchange.operation = Some(Operation::SignIn(answer.operation.clone()));
        route.class
    }

    /// The operation in the body, if its route has rules for that.
    fn operation(
        &self,
        route: &Route,
        caller: &Caller,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<config::Class, Denial> {
        let Some(rules) = route.body.operations() else { return Ok(route.class) };
        exchange.steps.enter(Step::Operation);
        let operation = match &self.supposed.operation {
            Some(supposed) => supposed.clone(),
            None => rules.read(self.head, &mut exchange.lack)?,
        };
        let operation = exchange.operation.insert(operation);
        rules.permit(operation, &route.name, caller, workspace)?;
        Ok(operation.class().unwrap_or(route.class))
    }

    fn switches(
        &self,
        route: &Route,
        workspace: Option<&Workspace>,
        caller: Option<&Caller>,
        class: config::Class,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::Switches);
        self.state.switches.pass(&route.about(workspace, caller, class), self.now)
    }

    /// The caller's token, if the upstream's credential is exchanged for it.
    fn token(
        &self,
        route: &Route,
        presented: &Presented<'_>,
        caller: &Caller,
        exchange: &mut Exchange,
    ) -> Result<Option<Secret>, Denial> {
        let Some(shown) = &route.credential else { return Ok(None) };
        exchange.steps.enter(Step::Credential);
        shown.token_of(presented, caller)
    }

    fn rate_limit_of_client(
        &self,
        route: &Route,
        client: IpAddr,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::RateLimit);
        let (limits, limiters) = (&self.policy.rate_limits, &self.state.limiters);
        exchange.quota = Some(limits.take_public(limiters, &route.limits, client, self.now)?);
        Ok(())
    }

    fn rate_limit(
        &self,
        route: &Route,
        caller: &Caller,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::RateLimit);
        let quota = self.policy.rate_limits.take(
            &self.state.limiters,
            &route.limits,
            caller,
            workspace,
            self.now,
            &mut exchange.lack,
        )?;
        exchange.quota = Some(quota);
        Ok(())
    }

    fn idempotency(
        &self,
        path: &NormalPath,
        caller: &Caller,
        exchange: &mut Exchange,
    ) -> Result<Option<Running>, Denial> {
        exchange.steps.enter(Step::Idempotency);
        self.state.in_flight.begin(self.head, path, caller)
    }

    fn recordable(&self, class: config::Class, exchange: &mut Exchange) -> Result<(), Denial> {
        exchange.steps.enter(Step::Audit);
        self.state.recording.ready(class)
    }
}

/// Authentication.
impl<'a> Checks<'a> {
    /// Records who requests a closed route: the response stays the same, and nothing is fetched for it.
    /// Invalid tokens are charged as anywhere else.
    fn recognize(&self, client: IpAddr, exchange: &mut Exchange) {
        let route = exchange.route.as_deref();
        exchange.caller = match self.authenticate(route, &self.presented(route)) {
            Ok((caller, _)) => Some(caller),
            Err(refusal) => {
                if refusal.suspect {
                    let Self { policy, state, now, .. } = *self;
                    let _ = policy.rate_limits.take_stranger(&state.limiters, client, now);
                }
                refusal.known
            }
        };
    }

    fn presented(&self, route: Option<&Route>) -> Presented<'a> {
        let Self { policy, head, .. } = *self;
        let from_proxy = policy.identity.headers();
        let trusted = &policy.listeners[head.listener].trusted_proxies;
        let is_proxy = !from_proxy.is_empty() && client::is_trusted(head.peer, trusted);
        Presented {
            headers: head.headers,
            listener: head.listener,
            from_proxy: if is_proxy { from_proxy } else { &[] },
            cookie_allowed: route.is_some_and(|route| route.options.cookie),
            upgrade: head.is_upgrade(),
            certificate: head.certificate,
        }
    }

    fn authenticate(
        &self,
        route: Option<&Route>,
        presented: &Presented<'_>,
    ) -> Result<(Arc<Caller>, Option<BodyAnswer>), Refusal> {
        if let Some(supposed) = &self.supposed.caller {
            return Ok((Arc::clone(supposed), None));
        }
        let authenticator = self.state.authenticator(&self.policy.identity, self.now);
        match route {
            Some(route) => route.body.authenticate(self.head, presented, &authenticator),
            None => Ok((authenticator.request(presented)?, None)),
        }
    }
}

/// The request to the upstream.
impl Checks<'_> {
    fn edits(&self, request: &Judged) -> Edits {
        let Self { policy, state, head, now, .. } = *self;
        let Judged { route, who, .. } = request;
        let mut edits = match who {
            // An external upstream does not learn who is calling.
            _ if route.external => Edits::default(),
            Who::Known { caller, workspace } => {
                let workspace = workspace.as_ref().map(|workspace| &workspace.name);
                let (plugin, upstream) = (route.plugin.as_ref(), &route.upstream);
                let of = Vouched { caller, workspace, plugin, upstream };
                policy.headers.vouch(&of, &state.assertions, now)
            }
            Who::Anonymous => policy.headers.anonymous(route.plugin.as_ref()),
        };
        if !route.external {
            let trusted = &policy.listeners[head.listener].trusted_proxies;
            policy.headers.preserve(head, trusted, &mut edits);
        }
        edits.target = target(head, request);
        edits
    }

    /// Its key for coalescing with identical requests, if its route allows that.
    fn key(&self, request: &Judged, edits: &Edits) -> Option<coalesce::Key> {
        let Self { policy, head, .. } = *self;
        let rules = request.route.coalesce.as_ref()?;
        let target = edits.target.as_deref().map_or(head.target, str::as_bytes);
        let caller = request.who.caller().map(|caller| &**caller);
        let workspace = request.who.workspace().map(|workspace| &workspace.name);
        let routed = coalesce::KeyInput { head, target, rules, caller, workspace };
        coalesce::Key::of(&routed, &policy.headers, &policy.digest)
    }
}

/// Path and query for the upstream, if they differ from the received ones.
fn target(head: &Head<'_>, request: &Judged) -> Option<String> {
    let Judged { route, path, query, .. } = request;
    if !path.changed() && query.is_none() && route.url_rewrite.is_plain() {
        return None;
    }
    let mut target = route.url_rewrite.theirs(path).into_owned();
    let query = match query {
        Some(query) => Some(Cow::Borrowed(&**query)),
        None => head.query().map(String::from_utf8_lossy),
    };
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        target.push('?');
        target.push_str(&query);
    }
    Some(target)
}
