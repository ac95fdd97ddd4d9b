//! What a config allows: its routes and the hosts that may be called, each with its callers.

mod people;

use config::{
    Access, Choice, Class, Config, Destination, Listener, ListenerKind, Method, Name, Route,
    Segment, Workspace,
};

use self::people::{somebody, workspaces};
use super::{
    ask::Call,
    copy::{one_of, one_of_rule},
    tokens::{Mint, Person},
};

/// A target that is requested again and again.
#[derive(Clone)]
pub(super) struct Aim {
    /// What of the config it is.
    pub(super) of: String,
    /// The ways to request it, likely ones first.
    pub(super) ways: Vec<Call>,
    /// What a fault can touch of it.
    pub(super) nature: Nature,
    /// The owner of its limit: targets with the same share use it up together.
    pub(super) share: String,
}

/// What a fault can touch of an aim.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Nature {
    /// Its name is resolved, so that a poisoned response could reach it.
    pub(super) resolved: bool,
    /// Callers see a certificate of ours.
    pub(super) own_tls: bool,
    /// A certificate of elsewhere is seen.
    pub(super) their_tls: bool,
}

/// A target that was not driven, and why.
#[derive(Clone)]
pub(super) struct Skipped {
    pub(super) of: String,
    pub(super) why: String,
}

/// Callers without credentials, and users of issuers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Credential {
    Nothing,
    Token {
        issuer: String,
        person: Person,
    },
    /// User name and password.
    Password(String, String),
}

/// Everything that a config allows.
pub(super) fn all(config: &Config, mint: &Mint) -> (Vec<Aim>, Vec<Skipped>) {
    let (mut aims, mut left) = (Vec::new(), Vec::new());
    let routes = config.all_routes();
    for (name, listener) in &config.listeners {
        match listener.kind {
            ListenerKind::Reverse => {
                let on = |route: &Route| {
                    route.listeners.is_empty() || route.listeners.iter().any(|on| **on == *name)
                };
                for route in routes.iter().filter(|route| on(route)) {
                    let of = format!("route {} on {name}", route.name);
                    match unaskable(route) {
                        Some(why) => left.push(Skipped { of, why: why.to_owned() }),
                        None => aims.push(of_route(config, mint, listener, route, of)),
                    }
                }
            }
            ListenerKind::Forward => aims.extend(calls(config, mint, name, listener)),
            ListenerKind::Admin | ListenerKind::Status => {}
        }
    }
    (aims, left)
}

/// Why a route cannot be requested from outside.
fn unaskable(route: &Route) -> Option<&'static str> {
    if route.options.closed {
        return Some("closed");
    }
    if route.class == Class::Admin {
        return Some("class `admin` never passes");
    }
    if route.options.graphql.is_some() {
        return Some("its bodies are checked (`graphql`), and a drill has none to send");
    }
    method(route).is_none().then_some(match route.class {
        Class::Action => "an action without a method that could start it",
        _ => "a read that does not accept GET",
    })
}

fn method(route: &Route) -> Option<http::Method> {
    use http::Method as M;
    let takes =
        |method: Method| route.methods.contains(&method) || route.methods.contains(&Method::Any);
    let wanted: &[(Method, M)] = match route.class {
        Class::Action => &[
            (Method::Post, M::POST),
            (Method::Put, M::PUT),
            (Method::Patch, M::PATCH),
            (Method::Delete, M::DELETE),
        ],
        _ => &[(Method::Get, M::GET), (Method::Head, M::HEAD)],
    };
    wanted.iter().find(|(method, _)| takes(*method)).map(|(_, method)| method.clone())
}

