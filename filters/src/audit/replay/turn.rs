//! The smallest changes to a config that would turn a decision on record. Each is proven: it is made
//! to the config, and the same functions decide again.

use std::sync::Arc;

use config::{Access, Config, Located, Name};
use http::Method;

use super::{Decided, Replay, Why, record::Record};
use crate::{Denial, Policy};

/// Changes that are tried. Each makes a policy.
const TRIED_MAX: usize = 100;

/// A change that turns a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Where it is to be made, as `file:line:column`; empty where nothing is written yet.
    pub place: String,
    /// What is to be written there.
    pub change: String,
    /// What it does not settle, because it is not on record.
    pub unsettled: Option<&'static str>,
}

/// A change that may.
struct Edit {
    place: String,
    change: String,
    apply: Box<dyn Fn(&mut Config)>,
}

/// The changes to `config` that turn what `decided` says of `record`, the narrowest first.
pub fn turns(config: &Config, record: &Record<'_>, decided: &Decided) -> Vec<Turn> {
    let edits = match &decided.denial {
        Some(denial) => opening(config, record, decided, denial),
        None => closing(config, decided),
    };
    let denied = decided.denial.is_some();
    edits
        .into_iter()
        .take(TRIED_MAX)
        .filter_map(|edit| proven(config, record, edit, denied))
        .collect()
}

/// What cannot be turned, and why; `None` if nothing says so.
pub fn settled(config: &Config, decided: &Decided) -> Option<String> {
    let denial = decided.denial.as_ref()?;
    let delivery = decided.exchange.route.as_ref().is_some_and(|route| route.delivery);
    Some(match denial {
        Denial::ClassAdmin { .. } => {
            "requests of class admin never pass, for any caller: no setting opens them".into()
        }
        Denial::RouteClosed { route } if delivery => format!(
            "`{route}` is closed for good if the upstream decides about delivery, unless its preset can open it"
        ),
        Denial::RouteClosed { route } => match whose(config, route) {
            Some((Whose::Preset(_, name), _)) => {
                format!(
                    "`{name}` may be closed for good by its preset: `open` can open only routes that the preset leaves to you"
                )
            }
            _ => return None,
        },
        Denial::PathAmbiguous { .. } => "the client must write the path in its normal form".into(),
        Denial::HostInvalid => "the client must name a host".into(),
        Denial::TargetInvalid(_) => "the client must name a host and a port".into(),
        Denial::WorkspaceAmbiguous => "the client must name one workspace".into(),
        Denial::AuthorizationAmbiguous => "the client must send one token".into(),
        Denial::IdempotencyKeyInvalid => "the client must send one `Idempotency-Key`".into(),
        Denial::GraphqlMalformed { .. } => "the client must send one operation, as JSON".into(),
        Denial::QueryRefused { parameter } => format!(
            "the value of `{parameter}` is recorded only as a fingerprint; if you know it, add it to the values that the route allows"
        ),
        Denial::WorkspaceMissing => {
            "the client can name a workspace that its caller is a member of, in the header".into()
        }
        Denial::HelloRefused { .. } => "the client must use TLS and name the requested host".into(),
        _ => return None,
    })
}

fn proven(config: &Config, record: &Record<'_>, edit: Edit, denied: bool) -> Option<Turn> {
    let mut changed = config.clone();
    (edit.apply)(&mut changed);
    let decided = Replay::new(Policy::new(&changed, "changed")).decide(record);
    let unsettled = match decided {
        Ok(decided) if decided.denial.is_none() == denied => decided.unjudged,
        // It comes further than before.
        Err(Why::NoCaller) if denied => Some("who called, and so what they may do"),
        _ => return None,
    };
    // Last, as it costs the most.
    is_valid(config, &changed).then_some(Turn { place: edit.place, change: edit.change, unsettled })
}

/// Whether the config loads with the change, if it would without.
fn is_valid(before: &Config, after: &Config) -> bool {
    let loads = |config: &Config| {
        let text = serde_json::to_string(config).expect("a config is data");
        config::parse("changed", &text).is_ok()
    };
    loads(after) || !loads(before)
}

