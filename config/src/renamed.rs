//! Names that have changed: for one version the old ones mean the same, with a warning that says what to write.
//!
//! Renamed in the tree of each file, before anything else looks at it: whatever comes later knows only
//! the new names.

use serde_json::{Value as Json, json};

use crate::{
    Problems,
    tree::{Key, Node, Value},
};

/// One old name.
#[derive(Debug)]
pub(crate) struct Renamed {
    /// The type whose key it is, by its name in the schema.
    pub(crate) of: &'static str,
    /// Where such a type is written: `*` is any name, `[]` any entry of a list.
    pub(crate) at: &'static [&'static str],
    /// The key whose value it is. `None`: it is a key itself.
    pub(crate) value_of: Option<&'static str>,
    pub(crate) old: &'static str,
    pub(crate) new: &'static str,
}

const fn key(
    of: &'static str,
    at: &'static [&'static str],
    old: &'static str,
    new: &'static str,
) -> Renamed {
    Renamed { of, at, value_of: None, old, new }
}

const BREAKER: &[&str] = &["upstreams.*.breaker"];
const OUTLIERS: &[&str] = &["upstreams.*.outlier_detection"];
const HEALTH: &[&str] = &["upstreams.*.health_check"];
const TIMEOUTS: &[&str] =
    &["upstreams.*.timeouts", "routes.[].options.timeouts", "presets.[].routes.*.timeouts"];
const COALESCE: &[&str] = &["routes.[].options.coalesce", "presets.[].routes.*.coalesce"];

/// Every old name. A key comes before those that are inside it, which are looked for under its new name.
pub(crate) const RENAMED: &[Renamed] = &[
    key("Upstream", &["upstreams.*"], "ejection", "outlier_detection"),
    key("OutlierDetection", OUTLIERS, "failures", "consecutive_failures"),
    key("OutlierDetection", OUTLIERS, "base", "base_ejection_time"),
    key("OutlierDetection", OUTLIERS, "longest", "ejection_time_max"),
    key("OutlierDetection", OUTLIERS, "percent_max", "ejection_percent_max"),
    key("Breaker", BREAKER, "rest", "open_duration"),
    key("Breaker", BREAKER, "probes", "half_open_requests"),
    key("HealthCheck", HEALTH, "healthy_after", "healthy_threshold"),
    key("HealthCheck", HEALTH, "unhealthy_after", "unhealthy_threshold"),
    key("Timeouts", TIMEOUTS, "whole", "total"),
    key("Coalesce", COALESCE, "for", "scope"),
    key("Coalesce", COALESCE, "keep", "ttl"),
    key("RateLimit", &["rate_limit"], "each_workspace", "per_workspace"),
    key("RateLimit", &["rate_limit"], "each_caller", "per_caller"),
    key("RateLimit", &["rate_limit"], "each_client", "per_client"),
    key("Egress", &["egress"], "each_workspace", "per_workspace"),
    key("Egress", &["egress"], "encrypted_hello", "encrypted_client_hello"),
    key("Egress", &["egress"], "hello_timeout", "client_hello_timeout"),
    key("Egress", &["egress"], "life_max", "lifetime_max"),
    key("Control", &["control"], "shape", "format"),
    key("Control", &["control"], "every", "interval"),
    key("Control", &["control"], "answer_max", "response_max"),
    key("Control", &["control"], "keep_file", "cache_file"),
    key("Control", &["control"], "until_answered", "before_first_response"),
    key("Audit", &["audit"], "folder", "directory"),
    key("Audit", &["audit"], "kept_for", "retention"),
    key("Audit", &["audit"], "segments_kept", "segments_max"),
    Renamed {
        of: "Audit",
        at: &["audit"],
        value_of: Some("reads"),
        old: "before_answer",
        new: "before_response",
    },
    key("Checkpoints", &["audit.checkpoints"], "every", "interval"),
    key("Ship", &["audit.ship.*"], "pace", "interval"),
];

/// More old names than this are not listed.
const LISTED_MAX: usize = 100;

