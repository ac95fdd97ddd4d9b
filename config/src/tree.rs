//! YAML as a tree in which every value knows its place.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Error, Location, Spanned};

use crate::{
    Place, Problems,
    syntax::{self, DEPTH_MAX},
};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What YAML can say.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

impl Node {
    /// What a map has under this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
}

/// Reads one YAML document. An empty one is an empty map.
pub(crate) fn parse(file: &str, text: &str, problems: &mut Problems) -> Option<Node> {
    let file: Arc<str> = file.into();
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, flow_nesting_limit: DEPTH_MAX },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => {
            let mut node = place(&file, raw);
            if matches!(node.value, Value::Null) {
                node.value = Value::Map(Vec::new());
            }
            Some(node)
        }
        Err(error) => {
            let at = spot(&file, error.location().unwrap_or(Location::UNKNOWN));
            // The parser often stumbles only over what a tab led to.
            match tab_near(text, &at).filter(|_| matches!(error, Error::ExternalMessage { .. })) {
                Some(tab) => problems.add(&tab, syntax::TAB),
                None => problems.add(&at, syntax::sentence(&error)),
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

fn spot(file: &Arc<str>, at: Location) -> Place {
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    Place { file: Arc::clone(file), line: count(at.line()), column: count(at.column()) }
}

fn place(file: &Arc<str>, raw: Spanned<Raw>) -> Node {
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Integer(value) => Value::Integer(value),
        Raw::Float(value) => Value::Float(value),
        Raw::Text(text) => Value::Text { text, loose: false },
        Raw::List(items) => Value::List(items.into_iter().map(|item| place(file, item)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = Key { place: spot(file, key.referenced), name: key.value };
                    (key, place(file, value))
                })
                .collect(),
        ),
    };
    Node { place: spot(file, raw.referenced), value }
}

enum Raw {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> de::Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Raw, D::Error> {
        Raw::deserialize(inner)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }
    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Raw::List(all))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            all.push(entry);
        }
        Ok(Raw::Map(all))
    }
}
