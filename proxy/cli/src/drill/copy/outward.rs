//! Upstreams, credentials and egress of the copy: the same, with stand-ins on loopback behind them.

use std::{fs, io, path::PathBuf};

use config::{
    Config, CredentialKind, Destination, HostRule, Located, PrivateAddresses, Statuses, Url,
    shipped_hosts,
};

use super::{Place, secret, secret_file};
use crate::drill::{names, stand_ins::port};

/// Points everything to stand-ins; returns the hosts that they have to be.
pub(super) fn replace(
    config: &mut Config,
    place: &Place<'_>,
    notes: &mut Vec<String>,
) -> io::Result<Vec<String>> {
    let mut hosts = Vec::new();
    let mut private = Vec::new();
    credentials(config, place, notes)?;
    upstreams(config, place, &mut hosts, &mut private, notes)?;
    egress(config, place, &mut hosts, &mut private);
    hosts.sort();
    hosts.dedup();
    config.egress.private.extend(private);
    Ok(hosts)
}

/// Allows a host to have its stand-in's address.
fn at_home(host: HostRule) -> Located<PrivateAddresses> {
    Located::nowhere(PrivateAddresses {
        host: Located::nowhere(host.into()),
        addresses: vec![std::net::IpAddr::V4(names::HOME).into()],
        owner: None,
        reason: None,
        expires: None,
    })
}

fn upstreams(
    config: &mut Config,
    place: &Place<'_>,
    hosts: &mut Vec<String>,
    private: &mut Vec<Located<PrivateAddresses>>,
    notes: &mut Vec<String>,
) -> io::Result<()> {
    let ca = place.folder.join("upstreams.ca");
    fs::write(&ca, place.authority.pem())?;
    for (name, upstream) in &mut config.upstreams {
        let upstream = &mut upstream.value;
        upstream.url.value = moved(&upstream.url, upstream.external, place);
        if let Some(idempotency) = &mut upstream.idempotency {
            let file = place.folder.join(format!("{name}.idempotency"));
            secret_file(&file, &secret())?;
            idempotency.secret_file = Located::nowhere(file);
        }
        if let Some(check) = &mut upstream.health_check
            && !check.status.contains(200)
        {
            check.status = Statuses::default();
            notes.push(format!("stand-ins respond to the health checks of `{name}` with 200"));
        }
        let url = &upstream.url.value;
        if upstream.external {
            hosts.push(url.host.clone());
            let (host, port) = (url.host.clone(), url.port);
            private.push(at_home(HostRule { host, subdomains: false, port }));
        }
        let tls = &mut upstream.tls;
        let shows = tls.client_cert.is_some();
        *tls = config::UpstreamTls::default();
        if upstream.url.tls {
            let tls = &mut upstream.tls;
            tls.ca = Some(Located::nowhere(ca.clone()));
            if shows {
                let client = |end: &str| place.folder.join(format!("{name}.client-{end}"));
                let (cert, key) = (client("cert"), client("key"));
                let issued = place.authority.client(name, &[]).map_err(io::Error::other)?;
                issued.write(&cert, &key)?;
                tls.client_cert = Some(Located::nowhere(cert));
                tls.client_key = Some(Located::nowhere(key));
            }
        }
    }
    Ok(())
}

/// An upstream's URL, at its stand-in. An external host keeps its name, which our name server resolves; any
/// other name might be in this machine's hosts file.
fn moved(url: &Url, external: bool, place: &Place<'_>) -> Url {
    let Some(port) = place.sockets.of(url) else { return url.clone() };
    let keeps_name = external && url.ip().is_none() && url.host.contains('.');
    let host = if keeps_name { url.host.clone() } else { names::HOME.to_string() };
    Url { host, port, ..url.clone() }
}

fn credentials(config: &mut Config, place: &Place<'_>, notes: &mut Vec<String>) -> io::Result<()> {
    use CredentialKind as K;
    let upstreams = config.upstreams.clone();
    let issuers = port(&place.sockets.issuers);
    for (name, credential) in &mut config.credentials {
        let file = place.folder.join(format!("{name}.credential"));
        secret_file(&file, &secret())?;
        let file = || Some(Located::<PathBuf>::nowhere(file.clone()));
        let credential = &mut credential.value;
        credential.ca = None;
        match credential.kind {
            K::Basic => credential.password_file = file(),
            K::Header => credential.value_file = file(),
            K::ClientCredentials | K::TokenExchange => {
                credential.client_secret_file = file();
                let url = format!("http://127.0.0.1:{issuers}/-/token").parse();
                credential.token_url = Some(Located::nowhere(url.expect("it is an address")));
            }
            K::SpaceliftApiKey => {
                credential.key_secret_file = file();
                let of = upstreams.values().find(|upstream| {
                    upstream.credential.as_ref().is_some_and(|named| **named == *name)
                });
                let external = of.is_some_and(|upstream| upstream.external);
                if let Some(url) = &mut credential.token_url {
                    url.value = moved(url, external, place);
                }
            }
            K::GithubApp => {
                let plain = serde_json::json!({"kind": "header", "prefix": "Bearer "});
                *credential = serde_json::from_value(plain).expect("it is a credential");
                credential.value_file = file();
                notes.push(format!(
                    "credential `{name}` is a plain header: no GitHub grants tokens here"
                ));
            }
        }
    }
    Ok(())
}

/// Rules for the same hosts, on the ports of their stand-ins.
fn egress(
    config: &mut Config,
    place: &Place<'_>,
    hosts: &mut Vec<String>,
    private: &mut Vec<Located<PrivateAddresses>>,
) {
    let [tls, plain] = &place.sockets.called;
    let (tls, plain) = (port(tls), port(plain));
    let egress = &mut config.egress;
    let shipped = shipped_hosts();
    let named = egress.rules.iter().flat_map(|rule| &rule.value.to);
    let groups: Vec<_> = named
        .filter_map(|to| match &to.value {
            Destination::Group(name) if !egress.hosts.contains_key(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    for name in groups {
        if let Some(group) = shipped.get(&name) {
            let all = group.hosts.iter().cloned().map(Located::nowhere);
            egress.hosts.insert(name, all.collect());
        }
    }
    let tls_ports = std::mem::replace(&mut egress.tls_ports, vec![tls]);
    let moved = |rule: &mut HostRule| {
        rule.port = if tls_ports.contains(&rule.port) { tls } else { plain };
        if rule.ip().is_some() {
            rule.host = names::HOME.to_string();
        }
    };
    let mut note = |rule: &HostRule| {
        hosts.push(one_of_rule(rule));
        private.push(at_home(rule.clone()));
    };
    for host in egress.hosts.values_mut().flatten() {
        moved(&mut host.value);
        note(&host.value);
    }
    for to in egress.rules.iter_mut().flat_map(|rule| &mut rule.value.to) {
        if let Destination::Host(host) = &mut to.value {
            moved(host);
            note(host);
        }
    }
    for own in &mut egress.private {
        moved(&mut own.value.host.value.rule);
    }
}

/// A host that a rule is for.
pub(in crate::drill) fn one_of_rule(rule: &HostRule) -> String {
    if rule.subdomains { format!("drill.{}", rule.host) } else { rule.host.clone() }
}
