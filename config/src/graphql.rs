//! Which operations of a GraphQL API may be asked for.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Access, Name};

/// Operations of a GraphQL API that may be asked for, by their root fields. A request must hold one
/// operation, as JSON, and each of its root fields (also those within fragments, and whatever alias
/// they have) must be in a rule; else it gets 403 `graphql_refused`. Batches, several operations in
/// one document, and what cannot be parsed are refused, too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GraphqlRule {
    /// Fields of a query, for example `[stacks, stack]`. `__typename` needs no rule.
    pub query: Vec<GraphqlField>,
    /// Fields of a mutation, for example `[runTrigger]`. Such a request is an `action`.
    pub mutation: Vec<GraphqlField>,
    /// Who may ask for them, besides passing the route's own `access`.
    pub access: Access,
    /// Arguments that must name a resource of the workspace, by its kind in the workspace's
    /// `resources`: `{spacelift-stack: stack}`.
    pub resources: IndexMap<Name, String>,
}

/// The name of a field (GraphQL, October 2021, 2.1.9).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct GraphqlField(String);

impl std::ops::Deref for GraphqlField {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for GraphqlField {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let digit_first = text.bytes().next().is_none_or(|b| b.is_ascii_digit());
        if digit_first || !text.bytes().all(plain) {
            let shown = text.escape_debug();
            return Err(serde::de::Error::custom(format!(
                "`{shown}` is not the name of a field; write one as in the schema: `runTrigger`"
            )));
        }
        Ok(Self(text))
    }
}
