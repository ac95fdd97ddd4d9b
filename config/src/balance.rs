//! Which address of an upstream a request goes to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which of an upstream's addresses a request goes to, if its name has several. Ejected and unhealthy
/// addresses are left out. A retry goes to a different address than the one that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// How the address is chosen.
    pub kind: BalanceKind,
    /// For `consistent_hash`: what stays with one address.
    #[serde(default)]
    pub by: Option<HashBy>,
}

/// How an address is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceKind {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Of two picked at random, the one with fewer exchanges in flight. For addresses that are not equally
    /// fast.
    LeastRequest,
    /// The same address for the same workspace, caller or client, as long as the address exists. If one is
    /// added or removed, only its share moves. For upstreams that keep something in memory.
    ConsistentHash,
}

/// What stays with one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashBy {
    /// The request's workspace. A request without one goes round robin.
    Workspace,
    /// The caller. A request without one goes round robin.
    Caller,
    /// The client's address, behind `trusted_proxies`.
    Client,
}
