//! What is left of the limits that a request counts against. Reading it takes nothing.

use std::{convert::Infallible, net::IpAddr, time::Duration};

use super::{
    Limiters, RateLimits, RouteLimits,
    each::{OfClient, Who, each},
};
use crate::{Label, Now, checks::workspaces::Workspace, denial::Of};

/// What is left of one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Whose limit: `workspace`, `caller` or `client`.
    pub scope: &'static str,
    /// The workspace's, caller's or client's name.
    pub name: Label,
    /// What it counts.
    pub of: Of,
    /// The limit.
    pub limit: config::Limit,
    /// How much is left. `None` for a shared limit that this replica has not asked about yet.
    pub left: Option<u32>,
    /// The time until one passes, if none does now.
    pub next: Duration,
    /// Whether replicas share it: then this is what this replica knows of it.
    pub shared: bool,
}

impl Remaining {
    /// The time until the limit is whole again.
    pub fn whole(&self) -> Duration {
        let missing = self.limit.burst().get().saturating_sub(self.left.unwrap_or_default());
        self.limit.rate.interval() * missing
    }
}

impl RateLimits {
    /// What is left for a known caller on a route.
    pub fn left(
        &self,
        limiters: &Limiters,
        limits: &RouteLimits,
        caller: Who<'_>,
        workspace: Option<&Workspace>,
        now: Now,
    ) -> Vec<Remaining> {
        let mut all = Vec::new();
        let Ok(()) = each::<Infallible>(limits, caller, workspace, |one| {
            let key = limiters.key(&one.parts, one.limit);
            let (left, next) = match &limiters.leases {
                None => known(limiters.peek(key, one.limit, now)),
                Some(leases) => leases.peek(key, now).map_or((None, Duration::ZERO), known),
            };
            all.push(Remaining {
                scope: one.scope,
                name: one.name.clone(),
                of: one.of.into(),
                limit: one.limit,
                left,
                next,
                shared: limiters.leases.is_some(),
            });
            Ok(())
        });
        all
    }

    /// What is left for a client on a public route.
    pub fn remaining_public(
        &self,
        limiters: &Limiters,
        limits: &RouteLimits,
        client: IpAddr,
        now: Now,
    ) -> Remaining {
        let OfClient { parts, of, limit } = self.of_public(limits);
        let (left, next) = known(limiters.peek_stranger(parts, limit, client, now));
        let name = Label::lossy(&client.to_string());
        Remaining { scope: "client", name, of: of.into(), limit, left, next, shared: false }
    }
}

fn known(peeked: Result<u32, Duration>) -> (Option<u32>, Duration) {
    match peeked {
        Ok(left) => (Some(left), Duration::ZERO),
        Err(next) => (Some(0), next),
    }
}
