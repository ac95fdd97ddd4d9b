//! Changes that would allow what is refused.

use std::sync::Arc;

use config::{Config, Located, Name};
use http::Method;

use super::{
    super::{Decided, record::Record},
    edit::{Edit, RouteOwner, access, edit, member, option, whose, workspace_in, workspace_of},
};
use crate::{Denial, Policy};

/// The changes that would allow it.
pub(super) fn opening(
    config: &Config,
    record: &Record<'_>,
    decided: &Decided,
    denial: &Denial,
) -> Vec<Edit> {
    let exchange = &decided.exchange;
    let caller = exchange.caller.as_deref();
    let mut edits = Vec::new();
    match denial {
        Denial::AccessDenied { route } => {
            let Some(caller) = caller else { return edits };
            edits.extend(access(config, route, "callers", &caller.subject));
            edits.extend(caller.groups.iter().flat_map(|g| access(config, route, "groups", g)));
            edits.extend(caller.roles.iter().flat_map(|r| access(config, route, "roles", r)));
        }
        Denial::PluginDisabled { plugin, workspace } => {
            let Ok(name) = Name::new(plugin) else { return edits };
            if let Some((key, declared)) = workspace_of(config, workspace) {
                let plugin = name.clone();
                edits.push(edit(
                    &declared,
                    format!("workspaces.named.{workspace}.plugins.{plugin}: true"),
                    move |config| {
                        workspace_in(config, &key).plugins.insert(plugin.clone(), true);
                    },
                ));
            }
            edits.push(edit("", format!("plugins.{name}.enabled_percent: 100"), move |config| {
                if let Some(plugin) = config.plugins.get_mut(&name) {
                    plugin.enabled_percent = config::Percent(100);
                }
            }));
        }
        Denial::WorkspaceNotGranted { workspace } => {
            let (Some(caller), Some((key, place))) = (caller, workspace_of(config, workspace))
            else {
                return edits;
            };
            edits.push(member(&key, &place, "callers", &caller.subject));
            edits.extend(caller.groups.iter().map(|group| member(&key, &place, "groups", group)));
        }
        Denial::WorkspaceUnknown { workspace } => {
            let Ok(name) = Name::new(workspace) else { return edits };
            let subject = caller.map(|caller| caller.subject.to_string());
            for callers in [None, subject] {
                let (name, callers) = (name.clone(), callers.into_iter().collect::<Vec<_>>());
                edits.push(edit(
                    "",
                    format!("workspaces.named.{name}: {{callers: [{}]}}", callers.join(", ")),
                    move |config| {
                        let new =
                            config::Workspace { callers: callers.clone(), ..Default::default() };
                        let named = Arc::make_mut(&mut config.workspaces.named);
                        named.insert(name.clone(), Located::nowhere(new));
                    },
                ));
            }
            edits.push(edit("", "workspaces.undeclared: true".into(), |config| {
                config.workspaces.undeclared = true;
            }));
        }
        Denial::WorkspaceMissing => {
            let route = exchange.route.as_deref().map_or("", |route| &route.name);
            edits.extend(option(config, route, "workspace: optional", |options| {
                options.workspace = config::WorkspaceNeed::Optional;
            }));
        }
        Denial::RouteClosed { route } => edits.extend(unclosed(config, route)),
        Denial::UpgradeRefused { route } => {
            edits.extend(option(config, route, "upgrade: true", |options| options.upgrade = true));
        }
        Denial::PathAmbiguous { .. } => {
            if let Some(route) = exchange.route.as_deref() {
                let set = |options: &mut config::RouteOptions| options.encoded_slashes = true;
                edits.extend(option(config, &route.name, "encoded_slashes: true", set));
            }
        }
        Denial::QueryRefused { parameter } => {
            let route = exchange.route.as_deref().map_or("", |route| &route.name);
            let name = parameter.to_string();
            let change = format!("query.allow: remove the rule for `{name}`");
            edits.extend(option(config, route, &change, move |options| {
                options.query.allow.shift_remove(&name);
            }));
        }
        Denial::ResourceRefused { kind, name } => {
            let workspace = exchange.workspace.as_ref().map(|w| workspace_of(config, &w.name));
            let (Some(Some((key, place))), Ok(kind)) = (workspace, Name::new(kind)) else {
                return edits;
            };
            let name = name.to_string();
            edits.push(edit(
                &place,
                format!("workspaces.named.{key}.resources.{kind}: add `{name}`"),
                move |config| {
                    let own = &mut workspace_in(config, &key).resources;
                    own.entry(kind.clone()).or_default().push(name.clone());
                },
            ));
        }
        Denial::GraphqlRefused { operation, field } => {
            let route = exchange.route.as_deref().map_or("", |route| &route.name);
            let subject = caller.map(|caller| caller.subject.to_string());
            for callers in [subject.into_iter().collect::<Vec<_>>(), Vec::new()] {
                let rule = serde_json::json!({
                    *operation: [&**field], "access": {"callers": callers},
                });
                let who = if callers.is_empty() { "anybody" } else { "this caller" };
                let change = format!("graphql: a rule `{{{operation}: [{field}]}}` for {who}");
                edits.extend(option(config, route, &change, move |options| {
                    let rule = serde_json::from_value(rule.clone()).ok();
                    if let Some(rules) = &mut options.graphql {
                        rules.extend(rule);
                    }
                }));
            }
        }
        Denial::RouteUnknown => edits.extend(routes(config, record)),
        Denial::HostUnknown { host } => edits.extend(hosts(config, host)),
        Denial::HostRefused { .. } => edits.extend(egress(config, decided)),
        Denial::AddressRefused { target, address, .. } => {
            let wanted = (target.parse::<config::HostRule>(), address.parse::<ipnet::IpNet>());
            let net = wanted.1.or_else(|_| address.parse::<std::net::IpAddr>().map(Into::into));
            if let (Ok(host), Ok(net)) = (wanted.0, net) {
                edits.push(edit(
                    "",
                    format!("egress.private: add {{host: '{target}', addresses: [{net}]}}"),
                    move |config| {
                        config.egress.private.push(Located::nowhere(config::PrivateAddresses {
                            host: Located::nowhere(host.clone().into()),
                            addresses: vec![net],
                            owner: None,
                            reason: None,
                            expires: None,
                        }));
                    },
                ));
            }
        }
        Denial::HelloRefused { .. } => {
            edits.push(edit("", "egress.encrypted_client_hello: report".into(), |config| {
                config.egress.encrypted_client_hello = config::EncryptedClientHello::Report;
            }));
            if let Some(called) = &exchange.call {
                let port = called.target.port;
                edits.push(edit(
                    "",
                    format!(
                        "egress.tls_ports: without {port} (such tunnels are then not inspected)"
                    ),
                    move |config| config.egress.tls_ports.retain(|one| *one != port),
                ));
            }
        }
        _ => {}
    }
    edits
}

