//! Which operations of a GraphQL API may be asked for.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Access, Name};

/// Allowed operations of a GraphQL API, by root field. A request must contain exactly one operation, as JSON,
/// and a rule must list each of its root fields (including those in fragments, and whatever their alias);
/// otherwise it gets 403 `graphql_refused`. Batches, documents with several operations, and unparsable ones
/// are refused too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GraphqlRule {
    /// Fields of a query, for example `[stacks, stack]`. `__typename` needs no rule.
    pub query: Vec<GraphqlField>,
    /// Fields of a mutation, for example `[runTrigger]`. Such a request is an `action`.
    pub mutation: Vec<GraphqlField>,
    /// Who may use them, in addition to passing the route's own `access`.
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
