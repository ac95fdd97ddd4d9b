//! What the ways to choose a workspace need.

use super::{Findings, is_unknown_workspace};
use crate::{Choice, Config, Place};

pub(super) fn check(config: &Config, found: &mut Findings) {
    if found.cuts.touch(&["workspaces"]) {
        return;
    }
    let written = &config.workspaces;
    let chosen = |choice| written.choose_by.contains(&choice);
    let nowhere = Place::default();
    let known = written.named.keys().next().map_or("payments", |name| &**name);
    match &written.default {
        None if chosen(Choice::Default) => found.problem(
            &nowhere,
            format!(
                "`workspaces.choose_by` has `default`, but no default is set; write `default: {known}`"
            ),
        ),
        Some(name) if !chosen(Choice::Default) => found.problem(
            &name.place,
            "the default workspace is never used; add `default` to `choose_by`",
        ),
        Some(name) if is_unknown_workspace(config, name, found) => found
            .problem(&name.place, format!("no workspace `{}` in `workspaces.named`", name.value)),
        _ => {}
    }
    if chosen(Choice::Host) && written.hosts.is_empty() {
        found.problem(
            &nowhere,
            "`workspaces.choose_by` has `host`, but `hosts` is empty; write `hosts: ['*.kube.example.com']`",
        );
    }
    for host in &written.hosts {
        if host.wildcard().is_none() {
            found.problem(
                &host.place,
                format!("`{0}` names no workspace; write `*.{0}`", host.value),
            );
        } else if !chosen(Choice::Host) {
            found.problem(&host.place, "`hosts` is never used; add `host` to `choose_by`");
        }
    }
    let issuers = config.identity.issuers.values();
    let claimed = issuers.clone().any(|issuer| issuer.claims.default_workspace.is_some());
    if chosen(Choice::Claim) && !claimed && !found.cuts.touch(&["identity", "issuers"]) {
        found.problem(
            &nowhere,
            "`workspaces.choose_by` has `claim`, but no issuer names one; write `claims: {default_workspace: ..}` for an issuer",
        );
    }
}
