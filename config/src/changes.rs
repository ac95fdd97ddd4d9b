//! What is different between two configs, in effect: not in their text.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::{Config, Located, Route};

/// More than this are counted and not told.
const TOLD_MAX: usize = 100;
/// A value is told so far.
const VALUE_MAX: usize = 200;

/// Each member that is different, with what it was and is: `` routes[pay].class: "read" → "action" ``.
/// Entries that have a name are told by it.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    // By section, and routes by route: what is the same is not looked into, and of thousands of routes
    // most are. Written out, so that no section is forgotten.
    let Config {
        version: _,
        listeners,
        identity,
        workspaces,
        plugins,
        credentials,
        upstreams,
        presets,
        routes,
        egress,
        rate_limit,
        headers,
        control,
        audit,
        process,
    } = old;
    let mut changes = Vec::new();
    section("listeners", listeners, &new.listeners, &mut changes);
    section("identity", identity, &new.identity, &mut changes);
    section("workspaces", workspaces, &new.workspaces, &mut changes);
    section("plugins", plugins, &new.plugins, &mut changes);
    section("credentials", credentials, &new.credentials, &mut changes);
    section("upstreams", upstreams, &new.upstreams, &mut changes);
    section("presets", presets, &new.presets, &mut changes);
    entries("routes", &named(routes), &named(&new.routes), &mut changes);
    section("egress", egress, &new.egress, &mut changes);
    section("rate_limit", rate_limit, &new.rate_limit, &mut changes);
    section("headers", headers, &new.headers, &mut changes);
    section("control", control, &new.control, &mut changes);
    section("audit", audit, &new.audit, &mut changes);
    section("process", process, &new.process, &mut changes);
    let more = changes.len().saturating_sub(TOLD_MAX);
    changes.truncate(TOLD_MAX);
    if more > 0 {
        changes.push(format!("and {more} more"));
    }
    changes
}

fn section<T: Serialize + PartialEq>(name: &str, old: &T, new: &T, changes: &mut Vec<String>) {
    if old != new {
        compare(name, Some(&value(old)), Some(&value(new)), changes);
    }
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).expect("a config is JSON")
}

/// Entries by their names. Of several with the same name the first.
type ByName<'a, T> = IndexMap<&'a str, &'a T>;

fn named(routes: &[Located<Route>]) -> ByName<'_, Located<Route>> {
    let mut named = ByName::with_capacity(routes.len());
    for route in routes {
        named.entry(&*route.name).or_insert(route);
    }
    named
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let all = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in all {
                let dot = if path.is_empty() { "" } else { "." };
                compare(&format!("{path}{dot}{name}"), old.get(name), new.get(name), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => list(path, old, new, changes),
        (old, new) => changes.push(format!("{path}: {} → {}", shown(old), shown(new))),
    }
}

/// Takes no longer than there are entries.
fn entries<T: Serialize + PartialEq>(
    path: &str,
    old: &ByName<'_, T>,
    new: &ByName<'_, T>,
    changes: &mut Vec<String>,
) {
    let stayed = old.keys().filter(|name| new.contains_key(*name));
    if stayed.ne(new.keys().filter(|name| old.contains_key(*name))) {
        changes.push(format!("{path}: in another order"));
    }
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    for name in names {
        let (old, new) = (old.get(name), new.get(name));
        if old != new {
            let (old, new) = (old.map(value), new.map(value));
            compare(&format!("{path}[{name}]"), old.as_ref(), new.as_ref(), changes);
        }
    }
}

/// Entries that all have a name are told by it, others by their place.
fn list(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<String>) {
    if let (Some(old), Some(new)) = (by_name(old), by_name(new)) {
        return entries(path, &old, &new, changes);
    }
    for at in 0..old.len().max(new.len()) {
        compare(&format!("{path}[{at}]"), old.get(at), new.get(at), changes);
    }
}

fn by_name(entries: &[Value]) -> Option<ByName<'_, Value>> {
    let mut named = ByName::with_capacity(entries.len());
    for entry in entries {
        named.entry(entry.get("name")?.as_str()?).or_insert(entry);
    }
    Some(named)
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let mut text = value.to_string();
    if text.len() > VALUE_MAX {
        text.truncate(text.floor_char_boundary(VALUE_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn between(old: &Value, new: &Value) -> Vec<String> {
        let mut changes = Vec::new();
        compare("", Some(old), Some(new), &mut changes);
        changes
    }

    #[test]
    fn members_are_told_by_their_path_and_entries_by_their_name() {
        let old = json!({"a": {"b": 1, "c": [1, 2]}, "routes": [{"name": "x", "class": "read"}, {"name": "y"}]});
        let new = json!({"a": {"b": 2, "c": [1]}, "routes": [{"name": "z"}, {"name": "x", "class": "action"}]});
        assert_eq!(
            between(&old, &new),
            [
                "a.b: 1 → 2",
                "a.c[1]: 2 → none",
                "routes[x].class: \"read\" → \"action\"",
                "routes[y]: {\"name\":\"y\"} → none",
                "routes[z]: none → {\"name\":\"z\"}",
            ]
        );
        assert!(between(&new, &new).is_empty());
    }

    #[test]
    fn another_order_is_a_change() {
        let old = json!({"routes": [{"name": "x"}, {"name": "y"}]});
        let new = json!({"routes": [{"name": "y"}, {"name": "x"}]});
        assert_eq!(between(&old, &new), ["routes: in another order"]);
    }
}
