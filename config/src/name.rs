//! Names that an operator gives to things.

use std::{borrow::Borrow, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// A name that the operator gives: to a workspace, a plugin, an upstream, a route.
///
/// 1 to 64 of the characters `a-z A-Z 0-9 . _ -`, beginning with a letter or digit, so that it needs no
/// quoting in a header, a metric label, a file name or a log line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Name(#[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))] Arc<str>);

impl Name {
    /// The longest name, in characters.
    pub const LENGTH_MAX: usize = 64;

    /// Whether `text` is a name.
    pub fn is_one(text: &str) -> bool {
        (1..=Self::LENGTH_MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }

    /// Takes `text` as a name.
    ///
    /// # Errors
    /// The sentence for the operator, if it is not one.
    pub fn new(text: &str) -> Result<Self, String> {
        if Self::is_one(text) {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "`{}` is not a name; use 1 to 64 of `a-z A-Z 0-9 . _ -`, a letter or digit first",
            text.escape_debug()
        ))
    }

    /// The name as text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_stand_anywhere_without_quoting() {
        let check = |text: &str, fits: bool| assert_eq!(Name::new(text).is_ok(), fits, "{text:?}");
        check("payments", true);
        check("spacelift-io", true);
        check("v1.2_x", true);
        check("", false);
        check("-x", false);
        check("a b", false);
        check("ä", false);
        check(&"a".repeat(64), true);
        check(&"a".repeat(65), false);
    }
}
