//! Typed values out of a tree, all mistakes at once.
//!
//! serde stops at the first mistake. So what is wrong is noted, cut out of the tree, and the rest
//! read again, until nothing wrong is left.

use std::sync::Arc;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor, value::StrDeserializer,
};

use crate::{
    Place, Problems,
    located::{self, MARK},
    tree::{Key, Node, Value},
    words,
};

pub(crate) use crate::words::suggestion;

/// More mistakes than this are not looked for.
const MISTAKES_MAX: usize = 100;

/// Reads a value, noting every mistake. `None` if there was one.
pub(crate) fn read<T: DeserializeOwned>(
    tree: impl Into<Arc<Node>>,
    problems: &mut Problems,
) -> Option<T> {
    let before = problems.len();
    let (value, _) = read_on(&tree.into(), problems)?;
    (problems.len() == before).then_some(value)
}

/// Reads a value, noting every mistake: what it is without them, and the tree without them, which is
/// the same tree if there are none. `None` if nothing is left.
pub(crate) fn read_on<T: DeserializeOwned>(
    tree: &Arc<Node>,
    problems: &mut Problems,
) -> Option<(T, Arc<Node>)> {
    let mut rest = Arc::clone(tree);
    for _ in 0..MISTAKES_MAX {
        let mut mistake = match T::deserialize(Reader { node: &rest }) {
            Ok(value) => return Some((value, rest)),
            Err(mistake) => mistake,
        };
        let mut path = std::mem::take(&mut mistake.path);
        path.reverse();
        let place = mistake.place.as_ref().unwrap_or(&rest.place);
        match mistake.missing {
            Some(first) => {
                if at(&rest, &path).is_some_and(|node| matches!(node.value, Value::Null)) {
                    let empty = shown(&path);
                    problems.add(place, format!("{empty} has nothing below it; add `{first}: ...` there, indented further than its name"));
                } else {
                    for name in all_missing(&rest, &path, first, mistake.structure) {
                        problems.add(place, format!("`{name}` is missing in {}", shown(&path)));
                    }
                }
            }
            None if mistake.follows_from_a_cut(&rest, &path) => {}
            None => problems.add(place, mistake.message.about(&shown(&path))),
        }
        path.extend(mistake.unknown);
        match find(Arc::make_mut(&mut rest), &path) {
            Some(node) if !path.is_empty() => node.value = Value::Cut,
            _ => return None,
        }
    }
    None
}

fn shown(path: &[String]) -> String {
    let mut shown = String::new();
    for step in path {
        if !shown.is_empty() && !step.starts_with('[') {
            shown.push('.');
        }
        shown.extend(step.escape_debug());
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

/// What a map lacks, without what was cut from it: that has been reported. serde tells only the
/// first; the schema knows the others.
fn all_missing(
    tree: &Node,
    path: &[String],
    first: &'static str,
    structure: Option<&'static str>,
) -> Vec<String> {
    let entries = match at(tree, path) {
        Some(Node { value: Value::Map(entries), .. }) => entries.as_slice(),
        _ => &[],
    };
    let mut names = vec![first.to_owned()];
    let required = structure.map(crate::schema::required).unwrap_or_default();
    names.extend(required.into_iter().filter(|name| name != first));
    names.retain(|name| !entries.iter().any(|(key, _)| key.name == *name));
    names
}

fn at<'a>(tree: &'a Node, path: &[String]) -> Option<&'a Node> {
    path.iter().try_fold(tree, |node, step| match &node.value {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.name == *step).map(|e| &e.1),
        Value::List(items) => items.get(step.trim_matches(['[', ']']).parse::<usize>().ok()?),
        _ => None,
    })
}

#[derive(Debug)]
pub(crate) struct Mistake {
    message: Box<Message>,
    place: Option<Place>,
    /// From the inside out.
    path: Vec<String>,
    missing: Option<&'static str>,
    /// The struct that `missing` is missing in.
    structure: Option<&'static str>,
    unknown: Option<String>,
}

impl Mistake {
    fn new(message: Message) -> Self {
        Self {
            message: Box::new(message),
            place: None,
            path: Vec::new(),
            missing: None,
            structure: None,
            unknown: None,
        }
    }

    fn about(before: impl Into<String>, after: impl Into<String>) -> Self {
        Self::new(Message::About(before.into(), after.into()))
    }

    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    fn within(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }

    /// Whether a list or map was judged as a whole after something was cut from it.
    fn follows_from_a_cut(&self, tree: &Node, path: &[String]) -> bool {
        let cut = |node: &Node| matches!(node.value, Value::Cut);
        let judged = self.unknown.is_none() && matches!(*self.message, Message::Plain(_));
        judged
            && match at(tree, path).map(|node| &node.value) {
                Some(Value::List(items)) => items.iter().any(cut),
                Some(Value::Map(entries)) => entries.iter().any(|(_, node)| cut(node)),
                _ => false,
            }
    }

