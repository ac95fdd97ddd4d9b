//! The switch that an operator requests, in JSON.

use std::fmt;

use filters::{
    Label,
    switches::{DURATION_MAX, Position, Scope},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

/// The switch that an operator requests.
#[derive(Debug)]
pub(super) struct SwitchRequest {
    pub(super) scope: Scope,
    pub(super) position: Position,
    pub(super) lasts: std::time::Duration,
    /// Whether it also ends exchanges in progress.
    pub(super) cuts: bool,
    pub(super) by: String,
    pub(super) reason: String,
}

/// The names in the config in force.
pub(super) struct Names<'a> {
    pub(super) upstreams: Vec<&'a str>,
    /// `None` if callers name their plugin: then it may be any.
    pub(super) plugins: Option<Vec<&'a str>>,
    /// `None` if workspaces need not be declared.
    pub(super) workspaces: Option<Vec<&'a str>>,
}

/// Members that have not been read yet, and the problems of the others.
struct Members {
    left: Vec<(String, Value)>,
    wrong: Vec<String>,
}

const NAMES: [&str; 10] = [
    "upstream",
    "plugin",
    "workspace",
    "caller",
    "class",
    "position",
    "for",
    "reason",
    "by",
    "cut",
];
const TEXT_MAX: usize = 200;

impl SwitchRequest {
    /// # Errors
    /// Everything that is wrong with it, and what to write instead.
    pub(super) fn read(body: &[u8], known: &Names<'_>) -> Result<Self, Vec<String>> {
        let mut members = Members::read(body)?;
        let scope = Scope {
            upstream: members.name("upstream", Some(&known.upstreams)),
            plugin: members.name("plugin", known.plugins.as_deref()),
            workspace: members.name("workspace", known.workspaces.as_deref()),
            caller: members.name("caller", None),
            class: members.class(),
        };
        if scope.is_empty() && members.wrong.is_empty() {
            members.wrong.push(
                "it names nothing: write `upstream`, `plugin`, `workspace`, `caller` or `class`, or several, all of which must match"
                    .to_owned(),
            );
        }
        let position = members.position();
        let lasts = members.lasts();
        let cuts = members.cuts(position);
        let reason =
            members.needed("reason", "for example `\"reason\": \"DXCP is being restored\"`");
        let by = members.needed("by", "who you are, for example `\"by\": \"ada\"`");
        members.end(&NAMES);
        match (position, lasts, reason, by) {
            (Some(position), Some(lasts), Some(reason), Some(by)) if members.wrong.is_empty() => {
                Ok(Self { scope, position, lasts, cuts, by, reason })
            }
            _ => Err(members.wrong),
        }
    }
}

/// Who removes a switch: `{"by": "ada"}`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn remover(body: &[u8]) -> Result<String, Vec<String>> {
    let mut members = Members::read(body)?;
    let by = members.needed("by", "who you are, for example `{\"by\": \"ada\"}`");
    members.end(&["by"]);
    by.filter(|_| members.wrong.is_empty()).ok_or(members.wrong)
}

impl Members {
    fn read(body: &[u8]) -> Result<Self, Vec<String>> {
        let example = "{\"plugin\": \"argocd\", \"position\": \"open\", \"for\": \"30m\", \"reason\": \"...\", \"by\": \"ada\"}";
        let RawMembers(left) = serde_json::from_slice(body)
            .map_err(|error| vec![format!("{error}; write for example `{example}`")])?;
        Ok(Self { left, wrong: Vec::new() })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.left.iter().position(|(own, _)| own == name)?;
        Some(self.left.remove(at).1)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let wrong = match self.take(name)? {
            Value::String(text) if text.trim().is_empty() => format!("`{name}` is empty"),
            Value::String(text) if text.chars().any(char::is_control) => {
                format!("`{name}` has a control character or a line break; write it on one line")
            }
            Value::String(text) if text.chars().count() > TEXT_MAX => {
                format!("`{name}` is longer than {TEXT_MAX} characters")
            }
            Value::String(text) => return Some(text),
            other => format!("`{name}` is `{other}`; write a string, in quotes"),
        };
        self.wrong.push(wrong);
        None
    }

    fn needed(&mut self, name: &str, hint: &str) -> Option<String> {
        let before = self.wrong.len();
        let text = self.text(name);
        if text.is_none() && self.wrong.len() == before {
            self.wrong.push(format!("`{name}` is missing: write {hint}"));
        }
        text
    }

    /// A name, which must be in the config if that declares all of them.
    fn name(&mut self, member: &str, known: Option<&[&str]>) -> Option<Label> {
        let text = self.text(member)?;
        let label = Label::new(&text);
        if label.is_none() {
            self.wrong.push(format!("`{member}` is `{text}`, which is not a valid name"));
        }
        if let Some(known) = known
            && label.is_some()
            && !known.contains(&&*text)
        {
            let hint = config::suggestion(&text, known);
            self.wrong.push(format!("the config in force has no {member} `{text}`; {hint}"));
            return None;
        }
        label
    }

