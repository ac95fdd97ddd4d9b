//! What is different between two configs, in effect: not in their text.

use serde_json::Value;

use crate::Config;

/// More than this are counted and not told.
const TOLD_MAX: usize = 100;
/// A value is told so far.
const VALUE_MAX: usize = 200;

/// Each member that is different, with what it was and is: `` routes[pay].class: "read" → "action" ``.
/// Entries that have a name are told by it.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let value = |config| serde_json::to_value(config).expect("a config is JSON");
    let mut changes = Vec::new();
    compare("", Some(&value(old)), Some(&value(new)), &mut changes);
    let more = changes.len().saturating_sub(TOLD_MAX);
    changes.truncate(TOLD_MAX);
    if more > 0 {
        changes.push(format!("and {more} more"));
    }
    changes
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
        (Some(Value::Array(old)), Some(Value::Array(new))) => entries(path, old, new, changes),
        (old, new) => changes.push(format!("{path}: {} → {}", shown(old), shown(new))),
    }
}

fn entries(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<String>) {
    let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
    let names: Option<Vec<String>> = old.iter().chain(new).map(name).collect();
    let Some(mut names) = names else {
        for at in 0..old.len().max(new.len()) {
            compare(&format!("{path}[{at}]"), old.get(at), new.get(at), changes);
        }
        return;
    };
    let by_name = |entries: &[Value]| entries.iter().filter_map(name).collect::<Vec<_>>();
    let in_order = |wanted: &[Value], other: &[Value]| {
        let mut both = by_name(wanted);
        both.retain(|name| by_name(other).contains(name));
        both
    };
    if in_order(old, new) != in_order(new, old) {
        changes.push(format!("{path}: in another order"));
    }
    names.sort();
    names.dedup();
    for wanted in names {
        let named = |entry: &&Value| name(entry).as_ref() == Some(&wanted);
        let (old, new) = (old.iter().find(named), new.iter().find(named));
        compare(&format!("{path}[{wanted}]"), old, new, changes);
    }
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
