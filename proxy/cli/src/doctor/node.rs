//! What a Node process lacks to use the proxy, by its environment at the start.
//!
//! Values are not printed: a proxy's URL may contain a password.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use procfs::process::Process;
use serde::Serialize;

use super::{listeners::Listener, processes};

/// A Node process, and what it lacks.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    pub(super) pid: i32,
    pub(super) command: String,
    /// Whether its environment can be read. If not, nothing is known about it.
    pub(super) readable: bool,
    pub(super) lacks: Vec<Lack>,
}

/// Something that is missing or wrong, and the line to write.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Lack {
    pub(super) what: String,
    pub(super) write: String,
}

/// Where clients should be sent.
pub(super) struct Proxies<'a> {
    /// The config's forward listeners; empty without a config.
    pub(super) listeners: &'a [Listener],
    /// The addresses of this machine.
    pub(super) own: &'a [IpAddr],
}

type Env = HashMap<String, String>;

const BOOTSTRAP: &str = "NODE_OPTIONS=--require=/app/egress-bootstrap.js";
const NO_PROXY: &str = "NO_PROXY=127.0.0.1,localhost";
/// The proxy's address without a config.
const PROXY: &str = "http://127.0.0.1:3128";
const POINTERS: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "GLOBAL_AGENT_HTTPS_PROXY",
    "GLOBAL_AGENT_HTTP_PROXY",
];

/// All Node processes that can be seen.
pub(super) fn all(proxies: &Proxies<'_>) -> Vec<Node> {
    let mut all: Vec<Node> = processes::everybody()
        .filter(processes::is_node)
        .map(|process| Node::of(&process, proxies))
        .collect();
    all.sort_by_key(|node| node.pid);
    all
}

impl Node {
    fn of(process: &Process, proxies: &Proxies<'_>) -> Self {
        let environ = process.environ().ok();
        let text = |text: &std::ffi::OsString| text.to_string_lossy().into_owned();
        let env: Option<Env> =
            environ.map(|env| env.iter().map(|(name, value)| (text(name), text(value))).collect());
        let words = process.cmdline().unwrap_or_default();
        Self {
            pid: process.pid(),
            command: processes::command(process),
            readable: env.is_some(),
            lacks: env.map_or_else(Vec::new, |env| lacks(&env, &words, proxies)),
        }
    }
}

fn lacks(env: &Env, words: &[String], proxies: &Proxies<'_>) -> Vec<Lack> {
    let mut lacks = Vec::new();
    lacks.extend(bootstrap(env, words));
    pointers(env, proxies, &mut lacks);
    exceptions(env, &mut lacks);
    lacks
}

/// A file that sets up both HTTP clients must be loaded before anything else.
fn bootstrap(env: &Env, words: &[String]) -> Option<Lack> {
    let options = set(env, "NODE_OPTIONS").unwrap_or_default();
    let of_env = options.split_whitespace().map(|word| word.trim_matches('"'));
    let all: Vec<&str> = of_env.chain(words.iter().skip(1).map(String::as_str)).collect();
    let preloaded: Vec<&str> = all
        .iter()
        .enumerate()
        .filter_map(|(at, word)| match word.split_once('=') {
            Some(("-r" | "--require" | "--import", file)) => Some(file),
            None if matches!(*word, "-r" | "--require" | "--import") => all.get(at + 1).copied(),
            _ => None,
        })
        .collect();
    if preloaded.iter().any(|file| file.contains("bootstrap")) {
        return None;
    }
    let by_env = set(env, "NODE_USE_ENV_PROXY").is_some() || all.contains(&"--use-env-proxy");
    let what = if by_env {
        "only NODE_USE_ENV_PROXY sends its calls through the proxy: clients with `agent: false` or their own agent (/api/proxy, kubernetes) bypass it"
    } else if preloaded.is_empty() {
        "no bootstrap file is preloaded, so the proxy variables are ignored"
    } else {
        "none of the preloaded files is called bootstrap"
    };
    Some(lack(what, BOOTSTRAP))
}

