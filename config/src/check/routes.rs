//! Routes: references, and two that take the same requests.

use std::collections::HashMap;

use super::Findings;
use crate::{Config, ListenerKind, Located, Method, Place, Route, Segment};

/// Upstreams and listeners that routes name, also those routes of which not all could be read.
pub(super) fn references(config: &Config, read: &Config, found: &mut Findings) {
    // A preset's routes share the references that the operator wrote: each is told once.
    for route in read.all_routes() {
        let upstream = &route.upstream;
        if !config.upstreams.contains_key(&upstream.value)
            && !found.cuts.may_name(&["upstreams"], upstream)
        {
            let hint = crate::de::suggestion(upstream, &found.cuts.names(&["upstreams"]));
            found.problem(&upstream.place, format!("no upstream `{}`; {hint}", upstream.value));
        }
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

pub(super) fn check(config: &Config, found: &mut Findings) {
    let routes = config.all_routes();
    let mut names: HashMap<String, Place> = HashMap::new();
    for route in &routes {
        if let Some(first) = names.insert(route.name.to_string(), route.place.clone()) {
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
        if options.public && !options.access.is_open() {
            found.problem(&route.place, format!("route `{}` is public: nobody is asked who they are; remove `access` or `public`", route.name));
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
}

/// Two routes of the same shape, method, host and listener: neither would be more exact.
fn same_requests(routes: &[Located<Route>], found: &mut Findings) {
    let mut seen: HashMap<(String, String, String, Method), (String, Place)> = HashMap::new();
    for route in routes {
        let shape = shape(route);
        let any = |list: Vec<String>| if list.is_empty() { vec!["any".to_owned()] } else { list };
        let hosts = any(route.hosts.iter().map(ToString::to_string).collect());
        let listeners = any(route.listeners.iter().map(|l| l.value.to_string()).collect());
        'route: for host in &hosts {
            for listener in &listeners {
                for method in &route.methods {
                    let key = (host.clone(), listener.clone(), shape.clone(), *method);
                    let this = (route.name.to_string(), route.place.clone());
                    let Some((name, place)) = seen.insert(key, this) else { continue };
                    if name != *route.name {
                        found.problem(
                            &route.place,
                            format!(
                                "route `{}` takes the same requests as `{name}`, at {place}",
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
