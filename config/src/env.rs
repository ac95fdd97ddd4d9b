//! `${VAR}`, `${VAR:-default}` and `$$` in values.

use crate::{
    Problems,
    tree::{Node, Value},
};

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
                "a single `$` means nothing; write `${VAR}`, or `$$` for a dollar".to_owned()
            );
        };
        let Some((inner, after)) = after.split_once('}') else {
            return Err("`${` without its `}`; write `${VAR}`".to_owned());
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
                "the default of `${{{name}}}` holds a variable; a default is plain text"
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