fn unclosed(config: &Config, route: &str) -> Vec<Edit> {
    let Some((RouteOwner::Preset(at, name), place)) = whose(config, route) else {
        let own = |options: &mut config::RouteOptions| options.closed = false;
        return option(config, route, "closed: false", own).into_iter().collect();
    };
    let listed = config.presets[at].close.iter().any(|one| **one == name);
    if listed {
        return vec![edit(&place, format!("close: without `{name}`"), move |config| {
            config.presets[at].value.close.retain(|one| **one != name);
        })];
    }
    vec![edit(&place, format!("open: [{name}]"), move |config| {
        config.presets[at].value.open.push(Located::nowhere(name.clone()));
    })]
}

/// Another method for a route that has the path, else a new route.
fn routes(config: &Config, record: &Record<'_>) -> Vec<Edit> {
    let upper = record.method.to_string();
    let method: Option<config::Method> =
        serde_json::from_value(serde_json::Value::String(upper.clone())).ok();
    let (Some(method), Some(path)) = (method, record.path.as_deref()) else { return Vec::new() };
    let mut edits = Vec::new();
    for at in with_other_methods(config, record) {
        let place = config.routes[at].place.to_string();
        edits.push(edit(&place, format!("methods: add {upper}"), move |config| {
            config.routes[at].value.methods.push(method);
        }));
    }
    let Ok(template) = path.parse::<config::PathTemplate>() else { return edits };
    let reads = matches!(record.method.parse(), Ok(Method::GET | Method::HEAD | Method::OPTIONS));
    let class = if reads { config::Class::Read } else { config::Class::Action };
    for upstream in config.upstreams.keys().take(UPSTREAMS_MAX) {
        let (upstream, template) = (upstream.clone(), template.clone());
        let class_name = class.name();
        edits.push(edit("",
            format!(
                "routes: add {{name: opened, methods: [{upper}], path: '{path}', upstream: {upstream}, class: {class_name}}}"
            ),
            move |config| {
                config.routes.push(Located::nowhere(config::Route {
                    name: Name::new("opened").expect("it is a name"),
                    listeners: Vec::new(),
                    hosts: Vec::new(),
                    methods: vec![method],
                    path: template.clone(),
                    upstream: Located::nowhere(upstream.clone()),
                    plugin: None,
                    class,
                    options: config::RouteOptions::default(),
                    written_by: config::WrittenBy::Operator,
                }));
            },
        ));
    }
    edits
}

