//! Orbit's `GET /api/plugins/config`: Backstage's config, from which we take who has what.
//!
//! `{"integrations": {}, "jira": [{"host": .., "token": .., "workspace_id": "w1"}], ..}`

use super::{Control, ControlDocument, ControlVersion};
use crate::{
    Name, Problems,
    tree::{Node, Value},
};

pub(super) fn read(
    tree: &Node,
    control: &Control,
    problems: &mut Problems,
) -> Option<ControlDocument> {
    let Value::Map(entries) = &tree.value else {
        problems.add(&tree.place, "Orbit sends an object, and this is not one");
        return None;
    };
    // Whatever else answers in JSON does not have it, and would switch everything off.
    if !matches!(tree.get("integrations"), Some(Node { value: Value::Map(_), .. })) {
        problems.add(&tree.place, "Orbit sends an object with `integrations`, and this has none");
        return None;
    }
    let mut answer = ControlDocument {
        version: ControlVersion::V1,
        workspaces: Default::default(),
        plugins: Default::default(),
    };
    for (key, list) in entries.iter().filter(|(key, _)| key.name != "integrations") {
        // What is not ours to decide may look as it likes.
        let Some(plugin) = control.plugins.iter().find(|plugin| *plugin.value == *key.name) else {
            continue;
        };
        let Value::List(items) = &list.value else {
            problems.add(&list.place, format!("`{}` is not a list", plugin.value));
            continue;
        };
        for (index, item) in items.iter().enumerate() {
            match workspace(item) {
                Ok(Some(name)) => {
                    let said = answer.workspaces.entry(name).or_default();
                    said.plugins.insert(plugin.value.clone(), true);
                }
                Ok(None) => {}
                Err(cause) => {
                    problems.add(&item.place, format!("`{}[{index}]`: {cause}", plugin.value))
                }
            }
        }
    }
    Some(answer)
}

/// The workspace that an entry switches its plugin on for.
fn workspace(item: &Node) -> Result<Option<Name>, String> {
    match item.get("enabled").map(|node| &node.value) {
        None | Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Ok(None),
        Some(_) => return Err("`enabled` is neither `true` nor `false`".to_owned()),
    }
    match item.get("workspace_id").map(|node| &node.value) {
        Some(Value::Text { text, .. }) => Name::new(text).map(Some),
        // Payload's ids are numbers on some databases.
        Some(Value::Integer(id)) => Name::new(&id.to_string()).map(Some),
        _ => Err("`workspace_id` is missing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::answer::control, *};

    fn read(text: &str) -> Result<String, String> {
        let control = control("format: orbit, plugins: [jira, argocd]");
        let answer = ControlDocument::read(&control, text.as_bytes());
        answer
            .map(|answer| String::from_utf8(answer.text()).unwrap())
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn an_entry_switches_its_plugin_on_and_its_secrets_are_not_kept() {
        let text = r#"{"integrations": {"github": [{"token": "s3cret"}]},
            "jira": [{"host": "j", "token": "s3cret", "workspace_id": "pay"}, {"workspace_id": 7},
                     {"workspace_id": "off", "enabled": false}],
            "github": [{"odd": true}], "upstreams": {"up": 1}, "routes": []}"#;
        assert_eq!(
            read(text).unwrap(),
            r#"{"version":"stagedoor/control-v1","workspaces":{"7":{"plugins":{"jira":true}},"pay":{"plugins":{"jira":true}}}}"#
        );
    }

    #[test]
    fn what_orbit_would_not_answer_is_refused() {
        let check = |text: &str, wrong: &str| {
            let problems = read(text).unwrap_err();
            assert!(problems.contains(wrong), "{text}: {problems}");
        };
        check("{}", "`integrations`");
        check(r#"{"error": "not found"}"#, "`integrations`");
        check("[]", "Orbit sends an object");
        check(r#"{"integrations": {}, "jira": {}}"#, "`jira` is not a list");
        check(r#"{"integrations": {}, "jira": [{}]}"#, "`jira[0]`: `workspace_id` is missing");
        check(r#"{"integrations": {}, "jira": [1]}"#, "`workspace_id` is missing");
        check(r#"{"integrations": {}, "jira": [{"workspace_id": "a b"}]}"#, "is not a name");
        check(r#"{"integrations": {}, "jira": [{"workspace_id": "a", "enabled": 1}]}"#, "neither");
    }
}
