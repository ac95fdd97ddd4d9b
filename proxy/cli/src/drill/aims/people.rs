//! Callers that a route admits: for which workspace, and with which roles and groups.

use config::{Access, Config, Listener, Name, Workspace};

use super::Credential;
use crate::drill::tokens::{Mint, Person};

/// Workspaces that are tried for one route.
const WORKSPACES_MAX: usize = 4;

/// The workspaces that a request to a listener may be for.
pub(super) fn workspaces(config: &Config, listener: &Listener) -> Vec<Name> {
    if let Some(own) = &listener.workspace {
        return vec![own.value.clone()];
    }
    let named: Vec<Name> = config.workspaces.named.keys().take(WORKSPACES_MAX).cloned().collect();
    if named.is_empty() { vec![Name::new("drill").expect("it is a name")] } else { named }
}

/// A member of a workspace that a route admits.
pub(super) fn somebody(
    mint: &Mint,
    issuer: &str,
    access: &Access,
    name: &Name,
    workspace: &Workspace,
) -> Credential {
    let backstage = mint.is_backstage(issuer);
    let first = |all: &[String]| all.first().cloned().into_iter().collect::<Vec<_>>();
    let mut groups = first(&workspace.groups);
    // The workspace's own group may be one that the route requires.
    if !access.groups.iter().any(|group| groups.contains(group)) {
        groups.extend(first(&access.groups));
    }
    let known = access.callers.first().or_else(|| workspace.callers.first()).cloned();
    let subject = known.unwrap_or_else(|| {
        // Backstage knows the groups of each user, so there is one for each set of them.
        let suffix: String = groups
            .iter()
            .map(|group| format!("-{}", group.rsplit('/').next().unwrap_or(group)))
            .collect();
        if backstage { format!("user:default/drill{suffix}") } else { "drill".to_owned() }
    });
    let listed = !workspace.groups.is_empty() || !workspace.callers.is_empty();
    let workspaces = if listed { Vec::new() } else { vec![name.to_string()] };
    let person = Person { subject, roles: first(&access.roles), groups, workspaces };
    mint.know(&person);
    Credential::Token { issuer: issuer.to_owned(), person }
}
