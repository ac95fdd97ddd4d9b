//! Routes: references, and two that take the same requests.

use std::{borrow::Cow, cmp::Ordering, collections::HashMap, rc::Rc};

use super::Findings;
use crate::{Config, ListenerKind, Located, Method, Name, Place, Route, Segment, WrittenBy};

/// Upstreams and listeners that routes name, also those routes of which not all could be read.
pub(super) fn references(config: &Config, read: &Config, found: &mut Findings) {
    // A preset's routes share the references that the operator wrote: each is told once.
    for route in read.all_routes() {
        upstream_exists(config, &route.upstream, found);
        for listener in &route.listeners {
            let message = match config.listeners.get(&listener.value) {
                None if found.cuts.may_name(&["listeners"], listener) => continue,
                None => format!("no listener `{}`", listener.value),
                Some(l) if l.kind != ListenerKind::Reverse => {
                    format!("listener `{}` is not of kind `reverse`", listener.value)
                }
                Some(_) => continue,
            };
            found.problem(&listener.place, message);
        }
    }
}

pub(super) fn upstream_exists(config: &Config, upstream: &Located<Name>, found: &mut Findings) {
    if config.upstreams.contains_key(&upstream.value)
        || found.cuts.may_name(&["upstreams"], upstream)
    {
        return;
    }
    let hint = crate::de::suggestion(upstream, &found.cuts.names(&["upstreams"]));
    found.problem(&upstream.place, format!("no upstream `{}`; {hint}", upstream.value));
}

pub(super) fn check(config: &Config, found: &mut Findings) {
    let routes = config.all_routes();
    let mut names: HashMap<&str, &Place> = HashMap::new();
    for route in &routes {
        if let Some(first) = names.insert(&route.name, &route.place) {
            found.problem(
                &route.place,
                format!("route `{}` exists already, at {first}", route.name),
            );
        }
        if route.methods.is_empty() {
            found.problem(
                &route.place,
                format!("route `{}` has no methods; write `[GET, HEAD]` or `[ANY]`", route.name),
            );
        }
        let options = &route.options;
        further(config, route, found);
        if options.public && !options.access.is_open() {
            found.problem(
                &route.place,
                format!(
                    "route `{}` is public and authenticates no caller; remove `access` or `public`",
                    route.name
                ),
            );
        }
        if options.public && options.cookie {
            found.problem(
                &route.place,
                format!("route `{}` is public and needs no `cookie`", route.name),
            );
        }
        if let Some(both) =
            options.query.remove.iter().find(|name| options.query.allow.contains_key(*name))
        {
            found.problem(
                &route.place,
                format!("query parameter `{both}` is both removed and allowed"),
            );
        }
        if options.upgrade && !route.methods.iter().any(|m| matches!(m, Method::Get | Method::Any))
        {
            found.problem(
                &route.place,
                format!("route `{}` upgrades, but an upgrade is a GET", route.name),
            );
        }
    }
    same_requests(&routes, found);
    beside_presets(config, found);
}

/// The operator's wide routes where a preset keeps something closed: what they do not take there, and what they
/// do take though the preset would never open it.
fn beside_presets(config: &Config, found: &mut Findings) {
    for (used, preset) in config.presets_used() {
        let rows = used.routes(&preset);
        let wide = |own: &&Located<Route>| own.path.open_ended && !own.options.closed;
        for own in config.routes.iter().filter(wide) {
            let beside = |row: &Route| own.path.beside(&row.path).filter(|_| meet(row, own));
            // A host is more exact than a path.
            let yields = |row: &Route| {
                row.yields_to(own) && row.hosts.iter().all(|host| own.hosts.contains(host))
            };
            let hidden = rows.iter().zip(&preset.routes).filter(|(row, _)| {
                let unopened = row.written_by == WrittenBy::Unopened;
                unopened && beside(row) == Some(Ordering::Less) && !yields(row)
            });
            let hidden: Vec<&str> = hidden.map(|(_, shipped)| &*shipped.name).collect();
            let others = || config.routes.iter().map(|own| &own.value).chain(&rows);
            // Those of another route that is more exact are not its own.
            let taken = rows.iter().filter(|row| {
                let both = own.path.and(&row.path);
                row.bars(own)
                    && beside(row) == Some(Ordering::Greater)
                    && !others().any(|other| {
                        beside(other) == Some(Ordering::Less) && other.path.covers(&both)
                    })
            });
            let taken: Vec<String> =
                taken.map(|row| format!("`{}`", own.path.and(&row.path))).collect();
            let (name, path, preset) = (&own.name, &own.path, &*used.preset);
            if !hidden.is_empty() {
                let names = list(&hidden);
                found.warning(
                    &own.place,
                    format!("route `{name}` (`{path}`) does not match what preset `{preset}` leaves closed below it: {names}; add them to its `open`, or to its `close` if this is intended, or write a route with the path of one"),
                );
            }
            if !taken.is_empty() {
                let paths = taken.join(", ");
                found.warning(
                    &own.place,
                    format!("route `{name}` (`{path}`) also matches what preset `{preset}` closes for good: {paths}; add a route for it with `options: {{closed: true}}`"),
                );
            }
        }
    }
}

