//! What refused: a rule, the state, or something after both.

use std::{collections::HashMap, sync::LazyLock};

use super::{Denial, samples, step::Step};

/// What refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The config: the same request is always refused.
    Rules,
    /// The state: what had happened before, or something that was unavailable.
    State,
    /// The upstream, its response, or the client during it: the request had been allowed.
    Afterwards,
}

impl Denial {
    /// What refused. No catch-all for a check.
    pub fn decided_by(&self) -> DecidedBy {
        use DecidedBy as By;
        match self {
            // What a check had to fetch, and could not.
            Self::KeysUnavailable { .. }
            | Self::GroupsUnavailable { .. }
            | Self::HostUnresolved { .. }
            | Self::HelloTimeout
            | Self::ParentUnreachable { .. }
            | Self::ParentRefused { .. }
            | Self::ParentMalformed { .. }
            | Self::ParentTimeout { .. }
            | Self::Internal
            | Self::Stopping { .. } => By::State,
            // The client's mistake, whatever the state.
            Self::IdempotencyKeyInvalid | Self::CallerTokenMissing { .. } => By::Rules,
            _ => match self.step() {
                Step::Target
                | Step::Host
                | Step::Path
                | Step::Route
                | Step::Open
                | Step::Query
                | Step::Caller
                | Step::Workspace
                | Step::Plugin
                | Step::Access
                | Step::Operation
                | Step::EgressRule
                | Step::Address
                | Step::ClientHello => By::Rules,
                Step::Switches
                | Step::RateLimit
                | Step::Idempotency
                | Step::Tunnels
                | Step::Audit
                | Step::RequestBody
                | Step::Breaker
                | Step::Pace
                | Step::Credential => By::State,
                Step::Upstream | Step::Response => By::Afterwards,
            },
        }
    }
}

impl DecidedBy {
    /// What refuses with this code. `None` for an unknown code.
    pub fn of_code(code: &str) -> Option<Self> {
        static ALL: LazyLock<HashMap<&str, DecidedBy>> = LazyLock::new(|| {
            samples::all().iter().map(|denial| (denial.code(), denial.decided_by())).collect()
        });
        ALL.get(code).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_sample() {
        let tables = concat!(include_str!("../denial.rs"), include_str!("token_fault.rs"));
        let is_row = |line: &&str| line.contains("(S::") || line.contains("=> \"token_");
        let codes = tables.lines().filter(is_row).filter_map(|row| row.split('"').nth(1));
        let codes: Vec<&str> = codes.collect();
        assert_eq!(codes.len(), samples::all().len(), "{codes:?}");
        for code in codes {
            assert!(DecidedBy::of_code(code).is_some(), "{code}");
        }
        assert_eq!(DecidedBy::of_code("of_another_version"), None);
    }
}
