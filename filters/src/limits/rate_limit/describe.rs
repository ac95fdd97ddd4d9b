//! Describes the limits that a request counted against, for people.

use std::net::IpAddr;

use super::{RouteLimits, whose};
use crate::{
    checks::workspaces::Workspace,
    denial::{Of, QuotaStatus},
    identity::Caller,
};

/// A counted request, with the resulting status.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// The tightest limit, or the one that is used up.
    pub status: &'a QuotaStatus,
    /// The limits of the route; a call has none.
    pub limits: Option<&'a RouteLimits>,
    /// The caller, if the route requires one.
    pub caller: Option<&'a Caller>,
    /// The workspace.
    pub workspace: Option<&'a Workspace>,
    /// The client's address.
    pub client: Option<IpAddr>,
}

/// The limits that a request counted against: their owner, their numbers, and the config key that sets them.
pub fn describe(counted: &Counted<'_>) -> Vec<String> {
    let Counted { status, limits, caller, workspace, client } = *counted;
    let mut lines = Vec::new();
    let mut line = |scope: &str, name: &str, of: Of, limit: config::Limit, key: &str| {
        let left = match (scope, &of) == (status.scope, &status.of) {
            true => format!(", {} left now", status.remaining),
            false => String::new(),
        };
        let burst = limit.burst();
        let of = match of {
            Of::Rest => String::new(),
            Of::Bucket(name) => format!(", bucket `{name}`"),
            Of::Plugin(name) => format!(", plugin `{name}`"),
            Of::Route(name) => format!(", route `{name}`"),
            Of::Calls => ", calls".to_owned(),
        };
        lines.push(format!(
            "{scope} `{name}`{of}: {} with a burst of {burst}{left} ({key})",
            limit.rate
        ));
    };
    let Some(caller) = caller else {
        let client = client.map(|client| client.to_string()).unwrap_or_default();
        let QuotaStatus { of, limit, .. } = status;
        let key = match of {
            Of::Bucket(name) => format!("rate_limit.buckets.{name}"),
            Of::Route(_) => "its rate_limit".to_owned(),
            _ => "rate_limit.per_client".to_owned(),
        };
        line("client", &client, of.clone(), *limit, &key);
        return lines;
    };
    let (scope, who) = whose(caller.into(), workspace);
    let Some(limits) = limits else {
        line(scope, who, Of::Calls, status.limit, "egress.per_workspace");
        return lines;
    };
    let RouteLimits { route, per_caller, own, plugin, bucket, .. } = limits;
    if let Some(limit) = per_caller {
        line("caller", &caller.subject, Of::Rest, *limit, "rate_limit.per_caller");
    }
    if let Some(limit) = own {
        line(scope, who, Of::Route(route.clone()), *limit, "its rate_limit");
    }
    if let Some((name, limit)) = plugin {
        let key = format!("plugins.{name}.rate_limit");
        line(scope, who, Of::Plugin(name.clone()), *limit, &key);
    }
    let limit = limits.of_workspace(workspace);
    let declared = workspace.and_then(|workspace| workspace.declared.as_ref());
    let (of, key) = match bucket {
        Some(bucket) => {
            (Of::Bucket(bucket.name.clone()), format!("rate_limit.buckets.{}", bucket.name))
        }
        None if declared.is_some_and(|declared| declared.rate_limit.is_some()) => {
            (Of::Rest, format!("workspaces.named.{who}.rate_limit"))
        }
        None => (Of::Rest, "rate_limit.per_workspace".to_owned()),
    };
    line(scope, who, of, limit, &key);
    lines
}