fn of_route(config: &Config, mint: &Mint, listener: &Listener, route: &Route, of: String) -> Aim {
    let host = route.hosts.first().map_or_else(|| "localhost".to_owned(), one_of);
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{host}:{}", listener.address.port());
    let method = method(route).expect("it was looked for one");
    let way = |workspace: Option<(&Name, &Workspace)>, credential: Credential| {
        let path = path(route, workspace);
        let chosen = workspace.map(|(name, _)| name.to_string());
        let header = config.headers.workspace.to_string();
        let by_header = config.workspaces.choose_by.contains(&Choice::Header);
        Call::Request {
            method: method.clone(),
            url: format!("{base}{path}"),
            action: route.class == Class::Action,
            unlike: route.options.coalesce.is_some(),
            header: chosen.filter(|_| by_header).map(|chosen| (header, chosen)),
            credential,
        }
    };
    let mut ways = Vec::new();
    if route.options.public {
        ways.push(way(None, Credential::Nothing));
    }
    let nobody = Workspace::default();
    for workspace in workspaces(config, listener) {
        let known = config.workspaces.named.get(&workspace).map_or(&nobody, |w| &w.value);
        for issuer in mint.names() {
            let credential = somebody(mint, issuer, &route.options.access, &workspace, known);
            ways.push(way(Some((&workspace, known)), credential));
        }
        if !config.identity.client_certificates.is_empty() {
            ways.push(way(Some((&workspace, known)), Credential::Nothing));
        }
    }
    if ways.is_empty() {
        ways.push(way(None, Credential::Nothing));
    }
    let upstream = config.upstreams.get(&route.upstream.value);
    let nature = Nature {
        resolved: upstream.is_some_and(|up| up.external && up.url.ip().is_none()),
        own_tls: listener.tls.is_some(),
        their_tls: upstream.is_some_and(|up| up.url.tls),
    };
    Aim { of, ways, nature, share: share(config, route) }
}

/// The narrowest limit that a route's requests count against, in words.
fn share(config: &Config, route: &Route) -> String {
    let options = &route.options;
    let plugin = route.plugin.as_ref();
    let plugin = plugin
        .filter(|name| config.plugins.get(*name).is_some_and(|plugin| plugin.rate_limit.is_some()));
    match (&options.rate_limit, plugin, &options.bucket, options.public) {
        (Some(_), ..) => format!("route `{}`", route.name),
        (_, _, Some(bucket), true) => format!("bucket `{bucket}` of clients"),
        (_, _, None, true) => "clients".to_owned(),
        (_, Some(plugin), ..) => format!("plugin `{plugin}`"),
        (_, None, Some(bucket), false) => format!("bucket `{bucket}` of workspaces"),
        (_, None, None, false) => "workspaces".to_owned(),
    }
}

