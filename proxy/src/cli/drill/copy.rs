//! The operator's config with everything outward replaced: what the private copy of the proxy runs with.

mod identity;
mod left;
mod outward;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use certs::dev::Authority;
use config::{Config, Limit, ListenerKind, Located, Name};
use serde_json::Value;

pub(super) use self::outward::one_of_rule;
use super::{
    stand_ins::{Sockets, anywhere, port},
    tokens::Mint,
};

/// The name of the admin listener of a copy.
const ADMIN: &str = "drill-admin";
/// More than a drill asks for, also where somebody is charged a moment late.
const NO_LIMIT: (&str, u32) = ("1000/s", 1_000_000);

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
    /// What is not as the operator wrote it, beyond addresses and secrets.
    pub(super) notes: Vec<String>,
}

/// Where what a copy needs is written.
pub(super) struct Place<'a> {
    pub(super) folder: &'a Path,
    pub(super) authority: &'a Authority,
    pub(super) sockets: &'a Sockets,
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
        lift_limits(&mut config, &mut notes);
        let admin = config.listeners[ADMIN].address;
        audit(&mut config, place, &mut notes).map_err(told)?;
        let process = &mut config.process;
        process.upgrade_socket = None;
        process.drain_delay = config::Duration::from_secs(0);
        process.drain_timeout = config::Duration::from_secs(5);
        process.name_servers = vec![place.sockets.name_server()];
        config.headers.assertion_key = None;
        if let Some(left) = left::left(&config, place.folder, &hosts) {
            return Err(format!(
                "`{left}` would be yours in the copy, so there is none; please tell us"
            ));
        }
        let file = place.folder.join("stagedoor.yaml");
        fs::write(&file, text(&config)).map_err(told)?;
        Ok(Self { config, file, admin, mint, hosts, notes })
    }

    /// Writes the config again, as it was.
    pub(super) fn write_again(&self) -> Result<(), String> {
        let wrote = fs::write(&self.file, text(&self.config));
        wrote.map_err(|error| format!("cannot write `{}`: {error}", self.file.display()))
    }

    /// The names that its listeners are asked for.
    pub(super) fn names(&self) -> Vec<String> {
        names(&self.config, &self.hosts)
    }
}

/// The names that listeners are asked for, and those of `hosts`.
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

/// Leaves out what is not given, and keeps dollars from being read as variables.
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

