//! Whose an idempotency key is.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Located;

/// What becomes of `Idempotency-Key` on its way to the upstream. Some upstreams, DXCP among them, ask
/// nobody whose a key is: whoever sends another's key gets the answer to that one's action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    /// Whose a key is. `caller`: the upstream gets another key instead (HMAC-SHA256 over the caller and
    /// what the client sent), always the same for the same caller, and one that no other can guess.
    pub scope: IdempotencyScope,
    /// File with at least 32 bytes of secret, the same for all replicas; a line end after it is not part
    /// of it. Changing it changes all keys: an action that is sent again after that runs again. Do so
    /// where the upstream has forgotten the keys of before (DXCP keeps them for 24 h), or when it leaked.
    pub secret_file: Located<PathBuf>,
}

/// Whose an idempotency key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdempotencyScope {
    /// The caller's.
    Caller,
}
