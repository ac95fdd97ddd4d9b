//! The body of a GraphQL request, parsed to its root fields.

use std::borrow::Cow;

use apollo_parser::{
    Lexer, Parser, Token, TokenKind,
    cst::{self, CstNode},
};
use serde_json::{Map, Value};

use crate::types::json;

/// The one operation of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Query or mutation.
    pub kind: Kind,
    /// Its root fields, in order, fragments spread out.
    pub fields: Vec<Field>,
}

/// The kind of an operation. A subscription needs a stream, and is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads.
    Query,
    /// It changes something.
    Mutation,
}

/// A root field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the schema.
    pub name: Box<str>,
    /// Its name in the response: the alias, if it has one.
    pub key: Box<str>,
    /// Its arguments, with variables filled in.
    pub arguments: Vec<Argument>,
    /// What is selected of it: key and name.
    pub selected: Vec<(Box<str>, Box<str>)>,
}

/// An argument of a root field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: Box<str>,
    /// Its value, if it is a string, or a number that an `ID` may be.
    pub text: Option<String>,
}

/// The maximum depth; no legitimate request is deeper.
const DEPTH_MAX: usize = 64;
const TOKENS_MAX: usize = 4000;
const FIELDS_MAX: usize = 100;
/// Fragments at the root, one within another.
const SPREADS_MAX: usize = 8;

impl Kind {
    /// Its keyword.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
        }
    }
}

impl Field {
    /// The text of an argument that is given exactly once.
    pub fn text(&self, name: &str) -> Option<String> {
        let mut given = self.arguments.iter().filter(|argument| &*argument.name == name);
        match (given.next(), given.next()) {
            (Some(argument), None) => argument.text.clone(),
            _ => None,
        }
    }
}

type Why = &'static str;

/// Reads a body.
pub(super) fn read(body: &[u8]) -> Result<Operation, Why> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err("it is a batch; send one operation for each request");
    }
    let members =
        json::object(body).map_err(|_| "it is not a JSON object, or a member is repeated")?;
    let Some(Value::String(text)) = members.get("query") else {
        return Err("it has no `query`");
    };
    let none = Map::new();
    let variables = match members.get("variables") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err("its `variables` are not an object"),
    };
    let called = match members.get("operationName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.as_str()),
        Some(_) => return Err("its `operationName` is not a string"),
    };
    let text = without_empty_parens(text);
    let tree = Parser::new(&text).recursion_limit(DEPTH_MAX).token_limit(TOKENS_MAX).parse();
    if tree.errors().len() > 0 {
        return Err("its `query` cannot be parsed");
    }
    let document = Document::of(&tree.document())?;
    let name = document.operation.name().map(|name| name.text().to_string());
    if called.is_some_and(|called| name.as_deref() != Some(called)) {
        return Err("it has no operation with its `operationName`");
    }
    document.read(variables)
}

/// `text` with blanks in the place of `()`. Spacelift's own plugin sends `query GetStacks () {`, which the
/// grammar forbids and servers ignore.
fn without_empty_parens(text: &str) -> Cow<'_, str> {
    let (tokens, _) = Lexer::new(text).with_limit(TOKENS_MAX).lex();
    let means_something = |token: &&Token<'_>| {
        !matches!(token.kind(), TokenKind::Whitespace | TokenKind::Comment | TokenKind::Comma)
    };
    let tokens: Vec<&Token<'_>> = tokens.iter().filter(means_something).collect();
    let empty = tokens
        .windows(2)
        .filter(|pair| (pair[0].kind(), pair[1].kind()) == (TokenKind::LParen, TokenKind::RParen));
    let mut blanked = Cow::Borrowed(text);
    for paren in empty.flatten() {
        blanked.to_mut().replace_range(paren.index()..=paren.index(), " ");
    }
    blanked
}

/// A document with one operation.
struct Document {
    operation: cst::OperationDefinition,
    fragments: Vec<(String, cst::SelectionSet)>,
}