/// A path that matches a route.
fn path(route: &Route, workspace: Option<(&Name, &Workspace)>) -> String {
    let mut path = String::new();
    for segment in &route.path.segments {
        path.push('/');
        match segment {
            Segment::Text(text) => path += text,
            Segment::Parameter(parameter) => path += &value(route, parameter, workspace),
        }
    }
    if route.path.open_ended {
        path += "/drill";
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

/// The value of a parameter: one of the workspace's own resources, if that is required.
fn value(route: &Route, parameter: &str, workspace: Option<(&Name, &Workspace)>) -> String {
    let kind = route.options.resources.iter().find(|(_, named)| *named == parameter);
    let own = kind.and_then(|(kind, _)| workspace?.1.resources.get(kind)?.first().cloned());
    if let Some(own) = own {
        return own.replace('*', "drill");
    }
    match workspace {
        Some((name, _)) if parameter == "workspace" => name.to_string(),
        _ => "drill".to_owned(),
    }
}

/// The hosts that the rules allow someone to call.
fn calls(config: &Config, mint: &Mint, name: &Name, listener: &Listener) -> Vec<Aim> {
    let egress = &config.egress;
    let mut credential = vec![Credential::Nothing];
    for (caller, written) in &egress.callers {
        let password = std::fs::read_to_string(&*written.password_file).unwrap_or_default();
        credential.push(Credential::Password(caller.to_string(), password));
    }
    for workspace in workspaces(config, listener) {
        let known = config.workspaces.named.get(&workspace);
        let nobody = Workspace::default();
        let known = known.map_or(&nobody, |known| &known.value);
        for issuer in mint.names() {
            credential.push(somebody(mint, issuer, &Access::default(), &workspace, known));
        }
    }
    let mut aims = Vec::new();
    for rule in &egress.rules {
        let hosts = rule.to.iter().flat_map(|to| match &to.value {
            Destination::Host(host) => vec![host],
            Destination::Group(group) => {
                egress.hosts.get(group).into_iter().flatten().map(|host| &host.value).collect()
            }
        });
        for host in hosts {
            let tunnel = egress.tls_ports.contains(&host.port);
            let way = |credential: &Credential| Call::Out {
                proxy: listener.address,
                proxy_tls: listener.tls.is_some(),
                host: one_of_rule(host),
                port: host.port,
                tunnel,
                credential: credential.clone(),
            };
            aims.push(Aim {
                of: format!("{} of rule {} on {name}", one_of_rule(host), rule.name),
                ways: credential.iter().map(way).collect(),
                nature: Nature {
                    resolved: host.ip().is_none(),
                    own_tls: listener.tls.is_some(),
                    their_tls: tunnel,
                },
                share: "calls".to_owned(),
            });
        }
    }
    aims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aims(config: &str) -> (Vec<Aim>, Vec<Skipped>) {
        let text = format!(
            "version: stagedoor/v1\nlisteners: {{e: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
             upstreams: {{up: {{url: 'http://a'}}}}\n{config}"
        );
        let loaded = config::parse("s.yaml", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut mint = Mint::default();
        for (name, issuer) in &loaded.config.identity.issuers {
            mint.add(name, issuer, None);
        }
        all(&loaded.config, &mint)
    }

    #[test]
    fn a_route_is_requested_by_callers_that_it_admits() {
        let (aims, left) = aims(
            "identity: {issuers: {i: {issuer: 'https://i', audiences: [a]}}}\n\
             workspaces: {named: {w: {groups: [g], resources: {stack: ['w-*']}}}}\n\
             routes:\n\
             - {name: r, hosts: ['*.a.example'], methods: [ANY], path: '/{workspace}/{stack}/{x}/**', upstream: up, class: action, options: {access: {roles: [deployer], groups: [h]}, resources: {stack: stack}}}\n",
        );
        assert!(left.is_empty());
        let [Call::Request { method, url, action, header, credential, .. }] = &aims[0].ways[..]
        else {
            panic!("there is one way")
        };
        assert_eq!((method.as_str(), *action), ("POST", true));
        assert_eq!(url, "http://drill.a.example:1/w/w-drill/drill/drill");
        assert_eq!(header.as_ref().map(|(_, value)| value.as_str()), Some("w"));
        let text = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let person = Person {
            subject: "drill".to_owned(),
            roles: text(&["deployer"]),
            groups: text(&["g", "h"]),
            workspaces: Vec::new(),
        };
        assert_eq!(*credential, Credential::Token { issuer: "i".to_owned(), person });
    }

    #[test]
    fn what_cannot_be_requested_has_a_reason() {
        let (aims, left) = aims(
            "routes:\n\
             - {name: closed, methods: [GET], path: /a, upstream: up, class: read, options: {closed: true, public: true}}\n\
             - {name: posted, methods: [POST], path: /b, upstream: up, class: read, options: {public: true}}\n\
             - {name: open, methods: [HEAD], path: /, upstream: up, class: read, options: {public: true}}\n",
        );
        assert_eq!(aims.len(), 1);
        assert_eq!(aims[0].of, "route open on e");
        let left: Vec<_> = left.iter().map(|left| (&*left.of, &*left.why)).collect();
        let expected = [
            ("route closed on e", "closed"),
            ("route posted on e", "a read that does not accept GET"),
        ];
        assert_eq!(left, expected);
    }
}
