//! Typed values out of a tree, all mistakes at once.
//!
//! serde stops at the first mistake. So what is wrong is noted, cut out of the tree, and the rest
//! read again, until nothing wrong is left.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor, value::StrDeserializer,
};

use crate::{
    Place, Problems,
    located::{self, MARK},
    tree::{Key, Node, Value},
};

/// More mistakes than this are not looked for.
const MISTAKES_MAX: usize = 100;

/// Reads a value, noting every mistake. `None` if there was one.
pub(crate) fn read<T: DeserializeOwned>(tree: &Node, problems: &mut Problems) -> Option<T> {
    let before = problems.len();
    let mut rest = tree.clone();
    for _ in 0..MISTAKES_MAX {
        let mistake = match T::deserialize(Reader { node: &rest }) {
            Ok(value) if problems.len() == before => return Some(value),
            Ok(_) => return None,
            Err(mistake) => mistake,
        };
        let mut path = mistake.path;
        path.reverse();
        // What is missing because it was cut has been reported.
        if !mistake.missing.is_some_and(|name| is_cut(&rest, &path, name)) {
            let place = mistake.place.unwrap_or_else(|| rest.place.clone());
            problems.add(&place, mistake.message.replace("{path}", &shown(&path)));
        }
        path.extend(mistake.unknown);
        match find(&mut rest, &path) {
            Some(node) if !path.is_empty() => node.value = Value::Cut,
            _ => return None,
        }
    }
    None
}

/// `did you mean ...`, or what there is.
pub(crate) fn suggestion(given: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(given.len()) / 4)
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, name)) = near {
        return format!("did you mean `{name}`?");
    }
    if known.is_empty() {
        return "there is none".to_owned();
    }
    let all: Vec<String> = known.iter().take(20).map(|name| format!("`{name}`")).collect();
    format!("there is {}", all.join(", "))
}

fn shown(path: &[String]) -> String {
    let mut shown = String::new();
    for step in path {
        if !shown.is_empty() && !step.starts_with('[') {
            shown.push('.');
        }
        shown.push_str(step);
    }
    if shown.is_empty() { "the top level".to_owned() } else { format!("`{shown}`") }
}

fn find<'a>(node: &'a mut Node, path: &[String]) -> Option<&'a mut Node> {
    let [step, rest @ ..] = path else { return Some(node) };
    let next = match &mut node.value {
        // Of two keys of the same name the last is meant, for the first has been cut.
        Value::Map(entries) => entries
            .iter_mut()
            .find(|(key, node)| key.name == *step && !matches!(node.value, Value::Cut))
            .map(|(_, node)| node),
        Value::List(items) => {
            let number = step.trim_matches(['[', ']']).parse::<usize>().ok()?;
            items.get_mut(number)
        }
        _ => None,
    };
    find(next?, rest)
}

fn is_cut(tree: &Node, path: &[String], name: &str) -> bool {
    let mut node = tree;
    for step in path {
        let next = match &node.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.name == *step),
            Value::List(items) => {
                let number = step.trim_matches(['[', ']']).parse::<usize>().ok();
                match number.and_then(|n| items.get(n)) {
                    Some(item) => {
                        node = item;
                        continue;
                    }
                    None => None,
                }
            }
            _ => None,
        };
        let Some((_, next)) = next else { return false };
        node = next;
    }
    let Value::Map(entries) = &node.value else { return false };
    entries.iter().any(|(key, node)| key.name == name && matches!(node.value, Value::Cut))
}

#[derive(Debug)]
pub(crate) struct Mistake {
    message: String,
    place: Option<Place>,
    /// From the inside out.
    path: Vec<String>,
    missing: Option<&'static str>,
    unknown: Option<String>,
}