impl Document {
    fn of(document: &cst::Document) -> Result<Self, Why> {
        let (mut operations, mut fragments) = (Vec::new(), Vec::new());
        for definition in document.definitions() {
            match definition {
                cst::Definition::OperationDefinition(operation) => operations.push(operation),
                cst::Definition::FragmentDefinition(fragment) => {
                    let name = fragment.fragment_name().and_then(|name| name.name());
                    let name = name.ok_or("a fragment has no name")?.text().to_string();
                    if fragments.iter().any(|(other, _)| *other == name) {
                        return Err("a fragment is defined twice");
                    }
                    let selected = fragment.selection_set().ok_or("a fragment selects nothing")?;
                    fragments.push((name, selected));
                }
                _ => return Err("its `query` defines types"),
            }
        }
        let operation = operations.pop().ok_or("its `query` has no operation")?;
        // Which of them runs would be the server's choice.
        if !operations.is_empty() {
            return Err("its `query` has several operations; send one");
        }
        Ok(Self { operation, fragments })
    }

    fn read(&self, variables: &Map<String, Value>) -> Result<Operation, Why> {
        let kind = match self.operation.operation_type() {
            None => Kind::Query,
            Some(kind) if kind.query_token().is_some() => Kind::Query,
            Some(kind) if kind.mutation_token().is_some() => Kind::Mutation,
            Some(_) => return Err("it is a subscription"),
        };
        let variables = Variables { given: variables, defaults: self.defaults()? };
        let selected = self.operation.selection_set().ok_or("it selects nothing")?;
        let mut roots = Vec::new();
        self.spread(&selected, SPREADS_MAX, &mut roots)?;
        let mut fields = Vec::with_capacity(roots.len());
        for root in &roots {
            let (key, name) = names(root)?;
            let mut parts = Vec::new();
            if let Some(selected) = root.selection_set() {
                self.spread(&selected, SPREADS_MAX, &mut parts)?;
            }
            let given = root.arguments().into_iter().flat_map(|all| all.arguments());
            fields.push(Field {
                name,
                key,
                arguments: given
                    .map(|argument| variables.fill(&argument))
                    .collect::<Result<_, _>>()?,
                selected: parts.iter().map(names).collect::<Result<_, _>>()?,
            });
        }
        if fields.is_empty() {
            return Err("it selects nothing");
        }
        Ok(Operation { kind, fields })
    }

    fn defaults(&self) -> Result<Vec<(String, Option<cst::Value>)>, Why> {
        let mut all: Vec<(String, Option<cst::Value>)> = Vec::new();
        let written = self.operation.variable_definitions();
        for definition in written.into_iter().flat_map(|all| all.variable_definitions()) {
            let name = definition.variable().and_then(|variable| variable.name());
            let name = name.ok_or("a variable has no name")?.text().to_string();
            if all.iter().any(|(other, _)| *other == name) {
                return Err("a variable is defined twice");
            }
            all.push((name, definition.default_value().and_then(|default| default.value())));
        }
        Ok(all)
    }

    /// The fields of a selection, including those in fragments; directives that may skip one are ignored.
    fn spread(
        &self,
        selected: &cst::SelectionSet,
        deeper: usize,
        fields: &mut Vec<cst::Field>,
    ) -> Result<(), Why> {
        for selection in selected.selections() {
            let within = match selection {
                cst::Selection::Field(field) => {
                    if fields.len() == FIELDS_MAX {
                        return Err("it selects too much");
                    }
                    fields.push(field);
                    continue;
                }
                cst::Selection::InlineFragment(fragment) => fragment.selection_set(),
                cst::Selection::FragmentSpread(spread) => {
                    let name = spread.fragment_name().and_then(|name| name.name());
                    let name = name.map(|name| name.text().to_string()).unwrap_or_default();
                    let found = self.fragments.iter().find(|(own, _)| *own == name);
                    found.map(|(_, selected)| selected.clone())
                }
            };
            let within = within.ok_or("it uses a fragment that it does not define")?;
            let deeper = deeper.checked_sub(1).ok_or("its fragments are nested too deep")?;
            self.spread(&within, deeper, fields)?;
        }
        Ok(())
    }
}

