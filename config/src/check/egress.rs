//! Egress: groups that exist, rules that can fit, hosts that are not anybody's.

use super::Findings;
use crate::{
    Config, Destination, HostRule, Listener, ListenerKind, Located, Place,
    rentable::{Names, names_below},
    shipped_hosts,
};

pub(super) fn check(config: &Config, found: &mut Findings) {
    let egress = &config.egress;
    listeners(config, found);
    workspaces(config, found);
    rules(config, found);
    for host in egress.hosts.values().flatten() {
        rentable(host, &host.place, found);
    }
    for private in &egress.private {
        if private.addresses.is_empty() {
            found
                .problem(&private.place, "`addresses` is empty; write for example `[10.2.0.0/16]`");
        }
        let all = private.addresses.iter().find(|net| net.prefix_len() == 0);
        if let Some(all) = all {
            found.problem(
                &private.place,
                format!("`{all}` would open every network; name the host's own"),
            );
        }
    }
    for port in egress.tls_ports.iter().filter(|port| **port == 0) {
        found.problem(&Place::default(), format!("`egress.tls_ports`: `{port}` is not a port"));
    }
}

fn listeners(config: &Config, found: &mut Findings) {
    let egress = &config.egress;
    let mut forward = config.listeners.iter().filter(|(_, l)| l.kind == ListenerKind::Forward);
    let provable = !egress.callers.is_empty()
        || !config.identity.issuers.is_empty()
        || !config.identity.client_certificates.is_empty();
    for (name, listener) in forward.clone() {
        if listener.workspace.is_none() && listener.plugin.is_none() && !provable {
            found.problem(
                &listener.place,
                format!("nobody can prove who calls on `{name}`; set `workspace` or `plugin` there, or add `egress.callers`"),
            );
        }
        if egress.rules.is_empty()
            && !listener.report_only
            && !found.cuts.touch(&["egress", "rules"])
        {
            found.warning(
                &listener.place,
                format!("`{name}` refuses every call: `egress.rules` is empty"),
            );
        }
        plain_and_open(name, listener, found);
    }
    if forward.next().is_none()
        && let Some(rule) = egress.rules.first()
    {
        found.warning(&rule.place, "`egress` has no listener; add one of `kind: forward`");
    }
    for (name, listener) in config.listeners.iter().filter(|(_, l)| l.kind != ListenerKind::Forward)
    {
        if listener.plugin.is_some() || listener.report_only {
            found.problem(
                &listener.place,
                format!(
                    "`{name}`: `plugin` and `report_only` are for `kind: forward`; remove them"
                ),
            );
        }
    }
}

fn plain_and_open(name: &str, listener: &Located<Listener>, found: &mut Findings) {
    if listener.tls.is_none() && !listener.address.ip().is_loopback() {
        found.warning(
            &listener.place,
            format!("`{name}` takes passwords over plain TCP from other machines; add `tls`"),
        );
    }
}

fn workspaces(config: &Config, found: &mut Findings) {
    let rules = config.egress.rules.iter().flat_map(|rule| &rule.workspaces);
    let callers = config.egress.callers.values().filter_map(|caller| caller.workspace.as_ref());
    for workspace in rules.chain(callers) {
        if super::is_unknown_workspace(config, workspace, found) {
            found.problem(
                &workspace.place,
                format!("no workspace `{}` in `workspaces.named`", workspace.value),
            );
        }
    }
}

fn rules(config: &Config, found: &mut Findings) {
    let egress = &config.egress;
    let shipped = shipped_hosts();
    for (index, rule) in egress.rules.iter().enumerate() {
        if egress.rules[..index].iter().any(|other| other.name == rule.name) {
            found.problem(&rule.place, format!("rule `{}` exists already", rule.name));
        }
        if rule.to.is_empty() {
            found.problem(
                &rule.place,
                format!("rule `{}` allows nothing; name hosts in `to`", rule.name),
            );
        }
        for to in &rule.to {
            match &to.value {
                Destination::Host(host) => rentable(host, &to.place, found),
                Destination::Group(name) => {
                    if egress.hosts.contains_key(name) || shipped.contains_key(name) {
                        continue;
                    }
                    let known = egress.hosts.keys().chain(shipped.keys());
                    let known: Vec<&str> = known.map(|name| &**name).collect();
                    let hint = crate::de::suggestion(name, &known);
                    found.problem(&to.place, format!("no group of hosts `{name}`; {hint}"));
                }
            }
        }
    }
}

/// A wildcard below which anybody can have a name lets everybody's data out.
fn rentable(rule: &HostRule, place: &Place, found: &mut Findings) {
    if !rule.subdomains {
        return;
    }
    let host = rule.host.as_str();
    match names_below(host) {
        Names::Owned => {}
        Names::Registered => found.problem(
            place,
            format!("`*.{host}` would allow half the internet; name a domain under it"),
        ),
        Names::Rented => found.warning(
            place,
            format!("anybody can have a name under `{host}`, and take what is sent there; name yours, such as `acme.{host}`"),
        ),
    }
}