impl Mistake {
    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    fn within(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl serde::de::Error for Mistake {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            place: None,
            path: Vec::new(),
            missing: None,
            unknown: None,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(text) => format!("the text `{}`", text.escape_debug()),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Bool(value) => format!("`{value}`"),
            Unexpected::Unsigned(n) => format!("the number `{n}`"),
            Unexpected::Signed(n) => format!("the number `{n}`"),
            Unexpected::Float(n) => format!("the number `{n}`"),
            other => other.to_string(),
        };
        let wanted = expected.to_string();
        let wanted = match wanted.as_str() {
            "a string" => "a text; put it in quotes",
            "a sequence" => "a list; write `[...]` or lines that begin with `-`",
            "a boolean" => "`true` or `false`",
            "a map" => "a map; write `key: value` lines",
            text if text.starts_with("struct ") => "a map; write `key: value` lines",
            text if text.starts_with("u8")
                || text.starts_with("u16")
                || text.starts_with("u32")
                || text.starts_with("u64")
                || text.contains("nonzero") =>
            {
                "a whole number"
            }
            text => text,
        };
        Self::custom(format!("{{path}} is {found}, expected {wanted}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let hint = suggestion(field, expected);
        Self {
            unknown: Some(field.to_owned()),
            ..Self::custom(format!("unknown key `{}` in {{path}}; {hint}", field.escape_debug()))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = suggestion(variant, expected);
        Self::custom(format!("{{path}} cannot be `{}`; {hint}", variant.escape_debug()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::custom(format!("`{field}` is missing in {{path}}")) }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` stands twice in {{path}}"))
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
}

impl<'de> Reader<'de> {
    fn placed<T>(self, result: Result<T, Mistake>) -> Result<T, Mistake> {
        result.map_err(|mistake| mistake.at(&self.node.place))
    }

    /// A text that came out of a `${VAR}`, as what it looks like.
    fn loose(self) -> Option<Value> {
        let Value::Text { text, loose: true } = &self.node.value else { return None };
        if let Ok(value) = text.parse::<i128>() {
            return Some(Value::Integer(value));
        }
        text.parse::<bool>().ok().map(Value::Bool)
    }

    fn visit<V: Visitor<'de>>(self, value: &'de Value, visitor: V) -> Result<V::Value, Mistake> {
        match value {
            Value::Null | Value::Cut => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => Err(Mistake::custom(format!("{{path}}: `{value}` is too large a number"))),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text { text, .. } => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            self.placed(match self.loose() {
                Some(Value::Integer(n)) if u64::try_from(n).is_ok() => {
                    visitor.visit_u64(u64::try_from(n).expect("just tried"))
                }
                Some(Value::Bool(value)) => visitor.visit_bool(value),
                _ => self.visit(&self.node.value, visitor),
            })
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.placed(self.visit(&self.node.value, visitor))
    }

    numbers!(deserialize_bool deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u128 deserialize_i128);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        if name == MARK {
            located::reading_at(&self.node.place);
        }
        self.placed(visitor.visit_newtype_struct(self))
    }

    /// A key with nothing after it is an empty map: every setting of it may have a default.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.placed(match &self.node.value {
            Value::Null => visitor.visit_map(Entries { entries: &[], next: 0 }),
            value => self.visit(value, visitor),
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.placed(match &self.node.value {
            Value::Null => visitor.visit_seq(Items { items: &[], next: 0 }),
            value => self.visit(value, visitor),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let Value::Text { text, .. } = &self.node.value else {
            let hint = suggestion("", variants);
            return self.placed(Err(Mistake::custom(format!("{{path}} is one word; {hint}"))));
        };
        self.placed(visitor.visit_enum(Variant(text)))
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Variant<'a>(&'a str);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Mistake> {
        Ok((seed.deserialize(StrDeserializer::new(self.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Mistake> {
        Err(Mistake::custom("{path} is one word"))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Mistake> {
        Err(Mistake::custom("{path} is one word"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Mistake> {
        Err(Mistake::custom("{path} is one word"))
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        let (node, step) = loop {
            let Some(node) = self.items.get(self.next) else { return Ok(None) };
            let step = format!("[{}]", self.next);
            self.next += 1;
            if !matches!(node.value, Value::Cut) {
                break (node, step);
            }
        };
        let item = seed.deserialize(Reader { node });
        item.map(Some).map_err(|mistake| mistake.at(&node.place).within(step))
    }
}

struct Entries<'a> {
    entries: &'a [(Key, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        while let Some((_, Node { value: Value::Cut, .. })) = self.entries.get(self.next) {
            self.next += 1;
        }
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        let text: StrDeserializer<'_, Mistake> = StrDeserializer::new(&key.name);
        seed.deserialize(text).map(Some).map_err(|mut mistake| {
            // A key that is no name has to go, as one that nobody knows.
            mistake.unknown.get_or_insert_with(|| key.name.clone());
            mistake.at(&key.place)
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        let (key, node) = &self.entries[self.next];
        self.next += 1;
        let value = seed.deserialize(Reader { node });
        value.map_err(|mistake| mistake.at(&node.place).within(&key.name))
    }
}
