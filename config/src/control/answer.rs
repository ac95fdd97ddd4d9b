//! All that a control source may say.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, ControlFormat, json, orbit};
use crate::{Limit, Name, Percent, Place, Problems, de};

/// A control source's response, in the format `stagedoor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlDocument {
    /// The version of this format.
    pub version: ControlVersion,
    /// Workspaces, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workspaces: BTreeMap<Name, WorkspaceDocument>,
    /// Plugins that are not simply on everywhere, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugins: BTreeMap<Name, PluginDocument>,
}

/// The version of the response format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ControlVersion {
    /// The only version so far.
    #[serde(rename = "stagedoor/control-v1")]
    V1,
}

/// What the source says about a workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspaceDocument {
    /// Callers in these groups are members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// These callers are members, by subject.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// Plugins switched on or off here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub plugins: BTreeMap<Name, bool>,
    /// How many requests it may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Limit>,
}

/// What the source says about a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginDocument {
    /// The share of workspaces for which it is on, in percent.
    pub enabled_percent: Percent,
}

impl ControlDocument {
    /// One that lists nothing.
    pub(super) fn of_nobody() -> Self {
        Self { version: ControlVersion::V1, workspaces: BTreeMap::new(), plugins: BTreeMap::new() }
    }

    /// Reads what a source sent.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn read(control: &Control, text: &[u8]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let place = place(control);
        let read = json::parse(&place, text, &mut problems).and_then(|tree| match control.format {
            ControlFormat::Stagedoor => de::read(tree, &mut problems),
            ControlFormat::Orbit => orbit::read(&tree, control, &mut problems),
        });
        read.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Reads what was kept of an answer, which is always in our own shape.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn read_kept(control: &Control, text: &[u8]) -> Result<Self, Problems> {
        let own = Control { format: ControlFormat::Stagedoor, ..control.clone() };
        Self::read(&own, text)
    }

    /// What was understood, the same bytes for the same meaning.
    pub fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an answer is JSON")
    }
}

/// What is wrong with an answer is told at its source.
pub(super) fn place(control: &Control) -> Place {
    Place { file: control.url.to_string().into(), ..Place::default() }
}

#[cfg(test)]
pub(super) use tests::control;

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::control) fn control(more: &str) -> Control {
        let text = format!(
            "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
             control: {{url: 'https://orbit.example/c', {more}}}\n"
        );
        let loaded = crate::parse("t", &text).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.config.control.unwrap().value
    }

    #[test]
    fn what_it_may_say_is_a_closed_set() {
        let check = |text: &str, wrong: &str| {
            let problems =
                ControlDocument::read(&control(""), text.as_bytes()).unwrap_err().to_string();
            assert!(problems.contains(wrong), "{text}: {problems}");
        };
        let v1 = |rest: &str| format!("{{\"version\": \"stagedoor/control-v1\"{rest}}}");
        for section in
            ["upstreams", "routes", "listeners", "identity", "credentials", "egress", "audit"]
        {
            check(&v1(&format!(", \"{section}\": {{}}")), &format!("unknown key `{section}`"));
        }
        check(&v1(r#", "workspaces": {"pay": {"resources": {}}}"#), "`workspaces.pay`");
        check(
            &v1(r#", "plugins": {"argocd": {"enabled_percent": 101}}"#),
            "`101` is not a percentage",
        );
        check(&v1(r#", "plugins": {"argocd": {"enabled_percent": "50"}}"#), "remove the quotes");
        check(&v1(r#", "plugins": {"argocd": {"enabled_percent": 1.5}}"#), "a whole number");
        check(&v1(r#", "plugins": {"argocd": {}}"#), "`enabled_percent` is missing");
        check(
            &v1(
                r#", "plugins": {"argocd": {"enabled_percent": 1}, "argocd": {"enabled_percent": 2}}"#,
            ),
            "twice",
        );
        check(&v1(r#", "workspaces": {"pay": {"plugins": {"a": "yes"}}}"#), "`true` or `false`");
        check(&v1(r#", "workspaces": {"a b": {}}"#), "is not a name");
        check(&v1(r#", "workspaces": []"#), "expected a map");
        check(&v1(r#", "workspaces": {"pay": {"rate_limit": {"rate": "many"}}}"#), "is not a rate");
        check(r#"{"version": "stagedoor/v1"}"#, "stagedoor/control-v1");
        check("{}", "`version` is missing");
        check("version: stagedoor/control-v1", "this is not JSON");
        check("", "this is not JSON");
        check("[]", "expected a map");
        check("{\"version\": \"stagedoor/control-v1\"} {}", "this is not JSON");
        check(&"[".repeat(100_000), "this is not JSON");
    }

    #[test]
    fn what_is_understood_is_the_same_bytes_in_whatever_order_it_was_said() {
        let read = |text: &str| ControlDocument::read(&control(""), text.as_bytes()).unwrap();
        let one = read(
            "{\"version\":\"stagedoor/control-v1\",\"plugins\":{\"b\":{\"enabled_percent\":1},\"a\":{\"enabled_percent\":2}}}",
        );
        let other = read(
            "{\"plugins\": {\"a\": {\"enabled_percent\": 2}, \"b\": {\"enabled_percent\": 1}},\n\t\"workspaces\": {}, \"version\": \"stagedoor/control-v1\"}",
        );
        assert_eq!(one.text(), other.text());
        assert_eq!(
            ControlDocument::read_kept(&control("format: orbit, plugins: [a]"), &one.text()),
            Ok(one)
        );
    }
}
