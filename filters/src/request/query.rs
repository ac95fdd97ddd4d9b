//! Rules for query parameters.

use std::borrow::Cow;

use crate::{Denial, Label, request::normal_form::decoded};

/// A route's rules for query parameters.
#[derive(Clone, Debug, Default)]
pub struct Query {
    remove: Vec<String>,
    allow: Vec<(String, Vec<String>)>,
}

impl From<&config::QueryRules> for Query {
    fn from(written: &config::QueryRules) -> Self {
        let allow = written.allow.iter().map(|(name, values)| (name.clone(), values.clone()));
        Self { remove: written.remove.clone(), allow: allow.collect() }
    }
}

impl Query {
    /// Judges a query; `Some` if it must be replaced by another.
    ///
    /// # Errors
    /// [`Denial::QueryRefused`] for a value that is not allowed.
    pub fn judge(&self, query: Option<&[u8]>) -> Result<Option<String>, Denial> {
        let Some(query) = query else { return Ok(None) };
        if self.remove.is_empty() && self.allow.is_empty() {
            return Ok(None);
        }
        // A query that is not UTF-8 cannot be compared, and no parameter with a rule needs it.
        let Ok(query) = std::str::from_utf8(query) else {
            return Err(Denial::QueryRefused { parameter: Label::lossy("?") });
        };
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = base(&decoded(name, true));
            if self.remove.contains(&name) {
                continue;
            }
            if let Some((_, values)) = self.allow.iter().find(|(allowed, _)| *allowed == name) {
                let value = decoded(value, true);
                if !values.iter().any(|allowed| *allowed == *value) {
                    return Err(Denial::QueryRefused { parameter: Label::lossy(&name) });
                }
            }
            kept.push(pair);
        }
        let joined = kept.join("&");
        Ok((joined != query).then_some(joined))
    }

    /// The values of each parameter with a rule: the allowed ones as configured, others as received.
    pub(crate) fn judged<'a>(
        &'a self,
        query: &'a [u8],
    ) -> impl Iterator<Item = (&'a str, Vec<Result<&'a str, Cow<'a, str>>>)> {
        let query = std::str::from_utf8(query).unwrap_or_default();
        self.allow.iter().map(move |(allowed, values)| {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let of_it = pairs.filter(|(name, _)| base(&decoded(name, true)) == *allowed);
            let judge = |value: &'a str| {
                let value = decoded(value, true);
                values.iter().find(|one| **one == *value).map(String::as_str).ok_or(value)
            };
            (allowed.as_str(), of_it.map(|(_, value)| judge(value)).collect())
        })
    }

    /// The parameters with a rule, and their allowed values.
    pub(crate) fn governed(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.allow.iter().map(|(name, values)| (name.as_str(), &**values))
    }
}

/// The name of a parameter without the array and object spellings that Node's parsers fold into
/// it: `org[]`, `org[0]`, `org[x]`.
fn base(name: &str) -> String {
    name.split('[').next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Query {
        Query {
            remove: vec!["host".to_owned()],
            allow: vec![("org".to_owned(), vec!["acme".to_owned(), "two words".to_owned()])],
        }
    }

    #[test]
    fn a_removed_parameter_is_gone_in_every_spelling() {
        for query in
            ["host=evil", "h%6Fst=evil", "host[]=evil", "host[0]=x", "host", "host%5B%5D=e"]
        {
            let both = format!("top=1&{query}&z=%20");
            assert_eq!(rules().judge(Some(both.as_bytes())), Ok(Some("top=1&z=%20".to_owned())));
        }
        assert_eq!(rules().judge(Some(b"hosts=1")), Ok(None));
        assert_eq!(rules().judge(None), Ok(None));
    }

    #[test]
    fn an_allowed_parameter_has_one_of_its_values() {
        let check = |query: &str, passes: bool| {
            assert_eq!(rules().judge(Some(query.as_bytes())).is_ok(), passes, "{query}");
        };
        check("org=acme", true);
        check("org=two+words", true);
        check("org=evil", false);
        check("org=acme&org=evil", false);
        check("org[]=evil", false);
        check("org", false);
        check("o%72g=evil", false);
        check("org=%ff", false);
    }
}