    fn class(&mut self) -> Option<config::Class> {
        let wrong = match &*self.text("class")? {
            "read" => return Some(config::Class::Read),
            "action" => return Some(config::Class::Action),
            "admin" => {
                "`class` is `admin`, which never passes; write `read` or `action`".to_owned()
            }
            other => format!("`class` is `{other}`; write `read` or `action`"),
        };
        self.wrong.push(wrong);
        None
    }

    fn position(&mut self) -> Option<Position> {
        let hint = "`open` to let nothing pass, or `closed` to let all allowed requests pass, whatever the breaker has seen";
        match &*self.needed("position", hint)? {
            "open" => return Some(Position::Open),
            "closed" => return Some(Position::Closed),
            other => self.wrong.push(format!("`position` is `{other}`; write {hint}")),
        }
        None
    }

    fn lasts(&mut self) -> Option<std::time::Duration> {
        let text = self.needed("for", "how long it lasts, for example `\"for\": \"30m\"`")?;
        let wrong = match text.parse::<config::Duration>() {
            Ok(lasts) if lasts.is_zero() => format!("`for` is `{text}`; write for example `30m`"),
            Ok(lasts) if *lasts > DURATION_MAX => format!(
                "`for` is `{text}`; write at most `7d`; anything that should last longer belongs in the config"
            ),
            Ok(lasts) => return Some(*lasts),
            Err(wrong) => format!("`for`: {wrong}"),
        };
        self.wrong.push(wrong);
        None
    }

    fn cuts(&mut self, position: Option<Position>) -> bool {
        let wrong = match self.take("cut") {
            Some(Value::Bool(true)) if position == Some(Position::Closed) => {
                "`cut` ends exchanges in flight; a `closed` switch lets them pass".to_owned()
            }
            Some(Value::Bool(cuts)) => return cuts,
            Some(other) => format!("`cut` is `{other}`; write `true` or `false`, without quotes"),
            None => return false,
        };
        self.wrong.push(wrong);
        false
    }

    /// The remaining members are unknown.
    fn end(&mut self, names: &[&str]) {
        for (name, _) in std::mem::take(&mut self.left) {
            let wrong = match names.contains(&&*name) {
                true => format!("`{name}` is repeated"),
                false => format!("`{name}` is unknown; {}", config::suggestion(&name, names)),
            };
            self.wrong.push(wrong);
        }
    }
}

/// An object's members in order, including duplicates.
struct RawMembers(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for RawMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = RawMembers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMembers, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(RawMembers(all))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<SwitchRequest, Vec<String>> {
        let known = Names {
            upstreams: vec!["dxcp", "portal"],
            plugins: Some(vec!["argocd"]),
            workspaces: Some(vec!["payments"]),
        };
        SwitchRequest::read(body.as_bytes(), &known)
    }

    #[test]
    fn problems_are_reported_with_what_to_write_instead() {
        let check = |body: &str, expected: &[&str]| {
            let wrong = read(body).unwrap_err();
            let fits = wrong.len() == expected.len()
                && wrong.iter().zip(expected).all(|(is, part)| is.contains(part));
            assert!(fits, "{body}: {wrong:#?}");
        };
        let rest = r#""position": "open", "for": "5m", "reason": "r", "by": "b""#;
        let with = |more: &str| format!("{{{more}, {rest}}}");
        check(
            "{}",
            &["it names nothing", "`position` is missing", "`for` is", "`reason` is", "`by` is"],
        );
        check("[]", &["write for example `{\"plugin\""]);
        check("no", &["write for example"]);
        check("", &["write for example"]);
        check(&format!("{{{rest}}}"), &["it names nothing"]);
        check(&with(r#""plugin": "argcd""#), &["no plugin `argcd`; did you mean `argocd`?"]);
        check(&with(r#""upstream": "x""#), &["no upstream `x`; there is `dxcp`, `portal`"]);
        check(&with(r#""workspace": "web""#), &["no workspace `web`"]);
        check(
            &with(r#""plgin": "argocd""#),
            &["it names nothing", "`plgin` is unknown; did you mean `plugin`?"],
        );
        check(&with(r#""class": "admin""#), &["never passes"]);
        check(&with(r#""class": "reads""#), &["write `read` or `action`"]);
        check(&with(r#""plugin": 3"#), &["write a string"]);
        check(&with(r#""plugin": "argocd", "plugin": "argocd""#), &["is repeated"]);
        check(&with(r#""caller": "a\nb""#), &["control character"]);
        check(&with(r#""caller": "ädä""#), &["not a valid name"]);
        check(&with(r#""class": "read", "cut": "yes""#), &["write `true` or `false`"]);
        check(
            r#"{"class": "read", "cut": true, "position": "closed", "for": "5m", "reason": "r", "by": "b"}"#,
            &["lets them pass"],
        );
        assert!(read(&with(r#""class": "read", "cut": true"#)).unwrap().cuts);
        let lasts = |text: &str| {
            format!(
                r#"{{"class": "read", "position": "closed", "for": "{text}", "reason": "r", "by": "b"}}"#
            )
        };
        check(&lasts("30"), &["write `30s`"]);
        check(&lasts("0s"), &["write for example `30m`"]);
        check(&lasts("8d"), &["at most `7d`"]);
        assert!(read(&lasts("7d")).is_ok());
        assert!(read(&with(r#""caller": "anybody", "plugin": "argocd""#)).is_ok());
    }
}
