//! Egress: groups that exist, rules that can fit, hosts that are not anybody's.

use super::Findings;
use crate::{
    Config, Destination, HostPorts, HostRule, Listener, ListenerKind, Located, Place,
    PrivateAddresses,
    rentable::{Names, names_below},
    shipped_hosts,
};

pub(super) fn check(config: &Config, found: &mut Findings) {
    let egress = &config.egress;
    parent(config, found);
    listeners(config, found);
    workspaces(config, found);
    rules(config, found);
    for host in egress.hosts.values().flatten() {
        rentable(host, &host.place, found);
    }
    for private in &egress.private {
        never_matches(config, private, found);
        if private.addresses.is_empty() {
            found
                .problem(&private.place, "`addresses` is empty; write for example `[10.2.0.0/16]`");
        }
        let all = private.addresses.iter().find(|net| net.prefix_len() == 0);
        if let Some(all) = all {
            found.problem(
                &private.place,
                format!("`{all}` would open every network; write the network of this host"),
            );
        }
    }
    for port in egress.tls_ports.iter().filter(|port| **port == 0) {
        found.problem(&Place::default(), format!("`egress.tls_ports`: `{port}` is not a port"));
    }
}

fn parent(config: &Config, found: &mut Findings) {
    let Some(parent) = &config.egress.parent else { return };
    let (place, url) = (&parent.place, &parent.url);
    if !url.path.is_empty() {
        found.problem(&url.place, format!("a parent proxy has no path; write `{}`", url.origin()));
    }
    let name = parent.username.as_deref();
    if name.is_some() != parent.password_file.is_some() {
        found.problem(place, "`parent` needs both `username` and `password_file`, or neither");
    }
    // RFC 7617 2: the first colon ends the name.
    if name.is_some_and(|name| {
        name.is_empty() || name.contains(':') || name.contains(char::is_control)
    }) {
        found.problem(place, "`parent.username` is empty, or has a colon or a control character");
    }
    if parent.ca.is_some() && !url.tls {
        found.problem(place, "`parent` has `ca` but its url is `http://`; write `https://`");
    }
    if name.is_some() && !url.tls && url.ip().is_none_or(|ip| !ip.is_loopback()) {
        found.warning(
            place,
            "the parent proxy's password is sent in clear text; write `https://` if the proxy supports it",
        );
    }
    if let Some(name) = config.leads_back(url) {
        found.problem(
            &url.place,
            format!("`{}` is listener `{name}`: every call would come back; write the parent proxy's address", **url),
        );
    }
}

/// A port that no rule allows, of a host that rules allow on others, is most likely a slip.
fn never_matches(config: &Config, private: &Located<PrivateAddresses>, found: &mut Findings) {
    let (egress, host) = (&config.egress, &private.host.value);
    if host.every_port || found.cuts.touch(&["egress"]) || found.cuts.touch(&["upstreams"]) {
        return;
    }
    let shipped = shipped_hosts();
    let called = egress.rules.iter().flat_map(|rule| egress.hosts_of(rule, &shipped));
    let mut ports: Vec<u16> =
        called.filter(|called| host.shares_host_with(called)).map(|called| called.port).collect();
    ports.sort_unstable();
    ports.dedup();
    let asked = config.upstreams.values().any(|upstream| {
        let url = &upstream.url;
        let named = HostRule { host: url.host.clone(), subdomains: false, port: url.port };
        upstream.external && host.shares_host_with(&named)
    });
    if ports.is_empty() || ports.contains(&host.rule.port) || asked {
        return;
    }
    let bare = HostPorts { every_port: true, ..host.clone() };
    let ports: Vec<String> = ports.iter().map(|port| format!("`{port}`")).collect();
    found.warning(
        &private.host.place,
        format!(
            "rules allow calls of `{bare}` on {}, so `{host}` never matches; write `host: {bare}`, which covers all of them",
            ports.join(", ")
        ),
    );
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
                format!("no caller can authenticate on `{name}`; set `workspace` or `plugin` there, or add `egress.callers`"),
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
            format!("`{name}` accepts passwords over plain TCP from other machines; add `tls`"),
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
            format!("anyone can register a name under `{host}`and receive what is sent there; name your own, such as `acme.{host}`"),
        ),
    }
}
