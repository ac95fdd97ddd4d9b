//! Which route matches a request: the most exact one, whatever their order in the config.

use std::{collections::HashMap, sync::Arc};

use http::Method;

use crate::{
    Denial, Label,
    checks::{
        access,
        body::BodyRules,
        switches::About,
        workspaces::{self, Workspace},
    },
    identity::{Caller, credentials::Credential},
    limits::{pace, rate_limit::RouteLimits},
    request::{normal_form::NormalPath, query::Query},
    response::{coalesce, fallback, progress::Timeouts, url_rewrite::UrlRewrite},
    upstream::breaker,
};

/// A route, ready for use.
#[derive(Debug)]
pub struct Route {
    /// Its name, in records and metrics.
    pub name: Label,
    /// Its number in the policy, for metrics.
    pub index: usize,
    /// Where the operator wrote it, as `file:line:column`.
    pub place: Arc<str>,
    /// The path template, as text.
    pub template: Arc<str>,
    /// The upstream it goes to.
    pub upstream: Label,
    /// The plugin it belongs to.
    pub plugin: Option<Label>,
    /// Its class.
    pub class: config::Class,
    /// Its other options.
    pub options: config::RouteOptions,
    /// The limits that its requests count against.
    pub limits: RouteLimits,
    /// Its query rules, ready to use.
    pub query: Query,
    /// Who may use it.
    pub access: access::Rules,
    /// Whether its requests are for a workspace, and where its path names it.
    pub workspace: workspaces::Rules,
    /// Its circuit breaker.
    pub breaker: breaker::Handle,
    /// The segment of the path whose every value has its own breaker.
    pub breaker_by: Option<usize>,
    /// When that breaker opens.
    pub breaker_rules: Arc<config::Breaker>,
    /// The pace of its upstream.
    pub pace: Option<Arc<pace::Rules>>,
    /// How its upstream's paths map to ours.
    pub url_rewrite: UrlRewrite,
    /// Whether its upstream is external.
    pub external: bool,
    /// Whether, and for whom, identical requests are coalesced.
    pub coalesce: Option<coalesce::Rules>,
    /// Whether, and for how long, responses are stored for when the upstream fails.
    pub fallback: Option<fallback::Rules>,
    /// Its rules for bodies.
    pub body: BodyRules,
    /// The credential for its upstream.
    pub credential: Option<Arc<Credential>>,
    /// Whether its upstream decides about delivery.
    pub delivery: bool,
    /// Whether a failed read is retried.
    pub retries: config::Retries,
    /// Its timeouts, with those of its upstream and the defaults filled in.
    pub timeouts: Timeouts,
}

impl Route {
    /// The part of its upstream, by the path, that has its own breaker.
    pub fn breaker_part<'a>(&self, path: &'a NormalPath) -> Option<&'a str> {
        path.segments().nth(self.breaker_by?)
    }

    /// The facts of a request for it that switches can match.
    pub fn about<'a>(
        &'a self,
        workspace: Option<&'a Workspace>,
        caller: Option<&'a Caller>,
        class: config::Class,
    ) -> About<'a> {
        About {
            upstream: Some(&self.upstream),
            plugin: self.plugin.as_ref(),
            workspace: workspace.map(|workspace| &workspace.name),
            caller,
            class: Some(class),
        }
    }
}

/// All routes of a policy, indexed for lookup.
#[derive(Debug, Default)]
pub struct Routes {
    all: Vec<Arc<Route>>,
    /// By listener number.
    listeners: Vec<Hosts>,
    /// Presets' routes that are not opened, and the operator's routes that they yield to.
    yielding: HashMap<usize, Vec<usize>>,
    /// For each operator's route, the routes that presets close for good and that keep others from yielding
    /// to it.
    barred: HashMap<usize, Vec<usize>>,
}

