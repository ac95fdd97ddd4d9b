//! Which route takes a request: the most exact one, whatever the order they were written in.

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

/// A route as it is run.
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
    /// What it does.
    pub class: config::Class,
    /// What else holds for it.
    pub options: config::RouteOptions,
    /// The limits that its requests count against.
    pub limits: RouteLimits,
    /// Its query rules, ready to use.
    pub query: Query,
    /// Who may use it.
    pub access: access::Rules,
    /// Whether its requests are for a workspace, and where its path names it.
    pub workspace: workspaces::Rules,
    /// The breaker it stands behind.
    pub breaker: breaker::Handle,
    /// The segment of the path of which each value has a breaker of its own.
    pub breaker_by: Option<usize>,
    /// When that breaker opens.
    pub breaker_rules: Arc<config::Breaker>,
    /// How fast its upstream may be asked.
    pub pace: Option<Arc<pace::Rules>>,
    /// Where its upstream's paths stand among ours.
    pub url_rewrite: UrlRewrite,
    /// Whether its upstream is somebody else's.
    pub external: bool,
    /// Whether, and among whom, the same requests are one.
    pub coalesce: Option<coalesce::Rules>,
    /// Whether, and for how long, answers are kept for when the upstream fails.
    pub fallback: Option<fallback::Rules>,
    /// What it makes of bodies.
    pub body: BodyRules,
    /// What its upstream is shown.
    pub credential: Option<Arc<Credential>>,
    /// Whether its upstream decides about delivery.
    pub delivery: bool,
    /// Whether a read that failed is asked again.
    pub retries: config::Retries,
    /// Its timeouts, with those of its upstream and the defaults filled in.
    pub timeouts: Timeouts,
}

impl Route {
    /// The part of its upstream that has a breaker of its own, of a request for this path.
    pub fn breaker_part<'a>(&self, path: &'a NormalPath) -> Option<&'a str> {
        path.segments().nth(self.breaker_by?)
    }

    /// What switches are about in a request for it.
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

/// All routes of a policy, ready to be found.
#[derive(Debug, Default)]
pub struct Routes {
    all: Vec<Arc<Route>>,
    /// By listener number.
    listeners: Vec<Hosts>,
    /// Routes of presets that nobody opened, and those of the operator that they yield to.
    yielding: HashMap<usize, Vec<usize>>,
    /// Of these, the routes that presets close for good and that keep others from yielding to them.
    barred: HashMap<usize, Vec<usize>>,
}

/// The route that takes a request.
#[derive(Clone, Debug)]
pub struct Found {
    /// It.
    pub route: Arc<Route>,
    /// The more exact one of a preset that would have, had somebody opened it.
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
    /// Takes HEAD where no route names it (RFC 9110 9.3.2).
    head: Option<usize>,
}

impl Routes {
    /// Puts `routes` where they are found. `listeners` are the names of the listeners, in order;
    /// `written` says for each route what the operator wrote.
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

    /// The route that takes a request for `host` (see [`host`]) and `path`.
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

    /// The operator's route that takes a request in the place of `first`, if that yields. It is the next
    /// one in exactness, but for others that yield to it, too: what a preset opens does not take what
    /// another row of it keeps closed. And what is closed for good does not come to pass by this.
    fn instead(
        &self,
        first: usize,
        find: impl Fn(&dyn Fn(usize) -> bool) -> Option<usize>,
    ) -> Option<usize> {
        // Nearly always that is all.
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

    /// Text before parameter before open end, from left to right; back one step where that leads
    /// nowhere, or to one that is not `taken`.
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
        // The answer to TRACE is the request (RFC 9110 9.3.8), with what only the upstream may see.
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
