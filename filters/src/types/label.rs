//! Names from outside, made safe.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A name from outside, safe to put in a header, a log line or a metric.
///
/// Invariant: 1 to 256 visible ASCII characters and inner spaces.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Label(Arc<str>);

impl Label {
    /// The longest label, in bytes.
    pub const LENGTH_MAX: usize = 256;

    /// A label of `text`, if it is safe unchanged.
    pub fn new(text: &str) -> Option<Self> {
        let safe = (1..=Self::LENGTH_MAX).contains(&text.len())
            && text.bytes().all(|b| (b' '..=b'~').contains(&b))
            && !text.starts_with(' ')
            && !text.ends_with(' ');
        safe.then(|| Self(text.into()))
    }

    /// Makes `text` safe: characters that a label cannot have become `?`, and a longer text is truncated.
    pub fn lossy(text: &str) -> Self {
        let safe: String = text
            .trim()
            .chars()
            .take(Self::LENGTH_MAX)
            .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
            .collect();
        let safe = safe.trim();
        Self(if safe.is_empty() { "?".into() } else { safe.into() })
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Label {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl From<&config::Name> for Label {
    fn from(name: &config::Name) -> Self {
        Self(name.shared())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_never_breaks_a_line_or_a_header() {
        let check =
            |text: &str, fits: bool| assert_eq!(Label::new(text).is_some(), fits, "{text:?}");
        check("user:default/ada", true);
        check("two words", true);
        check("", false);
        check(" ", false);
        check("a\nb", false);
        check("a\u{0}", false);
        check("ädä", false);
        check(&"x".repeat(257), false);
        assert_eq!(&*Label::lossy("a\r\nx: y\u{202e}"), "a??x: y?");
        assert_eq!(&*Label::lossy("\n"), "?");
    }
}