/// The route that matches a request.
#[derive(Clone, Debug)]
pub struct Found {
    /// The route.
    pub route: Arc<Route>,
    /// The more exact route of a preset that yielded because it is not opened.
    pub yielded: Option<Arc<Route>>,
}

/// The routes of one listener, by host.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<Box<str>, Node>,
    /// By the domain after `*.`.
    wildcard: HashMap<Box<str>, Node>,
    any: Option<Node>,
}

/// One segment further into a path.
#[derive(Debug, Default)]
struct Node {
    text: HashMap<Box<str>, Node>,
    parameter: Option<Box<Node>>,
    ends: Methods,
    open_ended: Methods,
}

#[derive(Debug, Default)]
struct Methods {
    named: Vec<(config::Method, usize)>,
    /// The route for HEAD where no route names it (RFC 9110 9.3.2).
    head: Option<usize>,
}

impl Routes {
    /// Indexes `routes`. `listeners` are the names of the listeners, in order; each route comes with its
    /// config.
    pub fn new(listeners: &[&str], routes: Vec<(Arc<Route>, &config::Route)>) -> Self {
        let mut this = Self {
            all: Vec::with_capacity(routes.len()),
            listeners: listeners.iter().map(|_| Hosts::default()).collect(),
            yielding: yielding(&routes),
            barred: HashMap::new(),
        };
        this.barred = barred(&this.yielding, &routes);
        for (index, (route, written)) in routes.into_iter().enumerate() {
            for (listener, hosts) in listeners.iter().zip(&mut this.listeners) {
                let on = written.listeners.is_empty()
                    || written.listeners.iter().any(|name| &*name.value == *listener);
                if on {
                    hosts.put(written, index);
                }
            }
            this.all.push(route);
        }
        this
    }

    /// All routes, in order.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.all
    }

    /// The route that matches a request for `host` (see [`host`]) and `path`.
    ///
    /// # Errors
    /// [`Denial::HostUnknown`] if nothing here is for this host, else [`Denial::RouteUnknown`].
    pub fn find(
        &self,
        listener: usize,
        host: &str,
        method: &Method,
        path: &NormalPath,
    ) -> Result<Found, Denial> {
        let hosts = self.listeners.get(listener).ok_or(Denial::RouteUnknown)?;
        let exact = hosts.exact.get(host);
        let wildcard = host.split_once('.').and_then(|(_, domain)| hosts.wildcard.get(domain));
        let tables = [exact, wildcard, hosts.any.as_ref()];
        if tables.iter().all(Option::is_none) {
            return Err(Denial::HostUnknown { host: Label::lossy(host) });
        }
        let segments: smallvec::SmallVec<[&str; 16]> = path.segments().collect();
        let find = |taken: &dyn Fn(usize) -> bool| {
            tables.into_iter().flatten().find_map(|node| node.find(method, &segments, taken))
        };
        let first = find(&|_| true).ok_or(Denial::RouteUnknown)?;
        let of = |index: usize| Arc::clone(&self.all[index]);
        Ok(match self.instead(first, find) {
            Some(own) => Found { route: of(own), yielded: Some(of(first)) },
            None => Found { route: of(first), yielded: None },
        })
    }

    /// The operator's route that replaces `first`, if that yields: the next in exactness, skipping others
    /// that also yield to it. A preset's open route does not take what another of its routes keeps closed,
    /// and this never opens a route that is closed for good.
    fn instead(
        &self,
        first: usize,
        find: impl Fn(&dyn Fn(usize) -> bool) -> Option<usize>,
    ) -> Option<usize> {
        // Usually there is no entry.
        let yields_to = self.yielding.get(&first)?;
        let (mut to, mut passed) = (vec![yields_to], vec![first]);
        loop {
            let next = find(&|index| !passed.contains(&index))?;
            if to.iter().all(|to| to.contains(&next)) {
                let bars = self.barred.get(&next).map_or(&[][..], |bars| bars);
                return find(&|index| bars.contains(&index)).is_none().then_some(next);
            }
            to.push(self.yielding.get(&next)?);
            passed.push(next);
        }
    }
}

