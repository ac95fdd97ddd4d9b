//! What the config means: every filter, ready for use. It never changes; a reload makes a new one.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    Label,
    checks::{
        access,
        body::BodyRules,
        plugins::Plugins,
        workspaces::{self, Workspaces},
    },
    egress::{Egress, allowlist::Allowlist, guard::Guard},
    identity::{self, Caller, Identity, credentials::Credential, headers::Headers},
    limits::{
        pace,
        rate_limit::{RateLimits, RouteLimits},
    },
    pipeline::routes::{Route, Routes},
    request::query::Query,
    response::{coalesce, fallback, url_rewrite::UrlRewrite},
    upstream::breaker,
};

/// What the config means.
pub struct Policy {
    /// SHA-256 of the config files, in hex: any decision can be traced to them.
    pub digest: Label,
    /// The listeners, in the config's order.
    pub listeners: Vec<Listener>,
    /// Which route matches a request.
    pub routes: Routes,
    /// Who is calling.
    pub identity: Identity,
    /// For which workspace.
    pub workspaces: Workspaces,
    /// Whether the plugin is on.
    pub plugins: Plugins,
    /// Which hosts may be called.
    pub allowlist: Allowlist,
    /// The rules that apply to every outbound call.
    pub egress: Egress,
    /// Which addresses may be dialled.
    pub guard: Guard,
    /// The rate limits.
    pub rate_limits: RateLimits,
    /// The identity headers for upstreams.
    pub headers: Headers,
}

/// The parts of a listener that decisions read.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: Label,
    /// The proxies in front of it.
    pub trusted_proxies: Vec<IpNet>,
    /// The origins that may read its responses.
    pub cors: Option<Arc<config::Cors>>,
    /// The maximum request body in bytes, unless a route has its own.
    pub body_max: u64,
    /// The caller of calls without other proof, on a forward listener that assigns one.
    pub caller: Option<Arc<Caller>>,
    /// The plugin of every call on it.
    pub plugin: Option<Label>,
    /// Whether what the rules refuse is allowed and recorded.
    pub report_only: bool,
}

impl Policy {
    /// Cannot fail: a config that exists is valid. `digest` is that of its texts.
    pub fn new(written: &config::Config, digest: &str) -> Self {
        let names: Vec<&str> = written.listeners.keys().map(|name| &**name).collect();
        Self {
            digest: Label::lossy(digest),
            listeners: written.listeners.iter().map(|(name, l)| listener(name, l)).collect(),
            routes: Routes::new(&names, routes(written, &written.all_routes())),
            identity: Identity::new(written),
            workspaces: Workspaces::new(written),
            plugins: Plugins::new(written),
            allowlist: Allowlist::new(&written.egress),
            egress: Egress::new(&written.egress),
            guard: Guard::new(&written.egress),
            rate_limits: RateLimits::new(written),
            headers: Headers::new(&written.headers, &written.identity),
        }
    }

    /// The number of the listener with this name, for [`crate::Head::listener`].
    pub fn listener(&self, name: &str) -> Option<usize> {
        self.listeners.iter().position(|listener| *listener.name == *name)
    }
}

fn listener(name: &config::Name, written: &config::Listener) -> Listener {
    Listener {
        name: name.into(),
        trusted_proxies: written.trusted_proxies.clone(),
        cors: written.cors.as_ref().map(|cors| Arc::new(cors.value.clone())),
        body_max: written.limits.body_max.bytes(),
        caller: identity::of_listener(name, written)
            .filter(|_| written.kind == config::ListenerKind::Forward),
        plugin: written.plugin.as_ref().map(Label::from),
        report_only: written.report_only,
    }
}