/// The operator's routes that match the same path with other methods.
fn with_other_methods(config: &Config, record: &Record<'_>) -> Vec<usize> {
    let policy = Policy::new(config, "now");
    let Some(listener) = policy.listener(&record.listener) else { return Vec::new() };
    let host = record.host.as_deref().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host).to_ascii_lowercase();
    let path = record.path.as_deref().unwrap_or_default();
    let Ok(path) = crate::request::normal_form::NormalPath::of(path.as_bytes()) else {
        return Vec::new();
    };
    let others = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let found = others.iter().filter_map(|method| {
        let route = policy.routes.find(listener, &host, method, &path).ok()?.route;
        config.routes.iter().position(|own| *own.name == *route.name)
    });
    let mut found: Vec<usize> = found.collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The maximum of upstreams that a new route is tried with.
const UPSTREAMS_MAX: usize = 3;

/// The host, added to routes that are for other hosts now.
fn hosts(config: &Config, host: &str) -> Vec<Edit> {
    let Ok(host) = host.parse::<config::HostPattern>() else { return Vec::new() };
    let change = format!("hosts: add `{host}`");
    let mut edits = Vec::new();
    for (at, own) in config.routes.iter().enumerate().filter(|(_, own)| !own.hosts.is_empty()) {
        let host = host.clone();
        edits.push(edit(&own.place.to_string(), change.clone(), move |config| {
            config.routes[at].value.hosts.push(host.clone());
        }));
    }
    for (at, used) in config.presets.iter().enumerate().filter(|(_, used)| !used.hosts.is_empty()) {
        let host = host.clone();
        edits.push(edit(&used.place.to_string(), change.clone(), move |config| {
            config.presets[at].value.hosts.push(host.clone());
        }));
    }
    edits
}

/// A rule for other callers, or an expired one, extended to this caller; else a new one.
fn egress(config: &Config, decided: &Decided) -> Vec<Edit> {
    let exchange = &decided.exchange;
    let Some(called) = &exchange.call else { return Vec::new() };
    let target = called.target.to_string();
    let plugin = called.plugin.as_ref().and_then(|plugin| Name::new(plugin).ok());
    let workspace = exchange.workspace.as_ref().and_then(|w| Name::new(&w.name).ok());
    let mut edits = Vec::new();
    for (at, rule) in config.egress.rules.iter().enumerate() {
        let place = rule.place.to_string();
        let lacks_plugin = plugin.clone().filter(|_| !rule.plugins.is_empty());
        let lacks_workspace = workspace.clone().filter(|_| !rule.workspaces.is_empty());
        let mut added = Vec::new();
        if let Some(plugin) = &lacks_plugin {
            added.push(format!("plugins: add {plugin}"));
        }
        if let Some(workspace) = &lacks_workspace {
            added.push(format!("workspaces: add {workspace}"));
        }
        if !added.is_empty() {
            let change = format!("egress.rules `{}`: {}", rule.name, added.join(", "));
            edits.push(edit(&place, change, move |config| {
                let rule = &mut config.egress.rules[at].value;
                rule.plugins.extend(lacks_plugin.clone().filter(|p| !rule.plugins.contains(p)));
                let is_new = |w: &Name| !rule.workspaces.iter().any(|one| one.value == *w);
                let new = lacks_workspace.clone().filter(is_new).map(Located::nowhere);
                rule.workspaces.extend(new);
            }));
        }
        if rule.expires.is_some() {
            let change = format!("egress.rules `{}`: a later `expires`", rule.name);
            edits.push(edit(&place, change, move |config| {
                config.egress.rules[at].value.expires = None;
            }));
        }
    }
    let Ok(to) = target.parse::<config::HostRule>() else { return edits };
    let mut more = String::new();
    if let Some(plugin) = &plugin {
        more += &format!(", plugins: [{plugin}]");
    }
    if let Some(workspace) = &workspace {
        more += &format!(", workspaces: [{workspace}]");
    }
    let name = Name::new("opened").expect("it is a name");
    edits.push(edit(
        "",
        format!("egress.rules: add {{name: {name}, to: ['{target}']{more}}}"),
        move |config| {
            config.egress.rules.push(Located::nowhere(config::EgressRule {
                name: name.clone(),
                to: vec![Located::nowhere(config::Destination::Host(to.clone()))],
                plugins: plugin.clone().into_iter().collect(),
                workspaces: workspace.clone().into_iter().map(Located::nowhere).collect(),
                report_only: false,
                owner: None,
                reason: None,
                expires: None,
            }));
        },
    ));
    edits
}