/// Who wrote a route.
enum Whose {
    /// The operator: its number.
    Own(usize),
    /// A preset: the number of its use, and the route's name within.
    Preset(usize, Name),
}

fn whose(config: &Config, route: &str) -> Option<(Whose, String)> {
    if let Some(at) = config.routes.iter().position(|own| *own.name == *route) {
        return Some((Whose::Own(at), config.routes[at].place.to_string()));
    }
    config.presets.iter().enumerate().find_map(|(at, used)| {
        let short = route.strip_prefix(used.prefix_of_names())?.strip_prefix('.')?;
        let preset = config::Preset::named(&used.preset)?;
        let found = preset.routes.iter().find(|one| *one.name == *short)?;
        Some((Whose::Preset(at, found.name.clone()), used.place.to_string()))
    })
}

fn edit(place: &str, change: String, apply: impl Fn(&mut Config) + 'static) -> Edit {
    Edit { place: place.to_owned(), change, apply: Box::new(apply) }
}

/// What would let it through.
fn opening(config: &Config, record: &Record<'_>, decided: &Decided, denial: &Denial) -> Vec<Edit> {
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
            edits.push(edit("", "egress.encrypted_hello: report".into(), |config| {
                config.egress.encrypted_hello = config::EncryptedHello::Report;
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

/// What would refuse it.
fn closing(config: &Config, decided: &Decided) -> Vec<Edit> {
    let exchange = &decided.exchange;
    let mut edits = Vec::new();
    let called = exchange.call.as_ref();
    let route = exchange.route.as_deref();
    let plugin = called.and_then(|c| c.plugin.as_ref()).or(route.and_then(|r| r.plugin.as_ref()));
    let workspace = exchange.workspace.as_ref().and_then(|w| workspace_of(config, &w.name));
    if let (Some(Ok(plugin)), Some((key, place))) = (plugin.map(|p| Name::new(p)), &workspace) {
        let key = key.clone();
        edits.push(edit(
            place,
            format!("workspaces.named.{key}.plugins.{plugin}: false"),
            move |config| {
                workspace_in(config, &key).plugins.insert(plugin.clone(), false);
            },
        ));
    }
    if let (Some(route), Some(caller)) = (route, exchange.caller.as_deref()) {
        let asked = &route.options.access;
        let held = |own: &[crate::Label], wanted: &[String]| -> Vec<String> {
            wanted.iter().filter(|w| own.iter().any(|own| **own == ***w)).cloned().collect()
        };
        let named = held(std::slice::from_ref(&caller.subject), &asked.callers);
        let (roles, groups) =
            (held(&caller.roles, &asked.roles), held(&caller.groups, &asked.groups));
        let all: Vec<String> = [named, groups, roles].concat();
        if !all.is_empty() {
            let change = format!("access: without {}", quoted(&all));
            edits.extend(access_change(config, &route.name, &change, move |access| {
                for list in [&mut access.callers, &mut access.groups, &mut access.roles] {
                    list.retain(|one| !all.contains(one));
                }
                if access.is_open() {
                    // An empty list is for everybody.
                    access.callers.push("nobody".to_owned());
                }
            }));
        }
        if let Some((key, place)) = workspace {
            let declared = &config.workspaces.named[&key];
            let groups = held(&caller.groups, &declared.groups);
            let callers = held(std::slice::from_ref(&caller.subject), &declared.callers);
            let all: Vec<String> = [callers, groups].concat();
            if !all.is_empty() {
                let change = format!("workspaces.named.{key}: without {} as members", quoted(&all));
                edits.push(edit(&place, change, move |config| {
                    let declared = workspace_in(config, &key);
                    declared.groups.retain(|one| !all.contains(one));
                    declared.callers.retain(|one| !all.contains(one));
                }));
            }
        }
    }
    if let Some(route) = route {
        edits.extend(option(config, &route.name, "closed: true", |options| options.closed = true));
        if let Some((Whose::Preset(at, name), place)) = whose(config, &route.name) {
            edits.push(edit(&place, format!("close: [{name}]"), move |config| {
                config.presets[at].value.close.push(Located::nowhere(name.clone()));
            }));
        }
    }
    if let Some(rule) = called.and_then(|called| called.rule.as_ref()) {
        let name = rule.name.clone();
        edits.push(edit(
            &rule.place,
            format!("egress.rules: without `{name}`, or for other plugins and workspaces"),
            move |config| config.egress.rules.retain(|rule| *rule.name != *name),
        ));
    }
    edits
}

fn quoted(all: &[String]) -> String {
    all.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ")
}

fn workspace_of(config: &Config, name: &str) -> Option<(Name, String)> {
    let (key, declared) = config.workspaces.named.get_key_value(name)?;
    Some((key.clone(), declared.place.to_string()))
}

/// A workspace that the config declares, to be changed.
fn workspace_in<'a>(config: &'a mut Config, key: &Name) -> &'a mut config::Workspace {
    &mut Arc::make_mut(&mut config.workspaces.named)[key].value
}

fn member(key: &Name, place: &str, list: &'static str, who: &str) -> Edit {
    let (key, who) = (key.clone(), who.to_owned());
    edit(place, format!("workspaces.named.{key}.{list}: add `{who}`"), move |config| {
        let declared = workspace_in(config, &key);
        let to = if list == "groups" { &mut declared.groups } else { &mut declared.callers };
        to.push(who.clone());
    })
}

fn access(config: &Config, route: &str, list: &'static str, who: &str) -> Vec<Edit> {
    let who = who.to_owned();
    access_change(config, route, &format!("access.{list}: add `{who}`"), move |access| {
        let to = match list {
            "roles" => &mut access.roles,
            "groups" => &mut access.groups,
            _ => &mut access.callers,
        };
        to.push(who.clone());
    })
}

/// A change to who may use a route; to each of its GraphQL rules, too, if it has some.
fn access_change(
    config: &Config,
    route: &str,
    change: &str,
    apply: impl Fn(&mut Access) + Clone + 'static,
) -> Vec<Edit> {
    match whose(config, route) {
        None => Vec::new(),
        Some((Whose::Own(at), place)) => {
            let rules = config.routes[at].options.graphql.as_ref().map_or(0, Vec::len);
            let of_rules = (0..rules).map(|nth| {
                let apply = apply.clone();
                edit(&place, format!("options.graphql[{nth}].{change}"), move |config| {
                    if let Some(rules) = &mut config.routes[at].value.options.graphql {
                        apply(&mut rules[nth].access);
                    }
                })
            });
            let of_rules: Vec<Edit> = of_rules.collect();
            let own = edit(&place, format!("options.{change}"), move |config| {
                apply(&mut config.routes[at].value.options.access);
            });
            std::iter::once(own).chain(of_rules).collect()
        }
        Some((Whose::Preset(at, name), place)) => {
            let Some(now) = config.all_routes().into_iter().find(|r| *r.name == *route) else {
                return Vec::new();
            };
            let before = now.options.access.clone();
            vec![edit(&place, format!("routes.{name}.{change}"), move |config| {
                let changes = &mut config.presets[at].value.routes;
                let changes = changes
                    .entry(name.clone())
                    .or_insert_with(|| Located::nowhere(config::RouteChanges::default()));
                apply(changes.value.access.get_or_insert_with(|| before.clone()));
            })]
        }
    }
}

/// A change to an option of a route of the operator's own.
fn option(
    config: &Config,
    route: &str,
    change: &str,
    apply: impl Fn(&mut config::RouteOptions) + 'static,
) -> Option<Edit> {
    let (Whose::Own(at), place) = whose(config, route)? else { return None };
    Some(edit(&place, format!("options.{change}"), move |config| {
        apply(&mut config.routes[at].value.options);
    }))
}

fn unclosed(config: &Config, route: &str) -> Vec<Edit> {
    let Some((Whose::Preset(at, name), place)) = whose(config, route) else {
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

/// A method more for a route that has the path, else a route of its own.
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

/// The operator's own routes that take the same path by other methods.
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

/// Upstreams that a new route is tried with.
const UPSTREAMS_MAX: usize = 3;

/// The host, for what is for other hosts now.
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

/// A rule that is for others, or over, made to be for this caller; else one of its own.
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