fn routes<'a>(
    written: &config::Config,
    all: &'a [Cow<'_, config::Located<config::Route>>],
) -> Vec<(Arc<Route>, &'a config::Route)> {
    // If several plugins share an upstream, or it has several hosts, each has its own breaker.
    let mut plugins: HashMap<&config::Name, HashSet<Option<&config::Name>>> = HashMap::new();
    let mut hosts: HashMap<&config::Name, HashSet<Option<Label>>> = HashMap::new();
    for route in all {
        let upstream = &route.upstream.value;
        plugins.entry(upstream).or_default().insert(route.plugin.as_ref());
        if written.upstreams[upstream].preserve_host {
            hosts.entry(upstream).or_default().insert(hosts_of(route));
        }
    }
    let several_hosts = |upstream| hosts.get(upstream).is_some_and(|hosts| hosts.len() > 1);
    let credentials: HashMap<&config::Name, Arc<Credential>> = written
        .credentials
        .iter()
        .map(|(name, credential)| (name, Arc::new(Credential::new(name, credential))))
        .collect();
    let breakers: HashMap<&config::Name, Arc<config::Breaker>> = written
        .upstreams
        .iter()
        .map(|(name, upstream)| (name, Arc::new(written.breaker(name, upstream))))
        .collect();
    let paces: HashMap<&config::Name, Option<Arc<pace::Rules>>> = written
        .upstreams
        .iter()
        .map(|(name, upstream)| (name, pace::Rules::of(upstream)))
        .collect();
    all.iter()
        .enumerate()
        .map(|(index, located)| {
            let route = &located.value;
            let upstream = &written.upstreams[&route.upstream.value];
            let shared = plugins[&route.upstream.value].len() > 1;
            let label = Label::from(&route.upstream.value);
            let plugin = route.plugin.as_ref().map(Label::from);
            let run = Route {
                name: (&route.name).into(),
                index,
                place: located.place.to_string().into(),
                template: route.path.to_string().into(),
                breaker: breaker::Handle::new(breaker::Key {
                    upstream: label.clone(),
                    plugin: plugin.clone().filter(|_| shared),
                    host: hosts_of(route).filter(|_| several_hosts(&route.upstream.value)),
                    part: None,
                }),
                breaker_by: route
                    .options
                    .breaker_by
                    .as_ref()
                    .and_then(|parameter| segment_of(&route.path, parameter)),
                breaker_rules: Arc::clone(&breakers[&route.upstream.value]),
                upstream: label,
                plugin,
                class: route.class,
                limits: RouteLimits::new(written, route),
                query: Query::from(&route.options.query),
                access: access::Rules {
                    route: (&route.name).into(),
                    class: route.class,
                    closed: route.options.closed,
                    upgrade: route.options.upgrade,
                    access: route.options.access.clone(),
                    resources: resources(route),
                },
                workspace: workspaces::Rules {
                    need: route.options.workspace,
                    segment: segment_of(&route.path, "workspace"),
                },
                pace: paces[&route.upstream.value].clone(),
                url_rewrite: UrlRewrite::new(&upstream.url, route.options.strip_prefix.as_ref()),
                external: upstream.external,
                coalesce: route
                    .options
                    .coalesce
                    .map(|written| coalesce::Rules::new(written, route, upstream.external)),
                fallback: fallback::Rules::of(route.options.fallback, upstream),
                body: BodyRules::new(
                    route,
                    upstream.credential.as_ref().and_then(|named| {
                        written.credentials.get_key_value(&named.value).map(|(n, c)| (n, &c.value))
                    }),
                ),
                credential: upstream
                    .credential
                    .as_ref()
                    .map(|named| Arc::clone(&credentials[&named.value])),
                delivery: upstream.authority == config::Authority::Delivery,
                retries: upstream.retries,
                timeouts: route.options.timeouts.or(upstream.timeouts).into(),
                options: route.options.clone(),
            };
            (Arc::new(run), route)
        })
        .collect()
}

/// The hosts of a route, as one label.
fn hosts_of(route: &config::Route) -> Option<Label> {
    let mut hosts: Vec<&str> = route.hosts.iter().map(|host| &**host).collect();
    hosts.sort_unstable();
    (!hosts.is_empty()).then(|| Label::lossy(&hosts.join(",")))
}

/// Which segment of a path is the parameter of this name.
fn segment_of(path: &config::PathTemplate, name: &str) -> Option<usize> {
    let is_it = |s: &config::Segment| matches!(s, config::Segment::Parameter(own) if own == name);
    path.segments.iter().position(is_it)
}

fn resources(route: &config::Route) -> Vec<(Label, usize)> {
    let named = route.options.resources.iter();
    named
        .map(|(kind, parameter)| {
            let segment = segment_of(&route.path, parameter);
            (kind.into(), segment.expect("a config's resources name parameters of the path"))
        })
        .collect()
}
