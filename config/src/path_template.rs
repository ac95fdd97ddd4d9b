//! `/v1/services/{service}/running`: which paths a route takes.

use std::{borrow::Cow, cmp::Ordering, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Which paths a route takes: text, `{name}` for exactly one segment, and `/**` at the end for
/// whatever follows, for example `/v1/services/{service}/running` or `/api/catalog/**`.
///
/// Of several routes that take a path the most exact one wins, whatever their order: text before
/// `{name}` before `/**`, from left to right.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    /// The segments, in order.
    pub segments: Vec<Segment>,
    /// Whether anything may follow (`/**`), or nothing.
    pub open_ended: bool,
}

/// One segment of a [`PathTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, in the normal form of paths.
    Text(String),
    /// Any one segment that is not empty, under this name.
    Parameter(String),
}

impl FromStr for PathTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "`{}` {why}; write for example `/v1/services/{{service}}` or `/api/catalog/**`",
                text.escape_debug()
            ))
        };
        let Some(path) = text.strip_prefix('/') else {
            return wrong("does not begin with `/`");
        };
        let (path, open_ended) = match path.strip_suffix("**") {
            Some("") => ("", true),
            Some(path) if path.ends_with('/') => (&path[..path.len() - 1], true),
            Some(_) => return wrong("may have `**` only as its last segment"),
            None => (path, false),
        };
        if path.is_empty() {
            return Ok(Self { segments: Vec::new(), open_ended });
        }
        let mut segments: Vec<Segment> = Vec::new();
        for (index, segment) in path.split('/').enumerate() {
            let last = index == path.matches('/').count();
            let name = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            segments.push(match name {
                Some(name) => {
                    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                    if name.is_empty() || !name.bytes().all(plain) {
                        return wrong("has a parameter that is not `{name}`");
                    }
                    let parameter = Segment::Parameter(name.to_owned());
                    if segments.contains(&parameter) {
                        return wrong("names a parameter twice");
                    }
                    parameter
                }
                None if segment.is_empty() && (!last || open_ended) => {
                    return wrong("has an empty segment");
                }
                // A trailing slash is an empty last segment: it is another path than without.
                None if matches!(segment, "." | "..") => return wrong("has a dot segment"),
                None => {
                    let plain =
                        |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@".contains(&b);
                    if !segment.bytes().all(plain) {
                        return wrong("has characters that must be escaped in a path segment");
                    }
                    Segment::Text(segment.to_owned())
                }
            });
        }
        Ok(Self { segments, open_ended })
    }
}

impl PathTemplate {
    /// The template of everything under `prefix` that `self` takes under the root.
    pub fn under(&self, prefix: &Self) -> Self {
        let segments = prefix.segments.iter().chain(&self.segments).cloned().collect();
        Self { segments, open_ended: self.open_ended }
    }

    /// Which is the more exact for a path that both take: `Greater` if this is. `None` if there is no such
    /// path.
    pub fn beside(&self, other: &Self) -> Option<Ordering> {
        let mut order = Ordering::Equal;
        for index in 0.. {
            let (here, there) = match (self.segments.get(index), other.segments.get(index)) {
                (Some(here), Some(there)) => (here, there),
                (None, None) => return Some(order.then(other.open_ended.cmp(&self.open_ended))),
                (Some(_), None) => {
                    return other.open_ended.then_some(order.then(Ordering::Greater));
                }
                (None, Some(_)) => return self.open_ended.then_some(order.then(Ordering::Less)),
            };
            order = order.then(match (here, there) {
                (Segment::Text(a), Segment::Text(b)) if a != b => return None,
                (Segment::Text(_), Segment::Parameter(_)) => Ordering::Greater,
                (Segment::Parameter(_), Segment::Text(_)) => Ordering::Less,
                _ => Ordering::Equal,
            });
        }
        None
    }

    /// Whether it has every text of `other`, each at its place.
    pub fn names(&self, other: &Self) -> bool {
        other.segments.iter().enumerate().all(|(index, segment)| match segment {
            Segment::Text(_) => self.segments.get(index) == Some(segment),
            Segment::Parameter(_) => true,
        })
    }

    /// The paths that both take, if they do (see [`Self::beside`]).
    pub(crate) fn and(&self, other: &Self) -> Self {
        let count = self.segments.len().max(other.segments.len());
        let at = |index: usize| match (self.segments.get(index), other.segments.get(index)) {
            (Some(Segment::Parameter(_)), Some(there)) => Some(there.clone()),
            (here, there) => here.or(there).cloned(),
        };
        let open_ended = self.open_ended && other.open_ended;
        Self { segments: (0..count).filter_map(at).collect(), open_ended }
    }

    /// Whether it takes every path that `other` takes.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let fits = |(index, segment): (usize, &Segment)| match other.segments.get(index) {
            Some(there) => matches!(segment, Segment::Parameter(_)) || there == segment,
            None => false,
        };
        let ends =
            self.open_ended || (!other.open_ended && self.segments.len() == other.segments.len());
        ends && self.segments.iter().enumerate().all(fits)
    }

    /// Whether it is one path below the root, and stands for no other.
    pub fn is_plain(&self) -> bool {
        let text = |segment: &Segment| matches!(segment, Segment::Text(text) if !text.is_empty());
        !self.open_ended && !self.segments.is_empty() && self.segments.iter().all(text)
    }

    /// Whether it has a parameter of this name.
    pub fn has(&self, parameter: &str) -> bool {
        self.segments.iter().any(|s| matches!(s, Segment::Parameter(name) if name == parameter))
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Text(text) => write!(f, "/{text}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
            }
        }
        match (self.open_ended, self.segments.is_empty()) {
            (true, _) => f.write_str("/**"),
            (false, true) => f.write_str("/"),
            (false, false) => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for PathTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for PathTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for PathTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PathTemplate".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^/", "examples": ["/v1/services/{service}"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_reads_back_as_it_was_written() {
        for text in ["/", "/**", "/v1/health", "/v1/services/{service}/running", "/api/x/**", "/a/"]
        {
            assert_eq!(text.parse::<PathTemplate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_template_that_could_be_misread_is_refused() {
        for wrong in
            ["", "v1", "/a//b", "/a/**/b", "/a**", "/{}", "/{a}/{a}", "/a/../b", "/%61", "/a b"]
        {
            assert!(wrong.parse::<PathTemplate>().is_err(), "{wrong}");
        }
    }
}
