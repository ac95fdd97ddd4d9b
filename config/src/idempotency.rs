//! Who owns an idempotency key.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Located;

/// What happens to `Idempotency-Key` on its way to the upstream. Some upstreams, including DXCP, do not check
/// who owns a key: a caller that sends another caller's key gets the response to that caller's action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    /// Who owns a key. `caller`: the upstream gets a derived key instead (HMAC-SHA256 over the caller
    /// and the client's key), which is always the same for the same caller and which no other caller can
    /// guess.
    pub scope: IdempotencyScope,
    /// File with a secret of at least 32 bytes, the same for all replicas; a trailing newline is ignored.
    /// Changing it changes all keys, so an action that is sent again afterwards runs again. Change it once
    /// the upstream has forgotten the earlier keys (DXCP keeps them for 24 h), or when the secret has leaked.
    pub secret_file: Located<PathBuf>,
}

/// Who owns an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdempotencyScope {
    /// The caller.
    Caller,
}
