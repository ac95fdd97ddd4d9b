//! Where somebody stands in a limit.

use std::{fmt, time::Duration};

use crate::Label;

/// What a limit is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// All that is in no bucket.
    Rest,
    /// What is in this bucket.
    Bucket(Label),
    /// What a plugin is asked for.
    Plugin(Label),
    /// What a route is asked for.
    Route(Label),
    /// Calls out.
    Calls,
}

/// Where a request stands in one of its limits, for the `RateLimit` headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Whose limit: `workspace`, `caller`, `client`, or `upstream`.
    pub scope: &'static str,
    /// Of what.
    pub of: Of,
    /// How much that is.
    pub limit: config::Limit,
    /// Requests that would pass right now.
    pub remaining: u32,
    /// Until everything has been given back; where nothing is left, until something is.
    pub reset: Duration,
}

/// A limit that is used up.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    /// Where that leaves whom it is about.
    pub status: QuotaStatus,
    /// Whom: the workspace's, caller's or client's name.
    pub name: Label,
}

impl Over {
    pub(crate) fn boxed(status: QuotaStatus, name: &Label, retry_after: Duration) -> Box<Self> {
        let status = QuotaStatus { remaining: 0, reset: retry_after, ..status };
        Box::new(Self { status, name: name.clone() })
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` is over its rate limit", self.status.scope, self.name)?;
        match &self.status.of {
            Of::Rest => Ok(()),
            Of::Bucket(name) => write!(f, " for bucket `{name}`"),
            Of::Plugin(name) => write!(f, " for plugin `{name}`"),
            Of::Route(name) => write!(f, " for route `{name}`"),
            Of::Calls => write!(f, " of calls"),
        }
    }
}

impl QuotaStatus {
    /// Of a limit, of which so much is left.
    pub fn new(scope: &'static str, of: Of, limit: config::Limit, remaining: u32) -> Self {
        let missing = limit.burst().get().saturating_sub(remaining);
        Self { scope, of, limit, remaining, reset: limit.rate.interval() * missing }
    }
}
