//! Which limits a request counts against, for people.

use super::{Of, OfRoute, Standing, whose};
use crate::{Denial, Exchange};

/// The limits that a request counted against: whose they are, their numbers, and the key of the config
/// that they stand at. Nothing, if it came to none.
pub fn told(exchange: &Exchange, denial: Option<&Denial>) -> Vec<String> {
    let standing = match denial {
        Some(Denial::RateLimited(over)) => Some(&over.standing),
        _ => exchange.standing.as_ref(),
    };
    let Some(standing) = standing else { return Vec::new() };
    let mut lines = Vec::new();
    let mut line = |scope: &str, name: &str, of: Of, limit: config::Limit, key: &str| {
        let left = match (scope, &of) == (standing.scope, &standing.of) {
            true => format!(", {} left now", standing.remaining),
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
    let Some(caller) = exchange.caller.as_deref() else {
        let client = exchange.client.map(|client| client.to_string()).unwrap_or_default();
        let Standing { of, limit, .. } = standing;
        let key = match of {
            Of::Bucket(name) => format!("rate_limit.buckets.{name}"),
            Of::Route(_) => "its rate_limit".to_owned(),
            _ => "rate_limit.each_client".to_owned(),
        };
        line("client", &client, of.clone(), *limit, &key);
        return lines;
    };
    let (scope, who) = whose(caller.into(), exchange.workspace.as_ref());
    let Some(route) = &exchange.route else {
        line(scope, who, Of::Calls, standing.limit, "egress.each_workspace");
        return lines;
    };
    let OfRoute { each_caller, own, plugin, bucket, .. } = &route.limits;
    if let Some(limit) = each_caller {
        line("caller", &caller.subject, Of::Rest, *limit, "rate_limit.each_caller");
    }
    if let Some(limit) = own {
        line(scope, who, Of::Route(route.name.clone()), *limit, "its rate_limit");
    }
    if let Some((limit, name)) = plugin.zip(route.plugin.as_ref()) {
        let key = format!("plugins.{name}.rate_limit");
        line(scope, who, Of::Plugin(name.clone()), limit, &key);
    }
    let workspace = exchange.workspace.as_ref();
    let limit = route.limits.of_workspace(workspace);
    let declared = workspace.and_then(|workspace| workspace.declared.as_ref());
    let (of, key) = match bucket {
        Some(bucket) => {
            (Of::Bucket(bucket.name.clone()), format!("rate_limit.buckets.{}", bucket.name))
        }
        None if declared.is_some_and(|declared| declared.rate_limit.is_some()) => {
            (Of::Rest, format!("workspaces.named.{who}.rate_limit"))
        }
        None => (Of::Rest, "rate_limit.each_workspace".to_owned()),
    };
    line(scope, who, of, limit, &key);
    lines
}
