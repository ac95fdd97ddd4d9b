//! The schema of the config, for editors, and its manual, for people. Both from the doc comments.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::{Config, ControlDocument, renamed};

/// The JSON Schema (draft 2020-12) of a config file.
pub fn json_schema() -> String {
    let mut schema = schemars::schema_for!(Config);
    let include = serde_json::json!({
        "type": "array",
        "items": {"type": "string"},
        "description": "Further files, relative to this one; `*` matches any text in a file name."
    });
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert("include".to_owned(), include);
    }
    if let Some(definitions) = schema.get_mut("$defs") {
        renamed::add_to_schema(definitions);
    }
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

/// The JSON Schema (draft 2020-12) of what a control source may answer.
pub fn control_schema() -> String {
    let schema = schemars::schema_for!(ControlDocument);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

/// The manual: every key with its type, its default and what it does.
pub fn markdown() -> String {
    let schema: Value = serde_json::from_str(&json_schema()).expect("just written");
    let mut out = String::from(
        "# Configuration\n\n\
         Generated from the doc comments by `stagedoor schema --markdown`; do not edit.\n\n\
         Values may contain `${VAR}`, `${VAR:-default}` and `$$`. `include: [workspaces/*.yaml]` adds\n\
         further files. Check a file with `stagedoor check -c FILE`.\n\n\
         Relative paths of files and folders are relative to the folder in which Stagedoor is started; those of\n\
         `include` are relative to the file that names them. `check --files` reports what cannot be read.\n",
    );
    section(&mut out, "The file", &schema);
    let empty = Map::new();
    let definitions = schema["$defs"].as_object().unwrap_or(&empty);
    for (name, definition) in definitions {
        section(&mut out, name, definition);
    }
    out += &renamed::markdown();
    out
}

/// The keys that a struct of the config must have, by the struct's name.
pub(crate) fn required(structure: &str) -> Vec<String> {
    let schema = schemars::schema_for!(Config);
    let root = schema.as_value();
    let of = if structure == "Config" { root } else { &root["$defs"][structure] };
    let names = of["required"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn section(out: &mut String, name: &str, schema: &Value) {
    let about = one_line(&schema["description"]);
    let _ = write!(out, "\n## {name}\n\n{about}\n");
    if let Some(properties) = schema["properties"].as_object() {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let _ = write!(out, "\n| key | type | default | what it does |\n|---|---|---|---|\n");
        for (key, property) in properties.iter().filter(|(_, property)| is_current(property)) {
            let default = match &property["default"] {
                Value::Null if required.contains(&key.as_str()) => "required".to_owned(),
                Value::Null => String::new(),
                Value::Object(_) => "see there".to_owned(),
                value => format!("`{value}`"),
            };
            let about = one_line(&property["description"]);
            let _ = writeln!(out, "| `{key}` | {} | {default} | {about} |", kind(property));
        }
    }
    let choices = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    for choice in choices
        .into_iter()
        .flatten()
        .filter(|choice| choice["const"].is_string() && is_current(choice))
    {
        let _ = writeln!(
            out,
            "\n- `{}`: {}",
            choice["const"].as_str().unwrap_or_default(),
            one_line(&choice["description"])
        );
    }
}

/// Whether it is not an old name of something.
fn is_current(schema: &Value) -> bool {
    schema["deprecated"] != true
}

fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_ascii_lowercase());
    }
    let inner =
        schema["anyOf"].as_array().or(schema["allOf"].as_array()).or(schema["oneOf"].as_array());
    if let Some(kinds) = inner {
        let kinds: Vec<String> = kinds.iter().map(kind).filter(|k| k != "null").collect();
        return kinds.join(" or ");
    }
    if schema["additionalProperties"].is_object() {
        return format!("map of {}", kind(&schema["additionalProperties"]));
    }
    if let Some((_, value)) = schema["patternProperties"].as_object().and_then(|p| p.iter().next())
    {
        return format!("map of {}", kind(value));
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) => match schema["examples"][0].as_str() {
            Some(example) => format!("`{example}`"),
            None => name.clone(),
        },
        Value::Array(names) => {
            let names: Vec<&str> =
                names.iter().filter_map(Value::as_str).filter(|n| *n != "null").collect();
            match (names.as_slice(), schema["examples"][0].as_str()) {
                (["array"], _) => format!("list of {}", kind(&schema["items"])),
                (_, Some(example)) => format!("`{example}`"),
                (names, None) => names.join(" or "),
            }
        }
        _ => "any".to_owned(),
    }
}

fn one_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}
