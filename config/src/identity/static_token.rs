//! Callers that prove themselves by an opaque token.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Located, Name};

/// A caller that sends an opaque token in `Authorization: Bearer`, like those of Backstage's
/// `backend.auth.externalAccess` with `type: static`. Give exactly one of `token_file` and `digest_file`.
/// Files are watched. Tokens are compared in constant time and never written anywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticToken {
    /// A file with the token, 16 to 1024 characters. Several lines are several tokens, for example the old
    /// and the new one during a rotation.
    #[serde(default)]
    pub token_file: Option<Located<PathBuf>>,
    /// A file with the SHA-256 of each token in hex, one per line, as `printf %s "$TOKEN" | sha256sum` prints
    /// it, so that the tokens themselves can stay elsewhere. Use it only for tokens that cannot be guessed,
    /// such as 24 random bytes.
    #[serde(default)]
    pub digest_file: Option<Located<PathBuf>>,
    /// The caller's name, for example `external:ci`.
    pub caller: String,
    /// Its roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Workspaces it may act for.
    #[serde(default)]
    pub workspaces: Vec<Name>,
    /// The listeners on which it is accepted. Default: all.
    #[serde(default)]
    pub listeners: Vec<Located<Name>>,
}

impl StaticToken {
    /// The file that says which tokens.
    pub fn file(&self) -> Option<&Located<PathBuf>> {
        self.token_file.as_ref().or(self.digest_file.as_ref())
    }
}
