//! YAML as a tree in which every value knows its place.

use std::sync::Arc;

use crate::{
    Place, Problems,
    blame::blame,
    compose::{self, Fault, Wrong},
    syntax,
};

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What YAML can say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// `loose` if it came out of a `${VAR}`: it may then be read as a number or a truth value.
    Text {
        text: String,
        loose: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Something wrong that has been reported; as if it were not there, but not missing either.
    Cut,
}

/// A key and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

impl Node {
    /// Nothing, nowhere.
    pub(crate) fn none() -> Self {
        Self { place: Place::default(), value: Value::Null }
    }

    /// What a map has under this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
}

/// Reads one YAML document. An empty one is an empty map.
pub(crate) fn parse(file: &str, text: &str, problems: &mut Problems) -> Option<Node> {
    match compose::document(&Arc::from(file), text) {
        Ok(mut node) => {
            if matches!(node.value, Value::Null) {
                node.value = Value::Map(Vec::new());
            }
            Some(node)
        }
        Err(Wrong { place, fault }) => {
            // The parser often stumbles only over what a tab led to.
            let Fault::Syntax(error) = &fault else {
                problems.add(&place, syntax::sentence(&fault));
                return None;
            };
            if let Some(tab) = tab_near(text, &place) {
                problems.add(&tab, syntax::TAB);
            } else if let Some(blame) = blame(text, &place, error.kind()) {
                problems.add(&blame.place, blame.sentence);
            } else {
                problems.add(&place, syntax::sentence(&fault));
            }
            None
        }
    }
}

/// A tab in the indentation of the line of a mistake, or of the one after it.
fn tab_near(text: &str, at: &Place) -> Option<Place> {
    let lines = text.lines().enumerate().skip(at.line.saturating_sub(1) as usize).take(2);
    for (number, line) in lines {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if line[indent..].starts_with('\t') {
            let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
            return Some(Place {
                file: Arc::clone(&at.file),
                line: count(number),
                column: count(indent),
            });
        }
    }
    None
}