/// What arguments may refer to.
struct Variables<'a> {
    given: &'a Map<String, Value>,
    defaults: Vec<(String, Option<cst::Value>)>,
}

impl Variables<'_> {
    fn fill(&self, argument: &cst::Argument) -> Result<Argument, Why> {
        let name = argument.name().ok_or("an argument has no name")?;
        let text = match argument.value().ok_or("an argument has no value")? {
            cst::Value::Variable(variable) => self.text(&variable)?,
            value => literal(&value),
        };
        Ok(Argument { name: name.text().as_str().into(), text })
    }

    fn text(&self, variable: &cst::Variable) -> Result<Option<String>, Why> {
        let name = variable.name().ok_or("a variable has no name")?.text().to_string();
        let defined = self.defaults.iter().find(|(own, _)| *own == name);
        let (_, default) = defined.ok_or("it uses a variable that it does not define")?;
        Ok(match self.given.get(&name) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) if number.is_i64() => Some(number.to_string()),
            Some(_) => None,
            None => default.as_ref().and_then(literal),
        })
    }
}

fn literal(value: &cst::Value) -> Option<String> {
    match value {
        cst::Value::StringValue(text) => Some(text.into()),
        cst::Value::IntValue(number) => Some(number.source_string().trim().to_owned()),
        _ => None,
    }
}

