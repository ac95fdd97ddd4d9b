//! Makes the tree out of what the YAML parser reads, within bounds: how deep, and how many values
//! its aliases may stand for.
//!
//! Without a deserializer in between: a config of 10,000 routes is 160,000 values, each with its place.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::{
    Place, env, scalar,
    tree::{Key, Node, Value},
};

/// Levels of lists and maps, one in the other. The config needs eight; every level costs stack.
const DEPTH_MAX: usize = 24;
/// Values and keys of one file, with those that its aliases stand for. A long text counts as several.
const VALUES_MAX: usize = 1_000_000;
const TEXT_BYTES: usize = 64;

/// Where something is wrong, and what.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) place: Place,
    pub(crate) fault: Fault,
}

/// What can be wrong with a text before anybody asks what it means.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is no YAML.
    Syntax(ScanError),
    /// A second document begins.
    SecondDocument,
    TooDeep,
    TooManyValues,
    /// This key has stood there before.
    Twice(String),
    EmptyKey,
    /// A list or a map where a key should be.
    KeyOfParts,
    /// An alias within what its anchor names.
    WithinItself,
    /// `<<` with something that is no map.
    Merge,
    UnknownTag,
    /// The value is not what its tag says.
    WrongTag,
    /// Infinite, not a number, or too large.
    Uncountable,
}

/// The one document that a text holds; null if it holds nothing.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn document(file: &Arc<str>, text: &str) -> Result<Node, Wrong> {
    let mut options = granit_parser::options! { flow_nesting_limit: DEPTH_MAX, block_nesting_limit: 2 * DEPTH_MAX };
    options.set_emit_comments(false);
    let text = env::hidden(text);
    let parser = Parser::new_from_str_with_options(&text, options);
    let mut composer = Composer { parser, file, anchored: HashMap::new(), values: 0 };
    let mut found = None;
    while let Some((event, span)) = composer.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            _ if found.is_some() => return Err(composer.wrong(&span, Fault::SecondDocument)),
            event => found = Some(composer.node(event, &span, 1)?),
        }
    }
    let nothing =
        || Node { place: Place { file: Arc::clone(file), line: 1, column: 1 }, value: Value::Null };
    Ok(found.unwrap_or_else(nothing))
}

struct Composer<'t> {
    parser: Parser<'t, StrInput<'t>>,
    file: &'t Arc<str>,
    /// What anchors name.
    anchored: HashMap<usize, Anchored>,
    values: usize,
}

/// What an anchor names, and how large it is.
struct Anchored {
    node: Node,
    values: usize,
    levels: usize,
}

type Read<'t> = (Event<'t>, Span);

