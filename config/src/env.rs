//! `${VAR}`, `${VAR:-default}` and `$$` in values.

use std::borrow::Cow;

use crate::{
    Problems,
    tree::{Node, Value},
};

/// What means something to YAML between braces and brackets (`{folder: ${VAR}}`), and what stands for it
/// while the text is parsed: characters of Unicode's private use area, one for one, so that every
/// place stays as it is.
const HIDDEN: [(char, char); 5] =
    [('{', '\u{f5a0}'), ('}', '\u{f5a1}'), ('[', '\u{f5a2}'), (']', '\u{f5a3}'), (',', '\u{f5a4}')];

/// A text whose variables are plain words to YAML, wherever they stand.
pub(crate) fn hidden(text: &str) -> Cow<'_, str> {
    // A text that has those characters itself is left as it is.
    if !text.contains("${") || HIDDEN.iter().any(|(_, hidden)| text.contains(*hidden)) {
        return Cow::Borrowed(text);
    }
    let mut new = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, variable) = rest.split_at(start);
        let end = variable.find('}').filter(|end| is_variable(&variable[2..*end]));
        new.push_str(before);
        let Some(end) = end else {
            new.push_str("${");
            rest = &variable[2..];
            continue;
        };
        let replace = |c: char| HIDDEN.iter().find(|(one, _)| *one == c).map_or(c, |(_, h)| *h);
        new.extend(variable[..=end].chars().map(replace));
        rest = &variable[end + 1..];
    }
    new.push_str(rest);
    Cow::Owned(new)
}

/// Whether this is what stands in `${}`: without a quote, which would belong to YAML.
fn is_variable(inner: &str) -> bool {
    let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && name.bytes().all(plain) && !default.contains(['"', '\'', '\n'])
}

/// The text again as it was written.
pub(crate) fn shown(text: Cow<'_, str>) -> Cow<'_, str> {
    if !HIDDEN.iter().any(|(_, hidden)| text.contains(*hidden)) {
        return text;
    }
    let back = |c: char| HIDDEN.iter().find(|(_, hidden)| *hidden == c).map_or(c, |(one, _)| *one);
    Cow::Owned(text.chars().map(back).collect())
}

/// Replaces variables in every text of a tree. `variable` answers with a variable's value.
pub(crate) fn interpolate(
    node: &mut Node,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) {
    match &mut node.value {
        Value::Text { text, loose } if text.contains('$') => match replaced(text, variable) {
            Ok(new) => {
                *text = new;
                *loose = true;
            }
            Err(message) => {
                problems.add(&node.place, message);
                node.value = Value::Cut;
            }
        },
        Value::List(items) => items.iter_mut().for_each(|i| interpolate(i, variable, problems)),
        Value::Map(entries) => {
            entries.iter_mut().for_each(|(_, value)| interpolate(value, variable, problems));
        }
        _ => {}
    }
}

fn replaced(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut new = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        new.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            new.push('$');
            rest = after;
            continue;
        }
        let Some(after) = rest.strip_prefix('{') else {
            return Err(
                "a single `$` has no meaning; write `${VAR}`, or `$$` for a dollar sign".to_owned()
            );
        };
        let Some((inner, after)) = after.split_once('}') else {
            return Err("`${` without a closing `}`; write `${VAR}`".to_owned());
        };
        rest = after;
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!(
                "`${{{}}}` names no variable; write `${{VAR}}`",
                inner.escape_debug()
            ));
        }
        if default.is_some_and(|default| default.contains("${")) {
            return Err(format!(
                "the default of `${{{name}}}` contains a variable; a default must be plain text"
            ));
        }
        match variable(name).filter(|value| !(value.is_empty() && default.is_some())) {
            Some(value) => new.push_str(&value),
            None => match default {
                Some(default) => new.push_str(default),
                None => {
                    return Err(format!(
                        "`${{{name}}}` is not set; set it, or write `${{{name}:-default}}`"
                    ));
                }
            },
        }
    }
    new.push_str(rest);
    Ok(new)
}
