//! Callers that prove themselves by an opaque token.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Located, Name};

/// A caller that shows an opaque token in `Authorization: Bearer`, as those of Backstage's
/// `backend.auth.externalAccess` with `type: static` do. Exactly one of `token_file` and
/// `digest_file`. Files are watched; what stands in them is compared in constant time and written
/// nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticToken {
    /// The token, of 16 to 1024 characters, in this file; several lines for several tokens, the old
    /// and the new one while they change.
    #[serde(default)]
    pub token_file: Option<Located<PathBuf>>,
    /// The SHA-256 of each token in hex, one a line, as `printf %s "$TOKEN" | sha256sum` writes it: for
    /// whoever keeps the tokens themselves elsewhere. Give it only of tokens that nobody can guess, such
    /// as 24 random bytes.
    #[serde(default)]
    pub digest_file: Option<Located<PathBuf>>,
    /// Who the caller then is, for example `external:ci`.
    pub caller: String,
    /// Roles it has.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Groups it is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Workspaces it may act for.
    #[serde(default)]
    pub workspaces: Vec<Name>,
    /// The listeners it counts on. Default: all.
    #[serde(default)]
    pub listeners: Vec<Located<Name>>,
}

impl StaticToken {
    /// The file that says which tokens.
    pub fn file(&self) -> Option<&Located<PathBuf>> {
        self.token_file.as_ref().or(self.digest_file.as_ref())
    }
}