    /// Notes the struct that was being read, if the mistake is its own and not of one inside it.
    fn of(mut self, structure: &'static str) -> Self {
        if self.path.is_empty() {
            self.structure.get_or_insert(structure);
        }
        self
    }
}

/// A sentence, most often about a path that is known only further out.
#[derive(Debug)]
enum Message {
    Plain(String),
    /// Before the path, after the path.
    About(String, String),
}

impl Message {
    fn about(&self, path: &str) -> String {
        match self {
            Self::Plain(message) => message.clone(),
            Self::About(before, after) => format!("{before}{path}{after}"),
        }
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message.about("this"))
    }
}

impl std::error::Error for Mistake {}

impl serde::de::Error for Mistake {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match words::of_others(&message) {
            Some(words) => Self::about("", words),
            None => Self::new(Message::Plain(message)),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = words::wanted(&expected.to_string(), found);
        Self::about("", format!(" is {}, expected {wanted}", words::found(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let (shown, hint) = (words::short(field), words::suggestion(field, expected));
        Self {
            unknown: Some(field.to_owned()),
            ..Self::about(format!("unknown key `{shown}` in "), format!("; {hint}"))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let (shown, hint) = (words::short(variant), words::suggestion(variant, expected));
        Self::about("", format!(" cannot be `{shown}`; {hint}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::about(format!("`{field}` is missing in "), "") }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::about(format!("`{field}` appears twice in "), "")
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
                _ => Err(Mistake::about("", format!(" is `{value}`, a number that is too large"))),
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
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            // `${X:-}`: nothing, where nothing is a choice.
            Value::Text { text, loose: true } if matches!(text.as_str(), "" | "~" | "null") => {
                visitor.visit_none()
            }
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
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let found = match &self.node.value {
            Value::Null | Value::Cut | Value::Map(_) => {
                return self.deserialize_map(visitor).map_err(|mistake| mistake.of(name));
            }
            // serde would take a list for the fields in their order, which nobody means.
            Value::List(_) => Unexpected::Seq,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Integer(value) => match i64::try_from(*value) {
                Ok(value) => Unexpected::Signed(value),
                Err(_) => Unexpected::Other("a number"),
            },
            Value::Float(value) => Unexpected::Float(*value),
            Value::Text { text, .. } => Unexpected::Str(text),
        };
        self.placed(Err(Mistake::invalid_type(found, &words::Keys(fields))))
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
            return self.placed(Err(Mistake::about("", format!(" is a single word; {hint}"))));
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
        Err(Mistake::about("", " is a single word"))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Mistake> {
        Err(Mistake::about("", " is a single word"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Mistake> {
        Err(Mistake::about("", " is a single word"))
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{Located, tree};

    fn read_text<T: DeserializeOwned>(text: &str) -> Result<T, Vec<String>> {
        let mut problems = Problems::default();
        let read = tree::parse("t", text, &mut problems).and_then(|tree| read(tree, &mut problems));
        read.ok_or_else(|| problems.iter().map(ToString::to_string).collect())
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
    enum Tagged {
        File { path: Located<String> },
        Redis { address: String, database: Option<u8> },
    }

    #[test]
    fn a_value_knows_its_place() {
        let all: Vec<Located<String>> = read_text("- a\n-   b\n").unwrap();
        let places: Vec<String> = all.iter().map(|item| item.place.to_string()).collect();
        assert_eq!(places, ["t:1:3", "t:2:5"]);
    }

    #[test]
    fn another_deserializer_gives_no_place() {
        let _: Vec<Located<String>> = read_text("- a\n- b\n").unwrap();
        let other: Located<String> = serde_json::from_str("\"a\"").unwrap();
        assert_eq!(other.place, Place::default());
    }

    #[test]
    fn a_mistake_behind_a_tag_is_told_at_the_nearest_known_place() {
        let read: Vec<Tagged> = read_text("- {kind: file, path: /a}\n").unwrap();
        assert_eq!(read, [Tagged::File { path: Located::nowhere("/a".to_owned()) }]);
        assert_eq!(
            read_text::<Vec<Tagged>>("- {kind: file}\n- {kind: fil}\n- {path: a}\n"),
            Err(vec![
                "t:1:3: `path` is missing in `[0]`".to_owned(),
                "t:2:10: `[1].kind` cannot be `fil`; did you mean `file`?".to_owned(),
                "t:3:3: `kind` is missing in `[2]`".to_owned(),
            ])
        );
        assert_eq!(
            read_text::<Vec<Tagged>>("- kind: redis\n  address: a\n  database: many\n"),
            Err(vec!["t:1:3: `[0]` is the text `many`, expected a whole number".to_owned()])
        );
    }
}