fn pointers(env: &Env, proxies: &Proxies<'_>, lacks: &mut Vec<Lack>) {
    let url = proxies.listeners.first().map_or_else(|| PROXY.to_owned(), Listener::url);
    for (name, small, agents) in [
        ("HTTPS_PROXY", "https_proxy", "GLOBAL_AGENT_HTTPS_PROXY"),
        ("HTTP_PROXY", "http_proxy", "GLOBAL_AGENT_HTTP_PROXY"),
    ] {
        if set(env, name).or(set(env, small)).is_some() {
            continue;
        }
        let what = match set(env, agents) {
            Some(_) => format!("{name} is missing: {agents} is not read by the built-in fetch"),
            None => format!("{name} is missing"),
        };
        lacks.push(lack(&what, &format!("{name}={url}")));
    }
    for name in POINTERS {
        let Some(value) = set(env, name) else { continue };
        let write = format!("{name}={url}");
        match pointed_at(value) {
            None => lacks.push(lack(&format!("{name} is not the address of a proxy"), &write)),
            Some(("https", ..)) => lacks.push(lack(
                &format!("{name} begins with https: global-agent cannot speak TLS to a proxy"),
                &write,
            )),
            Some((_, host, port)) if !proxies.are_at(&host, port) => lacks.push(lack(
                &format!(
                    "{name} points at {host}:{port}, where no forward listener of the config is"
                ),
                &write,
            )),
            Some(_) => {}
        }
    }
}

/// Plugins call each other at localhost, and an allowlist would refuse them.
fn exceptions(env: &Env, lacks: &mut Vec<Lack>) {
    let common = set(env, "no_proxy").or(set(env, "NO_PROXY"));
    let agents = set(env, "GLOBAL_AGENT_NO_PROXY");
    let listed =
        [("NO_PROXY", Some(common.unwrap_or_default())), ("GLOBAL_AGENT_NO_PROXY", agents)];
    for (name, value) in listed {
        let Some(value) = value else { continue };
        let write = NO_PROXY.replacen("NO_PROXY", name, 1);
        let hosts: Vec<&str> = value.split([',', ' ']).map(str::trim).collect();
        let missing: Vec<&str> =
            ["127.0.0.1", "localhost"].into_iter().filter(|host| !hosts.contains(host)).collect();
        if hosts.contains(&"*") {
            lacks.push(lack(&format!("{name} has `*`: every call bypasses the proxy"), &write));
        } else if !missing.is_empty() {
            lacks.push(lack(&format!("{name} does not contain {}", missing.join(" and ")), &write));
        }
    }
}

/// Scheme, host and port of a proxy's URL. `None` if the host could contain a password.
fn pointed_at(value: &str) -> Option<(&'static str, String, u16)> {
    let url = reqwest::Url::parse(value).ok()?;
    let plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let scheme = match url.scheme() {
        "http" => "http",
        "https" => "https",
        _ => return None,
    };
    let host = url.host_str().filter(|_| plain)?.to_owned();
    Some((scheme, host, url.port_or_known_default()?))
}

impl Proxies<'_> {
    /// Whether a listener has this address. For a name only the port is compared.
    fn are_at(&self, host: &str, port: u16) -> bool {
        let ip = match host {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            _ => host.trim_matches(['[', ']']).parse::<IpAddr>().ok(),
        };
        let is_at = |at: SocketAddr| {
            at.port() == port
                && ip.is_none_or(|ip| {
                    at.ip() == ip
                        || at.ip().is_unspecified() && (ip.is_loopback() || self.own.contains(&ip))
                })
        };
        self.listeners.is_empty() || self.listeners.iter().any(|listener| is_at(listener.address))
    }
}