fn yielding(routes: &[(Arc<Route>, &config::Route)]) -> HashMap<usize, Vec<usize>> {
    let all = routes.iter().enumerate();
    let unopened = all.filter(|(_, (_, route))| route.written_by == config::WrittenBy::Unopened);
    let yielding = unopened.map(|(index, (_, row))| {
        let own = routes.iter().enumerate().filter(|(_, (_, own))| row.yields_to(own));
        (index, own.map(|(own, _)| own).collect::<Vec<_>>())
    });
    yielding.filter(|(_, own)| !own.is_empty()).collect()
}

impl Hosts {
    fn put(&mut self, written: &config::Route, index: usize) {
        if written.hosts.is_empty() {
            self.any.get_or_insert_default().put(written, index);
        }
        for host in &written.hosts {
            let node = match host.wildcard() {
                Some(domain) => self.wildcard.entry(domain.into()).or_default(),
                None => self.exact.entry((**host).into()).or_default(),
            };
            node.put(written, index);
        }
    }
}

impl Node {
    fn put(&mut self, written: &config::Route, index: usize) {
        let mut node = self;
        for segment in &written.path.segments {
            node = match segment {
                config::Segment::Text(text) => node.text.entry(text.as_str().into()).or_default(),
                config::Segment::Parameter(_) => node.parameter.get_or_insert_default(),
            };
        }
        let methods = if written.path.open_ended { &mut node.open_ended } else { &mut node.ends };
        methods.named.extend(written.methods.iter().map(|method| (*method, index)));
        if written.methods.contains(&config::Method::Get) && !written.options.unsafe_get {
            methods.head = Some(index);
        }
    }

    /// Literal before parameter before open end, from left to right; backtracks where that leads nowhere, or
    /// to a route that is not `taken`.
    fn find(
        &self,
        method: &Method,
        segments: &[&str],
        taken: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let deeper = match segments {
            [] => self.ends.find(method, taken),
            [segment, rest @ ..] => {
                self.text.get(*segment).and_then(|node| node.find(method, rest, taken)).or_else(
                    || {
                        let node = self.parameter.as_deref().filter(|_| !segment.is_empty())?;
                        node.find(method, rest, taken)
                    },
                )
            }
        };
        deeper.or_else(|| self.open_ended.find(method, taken))
    }
}

impl Methods {
    fn find(&self, method: &Method, taken: &dyn Fn(usize) -> bool) -> Option<usize> {
        let named = |wanted| {
            let found = self.named.iter().find(|(m, _)| *m == wanted).map(|(_, index)| *index);
            found.filter(|index| taken(*index))
        };
        let head = || self.head.filter(|index| *method == Method::HEAD && taken(*index));
        // The response to TRACE is the request (RFC 9110 9.3.8), with what only the upstream may see.
        let any = || named(config::Method::Any).filter(|_| *method != Method::TRACE);
        known(method).and_then(named).or_else(head).or_else(any)
    }
}

fn known(method: &Method) -> Option<config::Method> {
    Some(match *method {
        Method::GET => config::Method::Get,
        Method::HEAD => config::Method::Head,
        Method::POST => config::Method::Post,
        Method::PUT => config::Method::Put,
        Method::PATCH => config::Method::Patch,
        Method::DELETE => config::Method::Delete,
        Method::OPTIONS => config::Method::Options,
        _ => return None,
    })
}

fn barred(
    yielding: &HashMap<usize, Vec<usize>>,
    routes: &[(Arc<Route>, &config::Route)],
) -> HashMap<usize, Vec<usize>> {
    let bars = |own: usize| {
        let all = routes.iter().enumerate();
        all.filter(|(_, (_, row))| row.bars(routes[own].1)).map(|(index, _)| index).collect()
    };
    yielding.values().flatten().map(|own| (*own, bars(*own))).collect()
}

#[cfg(test)]
mod tests;