/// A few names, and how many there are beside them.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Whether two routes may take the same request, but for its path.
fn meet(row: &Route, own: &Route) -> bool {
    let any = |one: &[Method]| one.contains(&Method::Any);
    let by_method = any(&row.methods)
        || any(&own.methods)
        || row.methods.iter().any(|m| own.methods.contains(m));
    let on = |route: &Route, name: &Name| {
        route.listeners.is_empty() || route.listeners.iter().any(|own| own.value == *name)
    };
    let by_listener = row.listeners.is_empty() || row.listeners.iter().any(|l| on(own, &l.value));
    let by_host = row.hosts.is_empty()
        || own.hosts.is_empty()
        || row.hosts.iter().any(|host| own.hosts.contains(host));
    by_method && by_listener && by_host
}

/// What is said of paths, bodies and answers.
fn further(config: &Config, route: &Located<Route>, found: &mut Findings) {
    let (options, name) = (&route.options, &route.name);
    let mut problem = |message: String| found.problem(&route.place, message);
    if let Some(prefix) = &options.strip_prefix {
        if !prefix.is_plain() {
            problem(format!(
                "`strip_prefix` of route `{name}` is not a plain path; write for example `/ext/github`"
            ));
        } else if !route.path.segments.starts_with(&prefix.segments) {
            problem(format!(
                "route `{name}` takes `{}`, which does not begin with `{prefix}`; write `path: {prefix}/**`",
                route.path
            ));
        }
    }
    let parameter = |wanted: &str| {
        route.path.segments.iter().any(|s| matches!(s, Segment::Parameter(own) if own == wanted))
    };
    for (kind, wanted) in &options.resources {
        if !parameter(wanted) {
            problem(format!(
                "the path of route `{name}` has no `{{{wanted}}}` that could name a `{kind}`"
            ));
        }
    }
    if let Some(wanted) = options.breaker_by.as_ref().filter(|wanted| !parameter(wanted)) {
        problem(format!(
            "the path of route `{name}` has no `{{{wanted}}}` for `breaker_by`; write for example `path: /api/proxy/{{{wanted}}}/**`"
        ));
    }
    let needs_workspace = !options.resources.is_empty()
        || options.graphql.iter().flatten().any(|rule| !rule.resources.is_empty());
    let has_none = options.public || options.workspace == crate::WorkspaceNeed::Optional;
    if needs_workspace && has_none {
        problem(format!(
            "route `{name}` checks `resources` of the workspace, but may have no workspace; remove `public` and `workspace: optional`"
        ));
    }
    let kinds = options.resources.keys();
    let kinds =
        kinds.chain(options.graphql.iter().flatten().flat_map(|rule| rule.resources.keys()));
    for kind in kinds {
        let owned = config.workspaces.named.values().any(|w| w.resources.contains_key(kind));
        if !owned && !found.cuts.touch(&["workspaces"]) {
            found.warning(
                &route.place,
                format!("no workspace has a `{kind}` in its `resources`, so no request can pass route `{name}`"),
            );
        }
    }
    let mut problem = |message: String| found.problem(&route.place, message);
    if let Some(rules) = &options.graphql {
        if options.public {
            problem(format!(
                "`graphql` of route `{name}` is about callers, and a public route has none; remove `public`"
            ));
        }
        if route.methods != [Method::Post] {
            problem(format!("route `{name}` reads GraphQL bodies; write `methods: [POST]`"));
        }
        if rules.iter().all(|rule| rule.query.is_empty() && rule.mutation.is_empty()) {
            problem(format!(
                "`graphql` of route `{name}` allows nothing; write for example `[{{query: [stacks]}}]`"
            ));
        }
    }
    let upstream = config.upstreams.get(&route.upstream.value);
    if let Some(fallback) = &options.fallback {
        if upstream.is_some_and(|u| u.authority == crate::Authority::Delivery) {
            problem(format!(
                "route `{name}` cannot have a fallback: responses about delivery are never kept; remove `fallback`"
            ));
        }
        if route.class != crate::Class::Read || !route.methods.contains(&Method::Get) {
            problem(format!(
                "route `{name}` cannot have a fallback: only the response to a GET of class `read` is kept; remove `fallback`"
            ));
        }
        if fallback.ttl.is_zero() || *fallback.ttl > std::time::Duration::from_secs(86_400) {
            problem(format!(
                "route `{name}`: the `ttl` of its fallback must be more than 0s and at most 1d"
            ));
        }
        if fallback.bytes_max.bytes() > 16 << 20 {
            problem(format!(
                "route `{name}` would keep responses of up to {}; at most 16MiB",
                fallback.bytes_max
            ));
        }
    }
    let Some(coalesce) = &options.coalesce else { return };
    if upstream.is_some_and(|u| u.authority == crate::Authority::Delivery) {
        problem(format!(
            "route `{name}` cannot coalesce: responses about delivery are never kept or shared; remove `coalesce`"
        ));
    }
    let shown = upstream.and_then(|u| config.credentials.get(&u.credential.as_ref()?.value));
    let of_caller = shown.is_some_and(|shown| shown.kind == crate::CredentialKind::TokenExchange);
    if of_caller && coalesce.scope != crate::CoalesceScope::Caller {
        problem(format!(
            "route `{name}` cannot share responses: its upstream sees the caller (`token_exchange`); write `coalesce: {{scope: caller}}`"
        ));
    }
    if route.class != crate::Class::Read || !route.methods.contains(&Method::Get) {
        problem(format!(
            "route `{name}` cannot coalesce: only a GET of class `read` can be coalesced; remove `coalesce`"
        ));
    }
    if options.upgrade {
        problem(format!("route `{name}` cannot both `coalesce` and `upgrade`; write two routes"));
    }
    if *coalesce.ttl > std::time::Duration::from_secs(60) {
        problem(format!("route `{name}` would keep responses for {}; at most 60s", coalesce.ttl));
    }
    if coalesce.bytes_max.bytes() > 16 << 20 {
        problem(format!(
            "route `{name}` would share responses of up to {}; at most 16MiB",
            coalesce.bytes_max
        ));
    }
}