impl<'t> Composer<'t> {
    fn next(&mut self) -> Result<Option<Read<'t>>, Wrong> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(read)) => Ok(Some(read)),
            Some(Err(error)) => {
                let place = self.place(error.marker().line(), error.marker().col());
                Err(Wrong { place, fault: Fault::Syntax(error) })
            }
        }
    }

    /// As `next`, where the parser says that there is more.
    fn more(&mut self) -> Result<Read<'t>, Wrong> {
        Ok(self.next()?.expect("the parser ends what it begins"))
    }

    fn place(&self, line: usize, column: usize) -> Place {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).max(1);
        Place { file: Arc::clone(self.file), line: count(line), column: count(column + 1) }
    }

    fn at(&self, span: &Span) -> Place {
        self.place(span.start.line(), span.start.col())
    }

    fn wrong(&self, span: &Span, fault: Fault) -> Wrong {
        Wrong { place: self.at(span), fault }
    }

    fn count(&mut self, event: &Event<'_>, span: &Span) -> Result<(), Wrong> {
        self.values += event.scalar().map_or(1, |(text, _)| 1 + text.len() / TEXT_BYTES);
        if self.values > VALUES_MAX { Err(self.wrong(span, Fault::TooManyValues)) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Wrong> {
        if let Event::Alias(anchor) = event {
            return self.alias(anchor, span, depth);
        }
        let before = self.values;
        self.count(&event, span)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(text, style, tag.as_deref(), span)?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.container(tag.as_deref(), "seq", span, depth)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.container(tag.as_deref(), "map", span, depth)?;
                (self.map(depth)?, anchor)
            }
            other => unreachable!("{other:?} begins no value"),
        };
        let node = Node { place: self.at(span), value };
        if anchor != 0 {
            let (node, values) = (node.clone(), self.values - before);
            self.anchored.insert(anchor, Anchored { levels: levels(&node), node, values });
        }
        Ok(node)
    }

    /// What the anchor names, at the place of the alias; all within it stays where it was written.
    fn alias(&mut self, anchor: usize, span: &Span, depth: usize) -> Result<Node, Wrong> {
        let Some(Anchored { node, values, levels }) = self.anchored.get(&anchor) else {
            return Err(self.wrong(span, Fault::WithinItself));
        };
        if depth + levels > DEPTH_MAX + 1 {
            return Err(self.wrong(span, Fault::TooDeep));
        }
        // Before it is copied: an alias costs what it stands for.
        self.values = self.values.saturating_add(*values);
        if self.values > VALUES_MAX {
            return Err(self.wrong(span, Fault::TooManyValues));
        }
        Ok(Node { place: self.at(span), value: node.value.clone() })
    }

    fn container(
        &self,
        tag: Option<&Tag>,
        name: &str,
        span: &Span,
        depth: usize,
    ) -> Result<(), Wrong> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(span, Fault::TooDeep));
        }
        match tag {
            Some(tag) if tag.is_custom() => Err(self.wrong(span, Fault::UnknownTag)),
            Some(tag) if !tag.is_yaml_core_schema_tag(name) => {
                Err(self.wrong(span, Fault::WrongTag))
            }
            _ => Ok(()),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut items = Vec::new();
        loop {
            match self.more()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut map = Map::default();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.more()?;
            if event == Event::MappingEnd {
                break;
            }
            let is_merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let name = self.key(event, &span)?;
            let (event, value_span) = self.more()?;
            let node = self.node(event, &value_span, depth + 1)?;
            if is_merge {
                merged.push((node, value_span));
                continue;
            }
            if !map.takes(&name) {
                return Err(self.wrong(&span, Fault::Twice(name)));
            }
            map.entries.push((Key { name, place: self.at(&span) }, node));
        }
        for (node, span) in merged {
            let maps = match node.value {
                Value::Null => continue,
                Value::List(maps) => maps,
                _ => vec![node],
            };
            for part in maps {
                let Value::Map(entries) = part.value else {
                    return Err(self.wrong(&span, Fault::Merge));
                };
                // What the map says itself counts, and of what it merges the first.
                for (key, node) in entries {
                    if map.takes(&key.name) {
                        map.entries.push((key, node));
                    }
                }
            }
        }
        Ok(Value::Map(map.entries))
    }

    fn key(&mut self, event: Event<'t>, span: &Span) -> Result<String, Wrong> {
        let before = self.values;
        self.count(&event, span)?;
        let (name, is_plain) = match event {
            Event::Scalar(name, style, anchor, tag) => {
                let name = env::shown(name).into_owned();
                if let Some(tag) = tag.as_deref() {
                    let quoted = ScalarStyle::SingleQuoted;
                    let value = self.scalar(Cow::Borrowed(&name), quoted, Some(tag), span)?;
                    if !matches!(value, Value::Text { .. }) {
                        return Err(self.wrong(span, Fault::WrongTag));
                    }
                }
                if anchor != 0 {
                    let node = Node { place: self.at(span), value: scalar::text(name.clone()) };
                    self.anchored
                        .insert(anchor, Anchored { node, values: self.values - before, levels: 0 });
                }
                (name, matches!(style, ScalarStyle::Plain))
            }
            Event::Alias(anchor) => match self.alias(anchor, span, 0)?.value {
                Value::Text { text, .. } => (text, false),
                _ => return Err(self.wrong(span, Fault::KeyOfParts)),
            },
            _ => return Err(self.wrong(span, Fault::KeyOfParts)),
        };
        if is_plain && scalar::resolve(&name) == Some(Value::Null) {
            return Err(self.wrong(span, Fault::EmptyKey));
        }
        Ok(name)
    }

    fn scalar(
        &self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: &Span,
    ) -> Result<Value, Wrong> {
        let text = env::shown(text);
        let is_plain = matches!(style, ScalarStyle::Plain);
        let resolved =
            |text: &str| scalar::resolve(text).ok_or_else(|| self.wrong(span, Fault::Uncountable));
        let Some(tag) = tag else {
            return if is_plain { resolved(&text) } else { Ok(scalar::text(text)) };
        };
        // `!` alone says: a text, whatever it looks like.
        if tag.parts() == ("", "!") {
            return Ok(scalar::text(text));
        }
        let value = match tag.core_suffix() {
            None => return Err(self.wrong(span, Fault::UnknownTag)),
            Some("str") => return Ok(scalar::text(text)),
            Some(_) => resolved(&text)?,
        };
        match (tag.core_suffix(), value) {
            (Some("null"), Value::Null) => Ok(Value::Null),
            (Some("bool"), Value::Bool(value)) => Ok(Value::Bool(value)),
            (Some("int"), Value::Integer(value)) => Ok(Value::Integer(value)),
            (Some("float"), Value::Float(value)) => Ok(Value::Float(value)),
            #[expect(clippy::cast_precision_loss, reason = "that is what the tag asks for")]
            (Some("float"), Value::Integer(value)) => Ok(Value::Float(value as f64)),
            _ => Err(self.wrong(span, Fault::WrongTag)),
        }
    }
}