/// Gives whatever has an old name in a file its new one, and warns of it.
pub(crate) fn apply(tree: &mut Node, problems: &mut Problems, warnings: &mut Problems) {
    for renamed in RENAMED {
        for path in renamed.at {
            each(tree, path, &mut |entries| match renamed.value_of {
                None => renamed.key(entries, problems, warnings),
                Some(key) => renamed.value(key, entries, warnings),
            });
        }
    }
}

/// What a map has.
type Entries = Vec<(Key, Node)>;

/// Visits each map at a path.
fn each(node: &mut Node, path: &str, visit: &mut dyn FnMut(&mut Entries)) {
    if path.is_empty() {
        if let Value::Map(entries) = &mut node.value {
            visit(entries);
        }
        return;
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    match &mut node.value {
        Value::List(items) if step == "[]" => {
            items.iter_mut().for_each(|item| each(item, rest, visit));
        }
        Value::Map(entries) => entries
            .iter_mut()
            .filter(|(key, _)| step == "*" || key.name == step)
            .for_each(|(_, node)| each(node, rest, visit)),
        _ => {}
    }
}

impl Renamed {
    fn key(&self, entries: &mut Entries, problems: &mut Problems, warnings: &mut Problems) {
        let Self { old, new, .. } = self;
        let Some(at) = entries.iter().position(|(key, _)| key.name == *old) else { return };
        if let Some((other, _)) = entries.iter().find(|(key, _)| key.name == *new) {
            problems.add(
                &entries[at].0.place,
                format!(
                    "`{old}` is the old name of `{new}`, which is also set, at {}; remove `{old}`",
                    other.place
                ),
            );
            entries.remove(at);
            return;
        }
        let key = &mut entries[at].0;
        (*new).clone_into(&mut key.name);
        self.warn(&key.place, &format!("{new}: ..."), warnings);
    }

    fn value(&self, key: &str, entries: &mut [(Key, Node)], warnings: &mut Problems) {
        for (_, node) in entries.iter_mut().filter(|(own, _)| own.name == key) {
            if let Value::Text { text, .. } = &mut node.value
                && text == self.old
            {
                self.new.clone_into(text);
                self.warn(&node.place, &format!("{key}: {}", self.new), warnings);
            }
        }
    }

    fn warn(&self, place: &crate::Place, write: &str, warnings: &mut Problems) {
        let Self { old, new, .. } = self;
        match warnings.len() {
            listed if listed < LISTED_MAX => warnings.add(
                place,
                format!("`{old}` is now called `{new}`; write `{write}`. The old name goes with the next version"),
            ),
            LISTED_MAX => warnings.add(place, "there are more old names than are listed here"),
            _ => {}
        }
    }
}

/// Adds the old names to the definitions of the schema, as deprecated.
pub(crate) fn add_to_schema(definitions: &mut Json) {
    for Renamed { of, value_of, old, new, .. } in RENAMED {
        let properties = &mut definitions[*of]["properties"];
        let about = format!("Renamed: write `{new}`.");
        if let Some(key) = value_of {
            let named = properties[*key]["$ref"].as_str().and_then(|path| path.rsplit('/').next());
            let named = named.unwrap_or_default().to_owned();
            if let Some(choices) = definitions[named]["oneOf"].as_array_mut() {
                choices.push(json!({
                    "const": old, "type": "string", "deprecated": true, "description": about,
                }));
            }
            continue;
        }
        let mut property = properties[*new].clone();
        if let (Some(property), Some(properties)) =
            (property.as_object_mut(), properties.as_object_mut())
        {
            property.insert("description".to_owned(), about.into());
            property.insert("deprecated".to_owned(), true.into());
            properties.insert((*old).to_owned(), Json::Object(property.clone()));
        }
    }
}

/// The part of the manual that lists them.
pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "\n## Renamed keys\n\n\
         The old names work in this version, with a warning from `stagedoor check` and in the log; the next version refuses them.\n\n\
         | in | old | new |\n|---|---|---|\n",
    );
    for Renamed { of, value_of, old, new, .. } in RENAMED {
        let within = value_of.map(|key| format!("{key}: ")).unwrap_or_default();
        let anchor = of.to_ascii_lowercase();
        out += &format!("| [{of}](#{anchor}) | `{within}{old}` | `{within}{new}` |\n");
    }
    out
}

#[cfg(test)]
mod tests;
