//! What was cut out of a config because it was wrong, so that nothing is judged by its absence.

use std::sync::Arc;

use crate::tree::{Node, Value};

/// A tree with its cuts.
pub(crate) struct Cuts(Arc<Node>);

/// Where entries stand that are judged together.
const SECTIONS: [&[&str]; 12] = [
    &["listeners"],
    &["identity", "issuers"],
    &["identity", "tokens"],
    &["identity", "client_certificates"],
    &["workspaces", "named"],
    &["audit", "ship"],
    &["credentials"],
    &["upstreams"],
    &["egress", "rules"],
    &["egress", "private"],
    &["presets"],
    &["routes"],
];

impl Cuts {
    /// Cuts every entry as a whole that something was cut from: what is left of it nobody meant.
    pub(crate) fn new(mut shared: Arc<Node>) -> Self {
        if !is_damaged(&shared) {
            return Self(shared);
        }
        let tree = Arc::make_mut(&mut shared);
        for path in SECTIONS {
            let section = path.iter().try_fold(&mut *tree, |node, step| match &mut node.value {
                Value::Map(entries) => {
                    entries.iter_mut().find(|(key, _)| key.name == *step).map(|(_, node)| node)
                }
                _ => None,
            });
            let entries: Vec<&mut Node> = match section.map(|node| &mut node.value) {
                Some(Value::Map(entries)) => entries.iter_mut().map(|(_, node)| node).collect(),
                Some(Value::List(items)) => items.iter_mut().collect(),
                _ => continue,
            };
            for entry in entries {
                if is_damaged(entry) {
                    entry.value = Value::Cut;
                }
            }
        }
        Self(shared)
    }

    /// What is left.
    pub(crate) fn rest(&self) -> Arc<Node> {
        Arc::clone(&self.0)
    }

    /// The names in a section, also those of what was cut.
    pub(crate) fn names(&self, section: &[&str]) -> Vec<&str> {
        match self.at(section).map(|node| &node.value) {
            Ok(Value::Map(entries)) => entries.iter().map(|(key, _)| key.name.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a name that a section does not have may stand for something that was cut.
    pub(crate) fn may_name(&self, section: &[&str], name: &str) -> bool {
        match self.at(section) {
            Ok(node) => is_cut(node) || self.names(section).contains(&name),
            Err(doubt) => doubt,
        }
    }

    /// Whether something at this path was cut.
    pub(crate) fn touch(&self, path: &[&str]) -> bool {
        self.at(path).map_or_else(|doubt| doubt, is_damaged)
    }

    /// What stands at a path. If nothing does: whether it may have been cut, or misspelt, or stand
    /// in a file that could not be read.
    fn at(&self, path: &[&str]) -> Result<&Node, bool> {
        if self.0.get("include").is_some() {
            return Err(true);
        }
        path.iter().try_fold(&*self.0, |node, step| {
            let Value::Map(entries) = &node.value else { return Err(is_cut(node)) };
            node.get(step).ok_or_else(|| entries.iter().any(|(_, node)| is_cut(node)))
        })
    }
}

fn is_cut(node: &Node) -> bool {
    matches!(node.value, Value::Cut)
}

fn is_damaged(node: &Node) -> bool {
    match &node.value {
        Value::Cut => true,
        Value::List(items) => items.iter().any(is_damaged),
        Value::Map(entries) => entries.iter().any(|(_, node)| is_damaged(node)),
        _ => false,
    }
}
