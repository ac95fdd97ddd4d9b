//! The operator's config with everything outward replaced: what the private copy of the proxy runs with.

mod identity;
mod left;
mod limits;
mod outward;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use certs::dev::Authority;
use config::{Config, ListenerKind, Located, Name};
use serde_json::Value;

pub(super) use self::{
    limits::{Counting, Shared},
    outward::one_of_rule,
};
use super::{
    stand_ins::{Sockets, anywhere, port},
    tokens::Mint,
};

/// The name of the admin listener of a copy.
const ADMIN: &str = "drill-admin";

/// A config that touches nothing of the operator's.
pub(super) struct PrivateCopy {
    pub(super) config: Config,
    /// Where it was written.
    pub(super) file: PathBuf,
    pub(super) admin: SocketAddr,
    /// Who vouches for callers in it.
    pub(super) mint: Mint,
    /// The hosts that its upstreams and rules name.
    pub(super) hosts: Vec<String>,
    /// The differences from the operator's config, beyond addresses and secrets.
    pub(super) notes: Vec<String>,
}

/// Where what a copy needs is written.
pub(super) struct Place<'a> {
    pub(super) folder: &'a Path,
    pub(super) authority: &'a Authority,
    pub(super) sockets: &'a Sockets,
    /// Where it counts limits, if those are the drill's subject.
    pub(super) counting: Counting<Shared>,
}

impl PrivateCopy {
    /// Writes a copy and all that it names into a folder.
    pub(super) fn write(written: &Config, place: &Place<'_>) -> Result<Self, String> {
        let told = |error: io::Error| format!("cannot write `{}`: {error}", place.folder.display());
        let mut config = written.clone();
        let mut notes = Vec::new();
        let hosts = outward::replace(&mut config, place, &mut notes).map_err(told)?;
        let mint = identity::replace(&mut config, place, &mut notes).map_err(told)?;
        listeners(&mut config, place, &hosts, &mut notes)?;
        limits::replace(&mut config, &place.counting, &mut notes);
        let admin = config.listeners[ADMIN].address;
        audit(&mut config, place, &mut notes).map_err(told)?;
        config.egress.parent_from_environment = false;
        if config.egress.parent.take().is_some() {
            notes.push("no parent proxy: stand-ins are reached directly".to_owned());
        }
        let process = &mut config.process;
        process.upgrade_socket = None;
        process.drain_delay = config::Duration::from_secs(0);
        process.drain_timeout = config::Duration::from_secs(5);
        process.name_servers = vec![place.sockets.name_server()];
        config.headers.assertion_key = None;
        if let Some(left) = left::left(&config, place.folder, &hosts) {
            return Err(format!(
                "`{left}` would be yours in the copy, so no copy was made; please report this"
            ));
        }
        let file = place.folder.join("stagedoor.yaml");
        fs::write(&file, text(&config)).map_err(told)?;
        Ok(Self { config, file, admin, mint, hosts, notes })
    }

    /// Writes the unchanged config again.
    pub(super) fn write_again(&self) -> Result<(), String> {
        let wrote = fs::write(&self.file, text(&self.config));
        wrote.map_err(|error| format!("cannot write `{}`: {error}", self.file.display()))
    }

    /// The host names that requests to its listeners use.
    pub(super) fn names(&self) -> Vec<String> {
        names(&self.config, &self.hosts)
    }
}

/// The host names that requests to listeners use, and those of `hosts`.
fn names(config: &Config, hosts: &[String]) -> Vec<String> {
    let here = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    served(config).into_iter().chain(hosts.iter().cloned()).chain(here).collect()
}

/// A config as text. JSON is YAML.
fn text(config: &Config) -> String {
    let mut tree = serde_json::to_value(config).expect("a config is data");
    plain(&mut tree);
    format!("{tree:#}\n")
}

/// Removes nulls, and escapes dollars so that they are not read as variables.
fn plain(tree: &mut Value) {
    match tree {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        _ => {}
    }
}