/// How many lists and maps are in each other, at most.
fn levels(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| levels(node)).max().unwrap_or(0),
        _ => 0,
    }
}

/// From how many keys on they are looked up.
const MANY: usize = 16;

/// A map that is being read.
#[derive(Default)]
struct Map {
    entries: Vec<(Key, Node)>,
    /// All keys, once they are many.
    names: HashSet<String>,
}

impl Map {
    /// Whether this key has not been there yet. It must be put there then.
    fn takes(&mut self, name: &str) -> bool {
        if self.entries.len() < MANY {
            return self.entries.iter().all(|(key, _)| key.name != name);
        }
        if self.names.is_empty() {
            self.names.extend(self.entries.iter().map(|(key, _)| key.name.clone()));
        }
        self.names.insert(name.to_owned())
    }
}

#[cfg(test)]
mod peer;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn read(text: &str) -> Result<Node, (String, String)> {
        document(&Arc::from("t"), text)
            .map_err(|Wrong { place, fault }| (place.to_string(), crate::syntax::sentence(&fault)))
    }

    /// As JSON, to be told at a glance.
    pub(super) fn shown(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => format!("{value:?}"),
            Value::Text { text, .. } => format!("{text:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(","))
            }
            Value::Map(entries) => {
                let entry = |(key, node): &(Key, Node)| format!("{:?}:{}", key.name, shown(node));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
            }
            Value::Cut => unreachable!("nothing was cut"),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text).map(|node| shown(&node)).as_deref(), Ok(expected), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, place: &str, sentence: &str) {
        let (at, told) = read(text).expect_err(text);
        assert_eq!((at.as_str(), told.contains(sentence)), (place, true), "{text}: {told}");
    }

    #[test]
    fn an_alias_stands_for_what_its_anchor_names() {
        check(
            "a: &x {n: 1}\nb: *x\nc: [*x, *x]\n",
            r#"{"a":{"n":1},"b":{"n":1},"c":[{"n":1},{"n":1}]}"#,
        );
        check("a: &x 1\nb: &x 2\nc: *x\n", r#"{"a":1,"b":2,"c":2}"#);
        check("&k a: 1\nb: *k\n", r#"{"a":1,"b":"a"}"#);
        check("a: &k word\n*k : 1\n", r#"{"a":"word","word":1}"#);
        refused("a: &x [1]\n*x : 1\n", "t:2:1", "a key must be a word");
        refused("a: &x [1, {b: *x}]\n", "t:1:15", "inside its own anchor");
        let node = read("a: &x {n: 1}\nb:\n  *x\n").unwrap();
        let Value::Map(inner) = &node.get("b").unwrap().value else { panic!("{node:?}") };
        assert_eq!(node.get("b").unwrap().place.to_string(), "t:3:3");
        assert_eq!(inner[0].0.place.to_string(), "t:1:8");
    }

    #[test]
    fn a_merged_map_says_what_is_not_said_beside_it() {
        check(
            "a: &x {n: 1, m: 2}\nb: {<<: *x, n: 3}\n",
            r#"{"a":{"n":1,"m":2},"b":{"n":3,"m":2}}"#,
        );
        check(
            "a: &x {n: 1}\nb: &y {n: 2, m: 2}\nc: {<<: [*x, *y]}\n",
            r#"{"a":{"n":1},"b":{"n":2,"m":2},"c":{"n":1,"m":2}}"#,
        );
        check("b: {<<: {n: 1}, <<: {n: 2, m: 2}}\n", r#"{"b":{"n":1,"m":2}}"#);
        check("b: {'<<': {n: 1}}\n", r#"{"b":{"<<":{"n":1}}}"#);
        refused("b: {<<: 1}\n", "t:1:9", "`<<` takes a map");
        refused("b: {<<: [{n: 1}, 2]}\n", "t:1:9", "`<<` takes a map");
    }

    #[test]
    fn a_key_stands_once_in_maps_of_any_size() {
        for count in [2, MANY, MANY + 1, 1000] {
            let text: String = (0..count).map(|n| format!("k{n}: {n}\n")).collect();
            assert!(read(&text).is_ok());
            refused(&format!("{text}k0: 1\n"), &format!("t:{}:1", count + 1), "`k0` appears twice");
            let last = count - 1;
            refused(&format!("{text}k{last}: 1\n"), &format!("t:{}:1", count + 1), "appears twice");
        }
    }

    #[test]
    fn tags_of_yaml_itself_are_held_to() {
        check(
            "[!!str 1, ! 1, !!int '1', !!float 1, !!bool true, !!null ~, !!map {}, !!seq []]",
            r#"["1","1",1,1.0,true,null,{},[]]"#,
        );
        check("!!str 1: x", r#"{"1":"x"}"#);
        for wrong in
            ["!!int a", "!!bool 1", "!!null a", "!!map []", "!!seq {}", "!!str []", "!!int 1: x"]
        {
            let (_, told) = read(wrong).expect_err(wrong);
            assert!(told.contains("does not match its tag"), "{wrong}: {told}");
        }
        for unknown in ["!a x", "!!binary aGk=", "!!set {}", "!<x> y", "!x []"] {
            let (_, told) = read(unknown).expect_err(unknown);
            assert!(told.contains("have no meaning here"), "{unknown}: {told}");
        }
    }

    #[test]
    fn aliases_make_nothing_deeper_than_could_be_written() {
        let mut chain = "a0: &a0 [[[[[[[[[[]]]]]]]]]]\n".to_owned();
        for level in 1..2000 {
            chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        refused(&chain, "t:15:12", "nested deeper");
    }

    #[test]
    fn aliases_of_a_long_text_are_counted_by_its_length() {
        let long = "x".repeat(1 << 20);
        assert!(read(&format!("[&a {long}, {}*a]", "*a, ".repeat(50))).is_ok());
        let (_, told) =
            read(&format!("[&a {long}, {}*a]", "*a, ".repeat(100))).expect_err("64 MiB");
        assert!(told.contains("or its aliases, has more values"), "{told}");
        let (_, told) =
            read(&format!("[? &a {long}\n: 1, {}*a]", "*a, ".repeat(100))).expect_err("64 MiB");
        assert!(told.contains("or its aliases, has more values"), "{told}");
    }

    #[test]
    fn a_text_may_hold_no_document_but_not_two() {
        for nothing in ["", "# only this\n", "---\n", "\u{feff}", "~\n"] {
            check(nothing, "null");
        }
        check("\u{feff}a: 1\n", r#"{"a":1}"#);
        check("%YAML 1.2\n---\na: 1\n...\n", r#"{"a":1}"#);
        refused("a: 1\n---\nb: 2\n", "t:3:1", "a second YAML document");
    }
}