/// A variable, if it is more than empty.
fn set<'e>(env: &'e Env, name: &str) -> Option<&'e str> {
    env.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn lack(what: &str, write: &str) -> Lack {
    Lack { what: what.to_owned(), write: write.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(env: &[(&str, &str)], words: &str) -> Vec<Lack> {
        let listener = |address: &str| Listener {
            name: "out".to_owned(),
            address: address.parse().unwrap(),
            tls: false,
        };
        let listeners = [listener("127.0.0.1:3128"), listener("0.0.0.0:3129")];
        let own = ["10.0.0.5".parse().unwrap()];
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        lacks(&env.collect(), &words, &Proxies { listeners: &listeners, own: &own })
    }

    const GOOD: [(&str, &str); 4] = [
        ("NODE_OPTIONS", "--require=/app/egress-bootstrap.js"),
        ("HTTPS_PROXY", "http://catalog:a-secret-password@127.0.0.1:3128"),
        ("HTTP_PROXY", "http://127.0.0.1:3128/"),
        ("NO_PROXY", "127.0.0.1,localhost"),
    ];

    /// `GOOD` with some variables changed; an empty one is removed.
    fn check(changes: &[(&str, &str)], words: &str, expected: &[(&str, &str)]) {
        let lacks = lacking(&[&GOOD[..], changes].concat(), words);
        assert_eq!(lacks.len(), expected.len(), "{lacks:?}");
        for (lack, (what, write)) in lacks.iter().zip(expected) {
            assert!(lack.what.contains(what) && lack.write == *write, "{lacks:?}");
        }
        assert!(!format!("{lacks:?}").contains("secret"), "{lacks:?}");
    }

    #[test]
    fn what_a_node_process_lacks_is_reported_with_the_line_to_write() {
        let proxy = "http://127.0.0.1:3128";
        let https = &*format!("HTTPS_PROXY={proxy}");
        let http = &*format!("HTTP_PROXY={proxy}");
        check(&[], "node app.js", &[]);
        check(&[("NODE_OPTIONS", "")], "node -r ./egress-bootstrap.js app.js", &[]);
        check(&[("NODE_OPTIONS", "")], "node --import=./bootstrap.mjs app.js", &[]);
        check(&[("NODE_OPTIONS", "")], "node bootstrap.js", &[("no bootstrap", BOOTSTRAP)]);
        check(
            &[("NODE_OPTIONS", "-r dd-trace/init")],
            "node a",
            &[("none of the preloaded files is called", BOOTSTRAP)],
        );
        let env_only = [("NODE_OPTIONS", ""), ("NODE_USE_ENV_PROXY", "1")];
        check(&env_only, "node app.js", &[("bypass it", BOOTSTRAP)]);
        check(&[("HTTPS_PROXY", "")], "node a", &[("HTTPS_PROXY is missing", https)]);
        let agents = [("HTTP_PROXY", ""), ("GLOBAL_AGENT_HTTP_PROXY", proxy)];
        check(&agents, "node a", &[("not read by the built-in fetch", http)]);
        check(&[("NO_PROXY", "localhost")], "node a", &[("does not contain 127.0.0.1", NO_PROXY)]);
        check(&[("NO_PROXY", "")], "node a", &[("127.0.0.1 and localhost", NO_PROXY)]);
        check(&[("NO_PROXY", "*")], "node a", &[("every call", NO_PROXY)]);
        let agents = "GLOBAL_AGENT_NO_PROXY=127.0.0.1,localhost";
        check(
            &[("GLOBAL_AGENT_NO_PROXY", "x")],
            "node a",
            &[("GLOBAL_AGENT_NO_PROXY does not contain 127.0.0.1 and localhost", agents)],
        );
    }

    #[test]
    fn a_proxy_that_is_not_in_the_config_is_reported_without_its_password() {
        let write = "HTTPS_PROXY=http://127.0.0.1:3128";
        let points = |url: &str, expected: &str| {
            let expected: &[_] = if expected.is_empty() { &[] } else { &[(expected, write)] };
            check(&[("HTTPS_PROXY", url)], "node app.js", expected);
        };
        points("http://localhost:3128", "");
        points("http://10.0.0.5:3129", "");
        points("http://stagedoor.infra.svc:3129", "");
        points("http://10.0.0.5:3128", "points at 10.0.0.5:3128,");
        points("http://a:secret@proxy.corp:8080", "points at proxy.corp:8080,");
        points("https://127.0.0.1:3128", "begins with https");
        points("http://a:12/secret@127.0.0.1:3128", "is not the address");
        points("http://a:secret/x@127.0.0.1:3128", "is not the address");
        points("http://secret?@127.0.0.1:3128", "is not the address");
        points("http://secret\\@127.0.0.1:3128", "is not the address");
        points("a:secret@127.0.0.1:3128", "is not the address");
        points("secret", "is not the address");
    }
}