/// Writes a file for its owner only.
fn secret_file(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// A new random secret.
fn secret() -> String {
    let mut bytes = [0; 32];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).expect("there are random numbers");
    filters::hex::write(&bytes)
}

/// Free ports, and certificates of ours.
fn listeners(
    config: &mut Config,
    place: &Place<'_>,
    hosts: &[String],
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("cannot prepare listeners: {error}");
    config.listeners.retain(|_, listener| is_for_callers(listener.kind));
    // All together, so that no two get the same port.
    let mut bound = Vec::new();
    for _ in 0..=config.listeners.len() {
        bound.push(anywhere().map_err(|error| told(&error))?);
    }
    let mut addresses =
        bound.iter().map(|listener| SocketAddr::from(([127, 0, 0, 1], port(listener))));
    let ca = place.folder.join("clients.ca");
    fs::write(&ca, place.authority.pem()).map_err(|error| told(&error))?;
    let names = names(config, hosts);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, listener) in &mut config.listeners {
        let listener = &mut listener.value;
        listener.address = addresses.next().expect("there is one for each");
        if listener.proxy_protocol.take().is_some() {
            notes.push(format!(
                "listener `{name}` has no `proxy_protocol`: callers connect directly here"
            ));
        }
        if listener.limits.connections_per_client_max > 0 {
            listener.limits.connections_per_client_max = 0;
            notes.push(format!("listener `{name}` has no `connections_per_client_max`: all callers are one client here"));
        }
        let Some(tls) = &mut listener.tls else { continue };
        let pair = own_certificate(place.folder, name);
        let issued = place.authority.server(&names).map_err(|error| told(&error))?;
        issued.write(&pair.cert, &pair.key).map_err(|error| told(&error))?;
        let tls = &mut tls.value;
        tls.certificates = vec![Located::nowhere(pair)];
        if tls.client_ca.is_some() {
            tls.client_ca = Some(Located::nowhere(ca.clone()));
        }
    }
    let address = addresses.next().expect("there is one for each");
    let admin = serde_json::json!({"kind": "admin", "address": address});
    let admin = serde_json::from_value(admin).expect("it is a listener");
    config.listeners.insert(name(ADMIN), Located::nowhere(admin));
    Ok(())
}

/// Whether it is for callers, and not operators.
pub(super) fn is_for_callers(kind: ListenerKind) -> bool {
    matches!(kind, ListenerKind::Reverse | ListenerKind::Forward)
}

/// The certificate of a listener in a copy.
pub(super) fn own_certificate(folder: &Path, listener: &str) -> config::Certificate {
    let file = |end: &str| folder.join(format!("{listener}.{end}"));
    config::Certificate { cert: file("crt"), key: file("key") }
}

/// The hosts that routes are for.
fn served(config: &Config) -> Vec<String> {
    let routes = config.all_routes();
    let hosts = routes.iter().flat_map(|route| &route.hosts);
    let mut hosts: Vec<String> = hosts.map(one_of).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// A host that a pattern is for.
pub(super) fn one_of(pattern: &config::HostPattern) -> String {
    match pattern.wildcard() {
        Some(domain) => format!("drill.{domain}"),
        None => pattern.to_string(),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}

/// Records go into the copy's own folder, and nowhere else.
fn audit(config: &mut Config, place: &Place<'_>, notes: &mut Vec<String>) -> io::Result<()> {
    let folder = records(place.folder);
    fs::create_dir_all(&folder)?;
    let audit = &mut config.audit;
    audit.directory = Some(folder);
    // All are counted at the end.
    (audit.segments_max, audit.retention) = (0, None);
    if audit.checkpoints.take().is_some() {
        notes.push("checkpoints are not signed".to_owned());
    }
    if !audit.ship.is_empty() {
        audit.ship.clear();
        notes.push("records are not shipped".to_owned());
    }
    if config.control.take().is_some() {
        notes.push("no control source is polled: only the files count".to_owned());
    }
    Ok(())
}

/// The folder of the records of a copy.
pub(super) fn records(folder: &Path) -> PathBuf {
    folder.join("audit")
}
