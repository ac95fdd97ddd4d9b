//! Callers by what several claims say together.

use std::{borrow::Cow, fmt, str::FromStr};

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::Name;

/// What a token with matching claims gets, for example that of a CI job: `{claims: {repository: acme/shop,
/// ref: refs/heads/main}, workspaces: [shop], roles: [deployer]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimCaller {
    /// Claims by name, each with a pattern that its whole value must match. `*` matches any text without `/`
    /// and `:`, and `**` matches any text: `repo:acme/*:ref:refs/heads/main` matches every repository of
    /// `acme`, and no pull request. A claim must be a string; a missing one never matches.
    pub claims: IndexMap<String, ClaimPattern>,
    /// The caller's name, for example `service:shop-deploy`. Default: from the issuer's `claims.subject`.
    #[serde(default)]
    pub caller: Option<String>,
    /// Its roles, in addition to those of its token.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Its groups, in addition to those of its token.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Workspaces it may act for, in addition to those of its token.
    #[serde(default)]
    pub workspaces: Vec<Name>,
}

/// A pattern that a text fits as a whole, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ClaimPattern(String);

/// As many wildcards in one pattern: what is to be said with more can be said with several claims.
const WILDCARDS_MAX: usize = 8;
const LENGTH_MAX: usize = 512;

impl ClaimPattern {
    /// Whether this text fits.
    pub fn fits(&self, text: &str) -> bool {
        text.len() <= LENGTH_MAX * 2 && fits(self.0.as_bytes(), text.as_bytes())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether any text fits.
    pub fn is_open(&self) -> bool {
        self.0.bytes().all(|b| b == b'*')
    }
}

/// A place in the pattern, and one in the text.
type Back = Option<(usize, usize)>;

/// From the start to the end of both. A wildcard takes as little as it can and more when the rest does not
/// fit; of two in a row only the later is tried again, so a text costs its length times the pattern's.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows does not fit: the last `*`, and the last `**`.
    let (mut near, mut far): (Back, Back) = (None, None);
    loop {
        if pattern[p..].starts_with(b"**") {
            p += 2;
            (near, far) = (None, Some((p, t)));
            continue;
        }
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            near = Some((p, t));
            continue;
        }
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            _ => {}
        }
        if let Some((next, at)) = near
            && text.get(at).is_some_and(|b| !b"/:".contains(b))
        {
            near = Some((next, at + 1));
            (p, t) = (next, at + 1);
            continue;
        }
        match far {
            Some((next, at)) if at < text.len() => {
                (near, far) = (None, Some((next, at + 1)));
                (p, t) = (next, at + 1);
            }
            _ => return false,
        }
    }
}

impl FromStr for ClaimPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{}` {why}", text.escape_debug()));
        if text.is_empty() || text.len() > LENGTH_MAX {
            return wrong("is not a pattern; write for example `repo:acme/*:ref:refs/heads/main`");
        }
        if text.contains("***") {
            return wrong("has three stars in a row; write `*` or `**`");
        }
        if text.matches('*').count() > WILDCARDS_MAX {
            return wrong("has too many stars; use several claims");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClaimPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClaimPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for ClaimPattern {
    fn schema_name() -> Cow<'static, str> {
        "ClaimPattern".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": LENGTH_MAX})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        let pattern: ClaimPattern = pattern.parse().unwrap();
        assert_eq!(pattern.fits(text), expected, "{pattern} {text:?}");
    }

    #[test]
    fn a_pattern_fits_from_the_start_to_the_end() {
        let main = "repo:acme/shop:ref:refs/heads/main";
        check(main, main, true);
        for other in [
            "repo:acme/shop:ref:refs/heads/main2",
            "repo:acme/shop:ref:refs/heads/main ",
            "repo:acme/shop:ref:refs/heads/main\n",
            "xrepo:acme/shop:ref:refs/heads/main",
            "\nrepo:acme/shop:ref:refs/heads/main",
            "repo:acme/shop:ref:refs/heads/Main",
            "repo:acme/shop:ref:refs/heads",
            "",
        ] {
            check(main, other, false);
        }
    }

    #[test]
    fn a_star_stays_within_its_part() {
        let any = "repo:acme/*:ref:refs/heads/main";
        check(any, "repo:acme/shop:ref:refs/heads/main", true);
        check(any, "repo:acme/:ref:refs/heads/main", true);
        // Organisations and branches whose names were chosen to look alike.
        check(any, "repo:acme-evil/shop:ref:refs/heads/main", false);
        check(any, "repo:acme/shop/x:ref:refs/heads/main", false);
        check(any, "repo:acme/shop:environment:x:ref:refs/heads/main", false);
        check(any, "repo:evil/repo:acme/shop:ref:refs/heads/main", false);
        check("repo:acme/*", "repo:acme/shop:pull_request", false);
        check("refs/heads/*", "refs/heads/a/b", false);
        check("refs/tags/v*.*", "refs/tags/v1.2", true);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("*", "x:y", false);
        check("*b*", "abab", true);
        check("a*bc*d", "abbcbcd", true);
    }

    #[test]
    fn two_stars_go_everywhere() {
        check("repo:acme/**", "repo:acme/shop:ref:refs/heads/a/b", true);
        check("**", "", true);
        check("refs/heads/**", "refs/tags/refs/heads/x", false);
        check("**/main", "refs/heads/main", true);
        check("**/main", "refs/heads/main2", false);
        check("a**b*c", "a/b/bxc", true);
        check("a**b*c", "a/b/bx/c", false);
        check("a*b**c", "a/b/c", false);
        check("a*b**c", "axb/c", true);
    }

    #[test]
    fn a_pattern_costs_its_length_times_the_texts() {
        let pattern: ClaimPattern = "*a*a*a*a*a*a*a*b".parse().unwrap();
        assert!(!pattern.fits(&"a".repeat(1000)));
        let pattern: ClaimPattern = "**a*a**a*a**b".parse().unwrap_or_else(|why| panic!("{why}"));
        assert!(!pattern.fits(&"a".repeat(1000)));
        assert!(!"**".parse::<ClaimPattern>().unwrap().fits(&"a".repeat(2000)));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a***b", "*a*a*a*a*a*a*a*a*a", &"x".repeat(600)] {
            assert!(text.parse::<ClaimPattern>().is_err(), "{text}");
        }
    }
}
