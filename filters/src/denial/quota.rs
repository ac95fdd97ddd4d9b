//! How much of a limit is used.

use std::{fmt, time::Duration};

use crate::Label;

/// What a limit counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// Everything outside a bucket.
    Rest,
    /// What belongs to this bucket.
    Bucket(Label),
    /// Requests to a plugin.
    Plugin(Label),
    /// Requests to a route.
    Route(Label),
    /// Outbound calls.
    Calls,
}

/// How much is left of one of a request's limits, for the `RateLimit` headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Whose limit: `workspace`, `caller`, `client`, or `upstream`.
    pub scope: &'static str,
    /// What it counts.
    pub of: Of,
    /// The limit.
    pub limit: config::Limit,
    /// Requests that would pass right now.
    pub remaining: u32,
    /// The time until the limit is whole again, or if nothing is left, until the next request passes.
    pub reset: Duration,
}

/// A limit that is used up.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    /// How much of it is used.
    pub status: QuotaStatus,
    /// The workspace's, caller's or client's name.
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
    /// The status of a limit with this much left.
    pub fn new(scope: &'static str, of: Of, limit: config::Limit, remaining: u32) -> Self {
        let missing = limit.burst().get().saturating_sub(remaining);
        Self { scope, of, limit, remaining, reset: limit.rate.interval() * missing }
    }
}
