//! What a deserializer expected and found, in words for the one who wrote the file.

use std::fmt;

use serde::de::{Expected, Unexpected};

/// What stands there.
pub(crate) fn found(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => format!("the text `{}`", short(text)),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        Unexpected::Unit => "empty".to_owned(),
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(n) => format!("the number `{n}`"),
        Unexpected::Signed(n) => format!("the number `{n}`"),
        Unexpected::Float(n) => format!("the number `{n}`"),
        other => other.to_string(),
    }
}

/// What serde expected, as one writes it in YAML.
pub(crate) fn wanted(expected: &str, found: Unexpected<'_>) -> String {
    let words = match (expected, found) {
        ("a string" | "path string", Unexpected::Seq | Unexpected::Map | Unexpected::Unit) => {
            "a text"
        }
        ("a string" | "path string", _) => "text; put it in quotes",
        ("a sequence", Unexpected::Str(text)) if is_plain(text) => {
            return format!("a list; write `[{text}]`");
        }
        ("a sequence", _) => "a list; write `[...]` or lines that begin with `-`",
        ("a boolean", Unexpected::Str("true" | "false")) => "`true` or `false`; remove the quotes",
        ("a boolean", _) => "`true` or `false`",
        ("socket address", _) => "an address and a port; write for example `127.0.0.1:8080`",
        ("a map", _) => "a map; write `key: value` lines",
        _ => return number(expected, found).unwrap_or_else(|| expected.to_owned()),
    };
    words.to_owned()
}

/// What a type that is not ours says of a text it cannot read, in our words.
pub(crate) fn of_others(message: &str) -> Option<&'static str> {
    match message {
        "invalid socket address syntax" => {
            Some(" is not an IP address with a port; write for example `127.0.0.1:8080`")
        }
        "invalid IP address syntax" => {
            Some(" is not a range of IP addresses; write for example `10.0.0.0/8`")
        }
        _ => None,
    }
}

/// A number, if `u16` or `a nonzero u16` or their like was expected.
fn number(expected: &str, found: Unexpected<'_>) -> Option<String> {
    let max = match expected.rsplit(' ').next()? {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" => u64::MAX,
        _ => return None,
    };
    Some(match found {
        Unexpected::Str(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            "a whole number; remove the quotes".to_owned()
        }
        Unexpected::Unsigned(_) | Unexpected::Signed(_) if max < u64::MAX => {
            let min = u8::from(expected.contains("nonzero"));
            format!("a whole number from {min} to {max}")
        }
        _ => "a whole number".to_owned(),
    })
}

/// A map, by the keys it may have.
pub(crate) struct Keys(pub(crate) &'static [&'static str]);

impl Expected for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("a map"),
            [only] => write!(f, "a map; write `{{{only}: ...}}`"),
            [first, second, ..] => write!(f, "a map with keys such as `{first}` and `{second}`"),
        }
    }
}

/// `did you mean ...`, or what there is.
pub fn suggestion(given: &str, known: &[&str]) -> String {
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

/// A text of the operator's, fit for one line. Long ones are cut: they could be a pasted key.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// Whether a text may stand in `[...]` without quotes.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
    (1..=40).contains(&text.len()) && text.bytes().all(plain)
}
