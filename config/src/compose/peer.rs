//! Another reader of YAML, which must find what ours finds.

use proptest::prelude::*;
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::{
    tests::{read, shown},
    *,
};

/// What another reader of YAML makes of it.
fn peer(text: &str) -> Option<Node> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, flow_nesting_limit: DEPTH_MAX },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let raw = serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options).ok()?;
    Some(placed(raw))
}

fn placed(raw: Spanned<Raw>) -> Node {
    let at = |at: serde_saphyr::Location| {
        let count = |n: u64| u32::try_from(n).unwrap();
        Place { file: Arc::from("t"), line: count(at.line()), column: count(at.column()) }
    };
    let value = match raw.value {
        Raw::Value(value) => value,
        Raw::List(items) => Value::List(items.into_iter().map(placed).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    (Key { place: at(key.defined), name: key.value }, placed(value))
                })
                .collect(),
        ),
    };
    Node { place: at(raw.referenced), value }
}

enum Raw {
    Value(Value),
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

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Value(Value::Null))
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Value(Value::Bool(value)))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Value(Value::Integer(value.into())))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Value(Value::Integer(value.into())))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Value(Value::Float(value)))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Value(scalar::text(text)))
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

/// Texts that are YAML, or nearly. Without the numbers that the peer reads in its own way
/// (`1_000`, `0b1`, `007`), and without tags.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("a"),
        Just("b"),
        Just("key"),
        Just("12"),
        Just("-3"),
        Just("0x1f"),
        Just("1.5"),
        Just("1e3"),
        Just("true"),
        Just("yes"),
        Just("null"),
        Just("~"),
        Just("10s"),
        Just("50/s"),
        Just("a b"),
        Just("'q: ''x'"),
        Just("\"d\\n\\u00e9\""),
        Just("http://h:1/p"),
        Just("é"),
        Just("*x"),
        Just("&x a"),
        Just("&x"),
        Just("<<"),
        Just("|\n   t\n   u\n"),
        Just(">-\n   t\n   u\n"),
    ];
    let mark = prop_oneof![
        Just(": "),
        Just(":\n  "),
        Just("\n"),
        Just("\n  "),
        Just("\n- "),
        Just("\n  - "),
        Just("- "),
        Just(", "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(" # c\n"),
        Just("\n---\n"),
        Just("? "),
        Just("\t"),
        Just(" "),
    ];
    prop::collection::vec((word, mark), 0..24)
        .prop_map(|all| all.into_iter().flat_map(|(word, mark)| [word, mark]).collect())
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9..1e9).prop_map(|n: f64| n.into()),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::hash_map("[a-z]{1,3}", inner, 0..8)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn another_reader_of_yaml_finds_the_same(text in nearly_yaml()) {
        let (ours, theirs) = (read(&text), peer(&text));
        prop_assert_eq!(ours.as_ref().ok().map(shown), theirs.as_ref().map(shown), "{:?}", ours);
        // The peer places what is merged or repeated where that is asked for.
        if !text.contains('*') && !text.contains("<<") {
            prop_assert_eq!(ours.ok(), theirs);
        }
    }

    #[test]
    fn no_text_is_too_odd(text in any::<String>()) {
        prop_assert_eq!(read(&text).ok().as_ref().map(shown), peer(&text).as_ref().map(shown));
    }

    #[test]
    fn json_is_yaml_as_well(value in value()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert_eq!(read(&text).map(|node| shown(&node)).ok(), peer(&text).as_ref().map(shown));
        }
    }
}
