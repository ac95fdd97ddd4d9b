//! Which limits a request counts against, and their names.

use super::{RateLimits, RouteLimits, whose};
use crate::{Label, checks::workspaces::Workspace, denial::Of, identity::Caller};

/// The caller, as far as limits depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Who vouches for them, by the name in the config.
    pub issuer: &'a Label,
    /// Their name.
    pub subject: &'a Label,
}

impl<'a> From<&'a Caller> for Who<'a> {
    fn from(caller: &'a Caller) -> Self {
        Self { issuer: &caller.issuer, subject: &caller.subject }
    }
}

/// A limit that a request of a known caller counts against.
pub(super) struct One<'a> {
    pub(super) scope: &'static str,
    pub(super) name: &'a Label,
    pub(super) of: What<'a>,
    pub(super) limit: config::Limit,
    /// Its name, which is the same on all replicas.
    pub(super) parts: &'a [&'a str],
}

/// What a limit counts, like [`Of`], which is built only when it is reported.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Rest,
    Bucket(&'a Label),
    Plugin(&'a Label),
    Route(&'a Label),
    Calls,
}

impl From<What<'_>> for Of {
    fn from(what: What<'_>) -> Self {
        match what {
            What::Rest => Self::Rest,
            What::Bucket(name) => Self::Bucket(name.clone()),
            What::Plugin(name) => Self::Plugin(name.clone()),
            What::Route(name) => Self::Route(name.clone()),
            What::Calls => Self::Calls,
        }
    }
}

/// The limits of a known caller on a route, the narrowest first.
pub(super) fn each<E>(
    limits: &RouteLimits,
    caller: Who<'_>,
    workspace: Option<&Workspace>,
    mut take: impl FnMut(&One<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (scope, who) = whose(caller, workspace);
    let RouteLimits { route, per_caller, own, plugin, bucket, .. } = limits;
    if let Some(limit) = *per_caller {
        let name = caller.subject;
        let parts = &["caller", caller.issuer, name];
        take(&One { scope: "caller", name, of: What::Rest, limit, parts })?;
    }
    if let Some(limit) = *own {
        let (of, parts) = (What::Route(route), &["route", route, scope, who]);
        take(&One { scope, name: who, of, limit, parts })?;
    }
    if let Some((plugin, limit)) = plugin {
        let (of, parts) = (What::Plugin(plugin), &["plugin", plugin, scope, who]);
        take(&One { scope, name: who, of, limit: *limit, parts })?;
    }
    let limit = limits.of_workspace(workspace);
    match bucket {
        None => {
            let parts = &["workspace", scope, who];
            take(&One { scope, name: who, of: What::Rest, limit, parts })
        }
        Some(bucket) => {
            let (of, parts) = (What::Bucket(&bucket.name), &["bucket", &bucket.name, scope, who]);
            take(&One { scope, name: who, of, limit, parts })
        }
    }
}

/// A limit of a client without an authenticated caller.
pub(super) struct OfClient<'a> {
    /// Its name.
    pub(super) parts: (&'static str, &'a str),
    pub(super) of: What<'a>,
    pub(super) limit: config::Limit,
}

impl RateLimits {
    /// The limit of a client on a public route.
    pub(super) fn of_public<'a>(&self, limits: &'a RouteLimits) -> OfClient<'a> {
        let route = &limits.route;
        match (limits.own, &limits.bucket) {
            (Some(limit), _) => OfClient { parts: ("route", route), of: What::Route(route), limit },
            (None, Some(bucket)) => OfClient {
                parts: ("bucket", &bucket.name),
                of: What::Bucket(&bucket.name),
                limit: limits.per_client,
            },
            (None, None) => self.of_stranger(),
        }
    }

    /// The limit of a client anywhere else.
    pub(super) fn of_stranger(&self) -> OfClient<'static> {
        OfClient { parts: ("", ""), of: What::Rest, limit: self.per_client }
    }
}
