//! What said no: a rule, what had happened, or what came after both.

use std::{collections::HashMap, sync::LazyLock};

use super::{Denial, samples, step::Step};

/// What said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The config: the same request is refused at any time.
    Rules,
    /// What had happened, or what could not be had right then.
    State,
    /// The upstream, its answer, or the client while it was given: the request was let through.
    Afterwards,
}

impl Denial {
    /// What said no. No catch-all for a check.
    pub fn decided_by(&self) -> DecidedBy {
        use DecidedBy as By;
        match self {
            // What a check had to ask for, and could not.
            Self::KeysUnavailable { .. }
            | Self::GroupsUnavailable { .. }
            | Self::HostUnresolved { .. }
            | Self::HelloTimeout
            | Self::ParentUnreachable { .. }
            | Self::ParentRefused { .. }
            | Self::ParentMalformed { .. }
            | Self::ParentTimeout { .. }
            | Self::Internal => By::State,
            // What a client did wrong, whatever had happened.
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
    /// What said no in a denial of this code. `None` of a code that there is not.
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