/// Two routes of the same shape, method, host and listener: neither would be more exact.
fn same_requests(routes: &[Cow<'_, Located<Route>>], found: &mut Findings) {
    let mut seen: HashMap<(&str, &str, Rc<str>, Method), &Located<Route>> = HashMap::new();
    for route in routes {
        let shape: Rc<str> = shape(route).into();
        let any = |list: Vec<_>| if list.is_empty() { vec!["any"] } else { list };
        let hosts = any(route.hosts.iter().map(|host| &**host).collect());
        let listeners = any(route.listeners.iter().map(|l| &*l.value).collect());
        'route: for host in &hosts {
            for listener in &listeners {
                for method in &route.methods {
                    let key = (*host, *listener, Rc::clone(&shape), *method);
                    let Some(other) = seen.insert(key, route) else { continue };
                    let Located { value: Route { name, .. }, place } = other;
                    if *name != route.name {
                        found.problem(
                            &route.place,
                            format!(
                                "route `{}` matches the same requests as `{name}`, at {place}",
                                route.name
                            ),
                        );
                    }
                    break 'route;
                }
            }
        }
    }
}

fn shape(route: &Route) -> String {
    let mut shape = String::new();
    for segment in &route.path.segments {
        shape.push('/');
        match segment {
            Segment::Text(text) => shape.push_str(text),
            Segment::Parameter(_) => shape.push_str("{}"),
        }
    }
    if route.path.open_ended {
        shape.push_str("/**");
    }
    shape
}
