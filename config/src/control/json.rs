//! JSON as a tree, strictly: no name stands twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::{
    Place, Problems,
    tree::{Key, Node, Value},
};

/// Reads one JSON text. All of it is at `place`: most answers are one long line.
pub(super) fn parse(place: &Place, text: &[u8], problems: &mut Problems) -> Option<Node> {
    match serde_json::from_slice::<Raw>(text) {
        Ok(raw) => Some(raw.at(place)),
        Err(error) => {
            // The library's sentence may quote what was sent, and that may be a secret.
            let (line, column) = (error.line(), error.column());
            let what = if error.to_string().starts_with(TWICE) {
                "a name appears twice in an object"
            } else {
                "this is not JSON"
            };
            problems.add(place, format!("{what}, at line {line}, column {column} of the response"));
            None
        }
    }
}

const TWICE: &str = "appears twice";

enum Raw {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Raw>),
    Map(Vec<(String, Raw)>),
}

impl Raw {
    fn at(self, place: &Place) -> Node {
        let value = match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Integer(value) => Value::Integer(value),
            Self::Float(value) => Value::Float(value),
            Self::Text(text) => Value::Text { text, loose: false },
            Self::List(items) => {
                Value::List(items.into_iter().map(|item| item.at(place)).collect())
            }
            Self::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(name, value)| (Key { name, place: place.clone() }, value.at(place)))
                    .collect(),
            ),
        };
        Node { place: place.clone(), value }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Raw::List(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let (mut all, mut names) = (Vec::new(), std::collections::HashSet::new());
        while let Some((name, value)) = entries.next_entry::<String, Raw>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(TWICE));
            }
            all.push((name, value));
        }
        Ok(Raw::Map(all))
    }
}