/// A secret that nobody else has.
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
    config.listeners.retain(|_, listener| listener.kind != ListenerKind::Admin);
    // All at once, so that no two get the same.
    let mut bound = Vec::new();
    for _ in 0..=config.listeners.len() {
        bound.push(anywhere().map_err(|error| told(&error))?);
    }
    let mut addresses =
        bound.iter().map(|listener| SocketAddr::from(([127, 0, 0, 1], port(listener))));
    let ca = place.folder.join("ca.crt");
    fs::write(&ca, place.authority.pem()).map_err(|error| told(&error))?;
    let names = names(config, hosts);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, listener) in &mut config.listeners {
        let listener = &mut listener.value;
        listener.address = addresses.next().expect("there is one for each");
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

/// A drill is about what breaks; a limit that is reached would hide it.
fn lift_limits(config: &mut Config, notes: &mut Vec<String>) {
    let rate = NO_LIMIT.0.parse().expect("it is a rate");
    let all = Limit { rate, burst: std::num::NonZeroU32::new(NO_LIMIT.1) };
    config.rate_limit.each_workspace = all;
    config.rate_limit.each_client = all;
    config.rate_limit.each_caller = None;
    config.egress.each_workspace = all;
    config.workspaces.named.values_mut().for_each(|workspace| workspace.value.rate_limit = None);
    config.plugins.values_mut().for_each(|plugin| plugin.rate_limit = None);
    config.routes.iter_mut().for_each(|route| route.value.options.rate_limit = None);
    let changes = config.presets.iter_mut().flat_map(|used| used.value.routes.values_mut());
    changes.for_each(|changes| changes.value.rate_limit = None);
    config.upstreams.values_mut().for_each(|upstream| upstream.value.pace = None);
    notes.push("limits of rate and pace are lifted, so that the load passes".to_owned());
}

/// Records go into the copy's own folder, and nowhere else.
fn audit(config: &mut Config, place: &Place<'_>, notes: &mut Vec<String>) -> io::Result<()> {
    let folder = records(place.folder);
    fs::create_dir_all(&folder)?;
    let audit = &mut config.audit;
    audit.folder = Some(folder);
    // All are counted at the end.
    (audit.segments_kept, audit.kept_for) = (0, None);
    if audit.checkpoints.take().is_some() {
        notes.push("checkpoints are not signed".to_owned());
    }
    if !audit.ship.is_empty() {
        audit.ship.clear();
        notes.push("records are not shipped".to_owned());
    }
    if config.control.take().is_some() {
        notes.push("no control source is asked: the files alone decide".to_owned());
    }
    Ok(())
}

/// The folder of the records of a copy.
pub(super) fn records(folder: &Path) -> PathBuf {
    folder.join("audit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_reads_back_as_it_was_written() {
        for example in ["edge", "sidecar", "egress", "external"] {
            let file = format!("{}/../examples/{example}.yaml", env!("CARGO_MANIFEST_DIR"));
            let first = crate::reload::load(Path::new(&file)).unwrap().config;
            let again = config::parse("copy.yaml", &text(&first));
            let again = again.unwrap_or_else(|problems| panic!("{problems}")).config;
            assert_eq!(first, again, "{example}");
        }
    }

    /// Everything outward that a config can name. None of its places may be left in a copy.
    const WHOLE: &str = r#"
version: stagedoor/v1
listeners:
  edge:
    kind: reverse
    address: 192.0.2.1:8443
    tls:
      certificates: [{cert: /real/tls.crt, key: /real/tls.key}]
      client_ca: /real/clients.crt
      client_certificate: required
    limits: {connections_per_client_max: 3}
  out: {kind: forward, address: 192.0.2.2:3128, workspace: payments}
  admin: {kind: admin, address: "127.0.0.1:9090"}
identity:
  issuers:
    discovered: {issuer: https://real.example/realms/a, audiences: [a]}
    fetched: {issuer: fetched, audiences: [a], keys: {url: https://real.example/jwks, ca: /real/ca.crt}}
    filed: {issuer: filed, audiences: [a], keys: {file: /real/jwks.json}}
    shared: {issuer: shared, audiences: [a], algorithms: [HS512], keys: {secret_file: /real/secret}}
    portal: {kind: backstage, issuer: portal, algorithms: [ES256], keys: {backstage_url: "http://192.0.2.3:7007"}}
  client_certificates: [{name: "spiffe://a/b", caller: service:ci, workspaces: [payments]}]
workspaces: {named: {payments: {rate_limit: {rate: 1/h}}}}
plugins: {jenkins: {rate_limit: {rate: 1/h}}}
credentials:
  basic: {kind: basic, username: u, password_file: /real/password}
  header: {kind: header, value_file: /real/value}
  client: {kind: oauth2_client_credentials, token_url: https://real.example/token, client_id: c, client_secret_file: /real/client, ca: /real/ca.crt}
  exchange: {kind: token_exchange, token_url: https://real.example/token, client_id: c, client_secret_file: /real/client, issuers: [discovered]}
  app: {kind: github_app, api: https://real.example/api, app_id: "1", installation_id: 2, private_key_file: /real/app.pem}
  spacelift: {kind: spacelift_api_key, token_url: https://acme.real.example/graphql, key_id: k, key_secret_file: /real/key}
upstreams:
  a: {url: "https://a.real.example/base", credential: basic, health_check: {path: /healthz, status: "204"}, idempotency: {scope: caller, secret_file: /real/idempotency}, tls: {ca: /real/ca.crt, client_cert: /real/c.crt, client_key: /real/c.key}}
  b: {url: "http://192.0.2.4:80", http: h2, credential: header, pace: {rate: 1/h}}
  c: {url: "https://c.real.example", external: true, credential: client}
  d: {url: "https://d.real.example", credential: exchange}
  e: {url: "https://e.real.example", credential: app}
  spacelift: {url: "https://acme.real.example", external: true, credential: spacelift}
routes:
- {name: a, methods: [GET], path: /a, upstream: a, class: read, options: {access: {roles: [r]}, rate_limit: {rate: 1/h}}}
- {name: b, methods: [GET], path: /b, upstream: b, class: read, options: {access: {roles: [r]}}}
- {name: c, methods: [GET], path: /c, upstream: c, class: read, options: {access: {roles: [r]}}}
- {name: d, methods: [GET], path: /d, upstream: d, class: read, options: {access: {roles: [r]}}}
- {name: e, methods: [GET], path: /e, upstream: e, class: read, options: {access: {roles: [r]}}}
- {name: s, methods: [POST], path: /s, upstream: spacelift, class: read, options: {access: {callers: [p]}, graphql: [{query: [stacks]}]}}
egress:
  hosts: {own: ["own.called.example:8443", "*.wild.called.example"]}
  rules:
  - {name: groups, to: [own, gitlab]}
  - {name: hosts, to: ["plain.called.example:80", "192.0.2.5:9000"]}
  private: [{host: "own.called.example:8443", addresses: [192.0.2.0/24]}]
  callers: {p: {password_file: /real/egress, workspace: payments}}
headers: {assertion_key: /real/assertion.key}
control: {url: https://real.example/control, token_file: /real/control, keep_file: /real/kept}
audit:
  folder: /real/audit
  checkpoints: {key_file: /real/checkpoints.pem}
  ship: {siem: {kind: webhook, url: https://real.example/siem, secret_file: /real/siem}}
process: {upgrade_socket: /real/socket, name_servers: ["192.0.2.6:53"]}
"#;

    #[test]
    fn nothing_of_the_operators_is_left_in_a_copy() {
        let written = config::parse("stagedoor.yaml", WHOLE);
        let written = written.unwrap_or_else(|problems| panic!("{problems}")).config;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("test").unwrap();
        let sockets = Sockets::bind(&written).unwrap();
        let place = Place { folder: folder.path(), authority: &authority, sockets: &sockets };
        let copy = PrivateCopy::write(&written, &place).unwrap();
        let text = fs::read_to_string(&copy.file).unwrap();
        let again = crate::reload::load(&copy.file).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(again.config, copy.config);
        let mut lines = text.lines().map(str::trim);
        let left = lines.find(|line| {
            let address = line.contains("192.0.2.") && !line.contains("192.0.2.0/24");
            line.contains("/real/") || line.contains("//real.example") || address
        });
        assert_eq!(left, None);
        // The names of what is somebody else's stay, at the ports of stand-ins.
        let urls = copy.config.upstreams.values().map(|upstream| &upstream.url);
        let named: Vec<&str> = urls
            .filter(|url| url.ip().is_none() && url.port != 443)
            .map(|url| url.host.as_str())
            .collect();
        assert_eq!(named, ["c.real.example", "acme.real.example"]);
        let kept = [("gitlab.com", true), ("drill.wild.called.example", true)];
        for (host, is_there) in kept {
            assert_eq!(copy.hosts.contains(&host.to_owned()), is_there, "{host}");
        }
        assert_eq!(
            copy.config.listeners.values().filter(|l| !l.address.ip().is_loopback()).count(),
            0
        );
        assert_eq!(
            left::left(&written, folder.path(), &[]).as_deref(),
            Some("listeners.edge.address")
        );
        assert_eq!(copy.config.upstreams["a"].url.path, "/base");
        assert_eq!(copy.config.upstreams["a"].breaker, written.upstreams["a"].breaker);
        assert!(copy.notes.iter().any(|note| note.contains("GitHub")), "{:?}", copy.notes);
    }

    #[test]
    fn a_dollar_is_no_variable() {
        let mut tree = serde_json::json!({"a": ["$x", null], "b": null});
        plain(&mut tree);
        assert_eq!(tree, serde_json::json!({"a": ["$$x", null]}));
    }
}
