//! What redaction lets out is, to serde_json, what came in without the members that are named; nothing leaves
//! that serde_json cannot read. How an answer is cut into parts changes nothing.

use std::fmt;

use bytes::Bytes;
use filters::redact::{
    answer::{Kind, Redactor},
    redact,
};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

const KINDS: [Kind; 4] = [Kind::Json, Kind::Lines, Kind::Events, Kind::Sniffed];

/// The first byte says how long the parts are in which the rest comes.
pub fn check(bytes: &[u8]) {
    let Some((length, text)) = bytes.split_first() else { return };
    let names = ["secret".to_owned(), "a".to_owned()];
    if let Ok(kept) = redact(text, &names) {
        let came = read(text).expect("serde_json reads what is taken");
        assert_eq!(read(&kept).expect("serde_json reads what is left"), without(came, &names));
    }
    for kind in KINDS {
        let whole = left(kind, text, text.len(), &names);
        assert_eq!(left(kind, text, usize::from(*length), &names), whole, "{kind:?}");
        if let Some(left) = whole {
            nothing_named_leaves(kind, &left, &names);
        }
    }
}

/// What leaves of an answer, if all of it may.
fn left(kind: Kind, text: &[u8], length: usize, names: &[String]) -> Option<Vec<u8>> {
    let mut redactor = Redactor::new(kind);
    let mut left = Vec::new();
    for part in text.chunks(length.max(1)) {
        left.extend(redactor.part(Bytes::copy_from_slice(part), false, names).ok()?);
    }
    left.extend(redactor.part(Bytes::new(), true, names).ok()?);
    Some(left)
}

/// As a client reads it: the text that a browser decodes (without a byte order mark), all of it, each line, or
/// each event's data.
fn nothing_named_leaves(kind: Kind, left: &[u8], names: &[String]) {
    let left = left.strip_prefix(b"\xef\xbb\xbf").unwrap_or(left);
    let none_named = |text: &[u8]| {
        if let Ok(value) = read(text) {
            assert_eq!(value, without(value.clone(), names), "{kind:?} lets it out");
        }
    };
    match kind {
        Kind::Json => none_named(left),
        Kind::Sniffed => none_named(left),
        Kind::Lines => left.split(|b| *b == b'\n').for_each(none_named),
        Kind::Events => events(left).iter().for_each(|data| none_named(data)),
    }
}

/// The data of events, by the rules of HTML 9.2.6.
fn events(text: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n").replace('\r', "\n");
    let (mut all, mut data) = (Vec::new(), String::new());
    for line in text.split('\n') {
        if line.is_empty() {
            data.pop();
            all.push(std::mem::take(&mut data).into_bytes());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            data.push_str(value.strip_prefix(' ').unwrap_or(value));
            data.push('\n');
        }
    }
    all
}

/// A JSON text with every member, also those that stand twice.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Plain(serde_json::Value),
    List(Vec<Value>),
    Members(Vec<(String, Value)>),
}

fn read(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(text)
}

fn without(value: Value, names: &[String]) -> Value {
    match value {
        Value::Plain(_) => value,
        Value::List(items) => Value::List(items.into_iter().map(|it| without(it, names)).collect()),
        Value::Members(members) => {
            let left = members.into_iter().filter(|(name, _)| !names.contains(name));
            Value::Members(left.map(|(name, value)| (name, without(value, names))).collect())
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Every)
    }
}

struct Every;

impl<'de> Visitor<'de> for Every {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Plain(serde_json::Value::Null))
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::List(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(Value::Members(all))
    }
}