/// The field's name in the response, and in the schema.
fn names(field: &cst::Field) -> Result<(Box<str>, Box<str>), Why> {
    let name = field.name().ok_or("a field has no name")?.text();
    let alias = field.alias().and_then(|alias| alias.name()).map(|alias| alias.text());
    let key = alias.as_ref().map_or(name.as_str(), |alias| alias.as_str());
    Ok((key.into(), name.as_str().into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn ask(query: &str, variables: Value) -> Result<Operation, Why> {
        read(json!({"query": query, "variables": variables}).to_string().as_bytes())
    }

    #[track_caller]
    fn check(query: &str, shown: &str) {
        let operation = ask(query, Value::Null).unwrap();
        let names: Vec<&str> = operation.fields.iter().map(|field| &*field.name).collect();
        assert_eq!(format!("{} {}", operation.kind.name(), names.join(",")), shown, "{query}");
    }

    #[test]
    fn an_operation_is_its_root_fields() {
        check("{ stacks { id } }", "query stacks");
        check("query GetStacks { stacks { id runTrigger } }", "query stacks");
        check("mutation { runTrigger(stack: \"a\") { id } }", "mutation runTrigger");
        // An alias is only its name in the response.
        check("mutation { stacks: stackDelete(id: \"a\") { id } }", "mutation stackDelete");
        check("mutation { a: runTrigger(stack: \"a\"), b: x }", "mutation runTrigger,x");
        check(
            "mutation { ...F } fragment F on Mutation { x ...G } fragment G on Mutation { y }",
            "mutation x,y",
        );
        check("{ ... { a } ... on Query @include(if: false) { b } }", "query a,b");
        check("# mutation { x }\nquery { a }", "query a");
        check("query GetStacks () { stacks { id } }", "query stacks");
        check("{ a( # none\n ) b(c: \"()\") }", "query a,b");
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        let no = |body: &str| {
            let read = read(body.as_bytes());
            assert!(read.is_err(), "{body}: {read:?}");
        };
        for body in [
            "",
            "[]",
            " [{\"query\":\"{a}\"}]",
            "{}",
            "{\"query\":1}",
            "{\"query\":\"{a}\",\"query\":\"mutation{b}\"}",
            "{\"query\":\"{a}\",\"qu\\u0065ry\":\"mutation{b}\"}",
            "{\"query\":\"{a}\"} {\"query\":\"{a}\"}",
            "{\"query\":\"{a}\",\"variables\":[]}",
            "{\"query\":\"{a}\",\"operationName\":\"B\"}",
            "{\"query\":\"query A {a}\",\"operationName\":\"B\"}",
            "{\"extensions\":{\"persistedQuery\":{\"sha256Hash\":\"x\",\"version\":1}}}",
            "query=%7Ba%7D",
        ] {
            no(body);
        }
        for query in [
            "",
            "{",
            "{a}}",
            "{}",
            "query A {a} mutation B {b}",
            "subscription {a}",
            "{ ...F }",
            "{ ...F } fragment F on Query { ...F }",
            "{ ...F } fragment F on Query { a } fragment F on Query { b }",
            "type A { b: Int } query {a}",
            "query($a: ID, $a: ID) { b(c: $a) }",
            "{ a(b: $c) }",
            "fragment F on Query { a }",
            "{ a(b: ) }",
        ] {
            let asked = ask(query, Value::Null);
            assert!(asked.is_err(), "{query}: {asked:?}");
        }
        assert!(ask(&format!("{{ {} }}", "a ".repeat(200)), Value::Null).is_err());
        assert!(ask(&format!("{}{}", "{a".repeat(500), "}".repeat(500)), Value::Null).is_err());
    }

    #[test]
    fn an_argument_is_a_literal_a_variable_or_its_default() {
        let check = |query: &str, variables: Value, expected: Option<&str>| {
            let operation = ask(query, variables).unwrap();
            assert_eq!(operation.fields[0].text("stack").as_deref(), expected, "{query}");
        };
        let variable = "mutation($s: ID!) { runTrigger(stack: $s) { id } }";
        check("mutation { runTrigger(stack: \"a-\\u0062\") { id } }", json!({}), Some("a-b"));
        check("mutation { runTrigger(stack: \"\"\"a\"\"\") { id } }", json!({}), Some("a"));
        check("mutation { runTrigger(stack: 7) { id } }", json!({}), Some("7"));
        check(variable, json!({"s": "a"}), Some("a"));
        check(variable, json!({"s": 7}), Some("7"));
        check(variable, json!({"s": ["a"]}), None);
        check(variable, json!({"S": "a"}), None);
        check("mutation($s: ID = \"a\") { runTrigger(stack: $s) { id } }", json!({}), Some("a"));
        check(
            "mutation($s: ID = \"a\") { runTrigger(stack: $s) { id } }",
            json!({"s": null}),
            None,
        );
        check("mutation { runTrigger(stack: \"a\", stack: \"b\") { id } }", json!({}), None);
        check("mutation { runTrigger(other: \"a\") { id } }", json!({}), None);
        check("mutation { runTrigger(stack: [\"a\"]) { id } }", json!({}), None);
    }

    #[test]
    fn what_is_selected_of_a_field_is_known_by_its_key() {
        let operation = ask(
            "mutation { a: b(c: 1) { jwt token: jwt ...F } } fragment F on T { id }",
            Value::Null,
        );
        let field = &operation.unwrap().fields[0];
        let selected: Vec<(&str, &str)> =
            field.selected.iter().map(|(k, n)| (&**k, &**n)).collect();
        assert_eq!(
            (&*field.key, selected),
            ("a", vec![("jwt", "jwt"), ("token", "jwt"), ("id", "id")])
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(
            text in "(query|mutation|fragment F on|\\{|\\}|\\(|\\)|[a-z$:\"#@!\\[\\]\\\\]|\\.\\.\\.|\\PC| ){0,40}",
        ) {
            let _ = ask(&text, json!({"a": 1}));
            let _ = read(text.as_bytes());
        }
    }
}
