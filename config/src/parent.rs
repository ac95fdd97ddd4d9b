//! The proxy that stands between us and the internet, where there is one.

use std::{borrow::Cow, fmt, net::IpAddr, path::PathBuf, str::FromStr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{Config, Located, Name, Url};

/// The proxy between Stagedoor and the internet (Squid and Envoy call it a parent). All outbound traffic goes
/// through it: tunnels and plain calls of forward listeners, `external` upstreams, and what Stagedoor itself
/// fetches or ships (keys, user info, tokens, the control source, records). The parent resolves names, so
/// their addresses are not checked here. `egress.rules` still decide which names may be called, and a call to
/// a literal address is checked as usual.
///
/// These bypass it: hosts in `no_proxy` and `egress.private`, `localhost` and loopback addresses, upstreams
/// that are not `external`, and names that only your own network can resolve (`keycloak`, `*.svc`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Scheme, host and port: `http://proxy.corp.example:8080`. With `https://` the connection to the proxy
    /// itself uses TLS. Its name may resolve to a private address.
    pub url: Located<Url>,
    /// Our user name at the proxy (Basic). It is sent only to this proxy.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password for that name. A trailing newline is ignored. The file is watched.
    #[serde(default)]
    pub password_file: Option<Located<PathBuf>>,
    /// PEM file of CAs for an `https://` proxy, instead of the system's.
    #[serde(default)]
    pub ca: Option<Located<PathBuf>>,
    /// Destinations to reach directly, as in the variable `NO_PROXY`: `corp.example` for that name and every
    /// name below it, `*.corp.example` only for names below it, addresses, ranges such as `10.0.0.0/8` for
    /// calls to a literal address, each optionally with a port (`corp.example:8443`), or `*` for everything.
    #[serde(default)]
    pub no_proxy: Vec<NoProxy>,
}

/// What is reached without a parent proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NoProxy {
    /// Everything.
    Everything,
    /// What is called by an address in this range.
    Net(IpNet),
    /// One host, or names below a domain.
    Host {
        /// In lower case; an IPv6 address without brackets.
        host: String,
        /// Whether only names below it are meant.
        below: bool,
        /// On this port alone.
        port: Option<u16>,
    },
}

impl Config {
    /// The listener that a parent proxy would be, if it is one of ours: Backstage is told of it by the
    /// same variables.
    pub fn leads_back(&self, url: &Url) -> Option<&Name> {
        let here = url.host == "localhost" || url.ip().is_some_and(|ip| ip.is_loopback());
        let mut listeners = self.listeners.iter().filter(|(_, own)| own.address.port() == url.port);
        let found = listeners.find(|(_, own)| {
            let at = own.address.ip();
            url.ip() == Some(at) || here && (at.is_loopback() || at.is_unspecified())
        });
        found.map(|(name, _)| name)
    }
}

impl NoProxy {
    /// Whether this port of a host is reached directly. A name is not looked up for it.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let ip = name.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        match self {
            Self::Everything => true,
            Self::Net(net) => ip.is_some_and(|ip| net.contains(&ip.to_canonical())),
            Self::Host { port: Some(only), .. } if *only != port => false,
            Self::Host { host: own, below, .. } => match (ip, own.parse::<IpAddr>()) {
                (Some(ip), Ok(own)) => ip.to_canonical() == own.to_canonical(),
                // `10.0.0.1` is below no `0.0.1`.
                (Some(_), Err(_)) | (None, Ok(_)) => false,
                (None, Err(_)) => {
                    let inside = name.strip_suffix(own.as_str());
                    inside
                        .is_some_and(|before| before.ends_with('.') || before.is_empty() && !below)
                }
            },
        }
    }
}

impl FromStr for NoProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown = if text.contains('@') {
                "<hidden>".into()
            } else {
                text.escape_debug().to_string()
            };
            format!(
                "`{shown}` names no host; write `corp.example`, `*.corp.example:8443`, `10.0.0.0/8` or `*`"
            )
        };
        if text == "*" {
            return Ok(Self::Everything);
        }
        if text.contains('/') {
            let net: IpNet = text.parse().map_err(|_| wrong())?;
            return Ok(Self::Net(net.trunc()));
        }
        let address = |ip: IpAddr, port| Self::Host { host: ip.to_string(), below: false, port };
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(address(ip, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
                (host, Some(port))
            }
            None => (text, None),
        };
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(address(ip, port));
        }
        let (name, below) = match host.strip_prefix("*.") {
            Some(name) => (name, true),
            // curl's reading: the dot in front changes nothing.
            None => (host.strip_prefix('.').unwrap_or(host), false),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(wrong());
        }
        Ok(Self::Host { host: name, below, port })
    }
}

impl fmt::Display for NoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("*"),
            Self::Net(net) => net.fmt(f),
            Self::Host { host, below, port } => {
                let star = if *below { "*." } else { "" };
                match port {
                    Some(port) if host.contains(':') => write!(f, "[{host}]:{port}"),
                    Some(port) => write!(f, "{star}{host}:{port}"),
                    None => write!(f, "{star}{host}"),
                }
            }
        }
    }
}

impl Serialize for NoProxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NoProxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for NoProxy {
    fn schema_name() -> Cow<'static, str> {
        "NoProxy".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_directly_is_read_as_curl_and_go_do() {
        let check = |entry: &str, covered: &[&str], others: &[&str]| {
            let entry: NoProxy = entry.parse().unwrap();
            let covers = |place: &&str| {
                let (host, port) = place.rsplit_once(':').unwrap();
                entry.covers(host.trim_matches(['[', ']']), port.parse().unwrap())
            };
            for place in covered {
                assert!(covers(place), "{entry} {place}");
            }
            for place in others {
                assert!(!covers(place), "{entry} {place}");
            }
        };
        let tricks = [
            "evilcorp.example:443",
            "corp.example.evil.test:443",
            "corp.example-evil.test:443",
            "example:443",
            "10.0.0.1:443",
        ];
        for entry in ["corp.example", ".corp.example", "CORP.example."] {
            let own = ["corp.example:443", "a.corp.example:80", "A.B.Corp.Example.:1"];
            check(entry, &own, &tricks);
        }
        check("*.corp.example", &["a.corp.example:443"], &["corp.example:443"]);
        check("*.corp.example", &[], &tricks);
        check(
            "corp.example:8443",
            &["corp.example:8443", "a.corp.example:8443"],
            &["corp.example:443"],
        );
        check(
            "10.0.0.0/8",
            &["10.1.2.3:443", "::ffff:10.1.2.3:443"],
            &["11.0.0.1:443", "10.example:443"],
        );
        check("10.1.2.3/8", &["10.9.9.9:1"], &[]);
        check("10.1.2.3", &["10.1.2.3:443"], &["10.1.2.34:443", "a.10.1.2.3:1"]);
        check("0.0.1", &[], &["10.0.0.1:443"]);
        check("10.1.2.3:80", &["10.1.2.3:80"], &["10.1.2.3:443"]);
        check("[fd00::1]:8443", &["[fd00::1]:8443"], &["[fd00::1]:443"]);
        check("fd00::1", &["[fd00::1]:443"], &[]);
        check("fd00::/8", &["[fd00::1]:443"], &["[2001:db8::1]:443"]);
        check("*", &["a:1", "10.0.0.1:1"], &[]);
    }

    #[test]
    fn what_names_no_host_is_told_with_what_to_write() {
        for wrong in [
            "",
            ".",
            "a b",
            "http://a",
            "a:0",
            "a:x",
            "10.0.0.0/33",
            "a/8",
            "*.",
            "a..b",
            "a*",
            "x@y",
        ] {
            let message = wrong.parse::<NoProxy>().unwrap_err();
            assert!(message.contains("write `corp.example`"), "{wrong}: {message}");
        }
        for text in
            ["corp.example", "*.corp.example:8443", "10.0.0.0/8", "[fd00::1]:8443", "fd00::1", "*"]
        {
            assert_eq!(text.parse::<NoProxy>().unwrap().to_string(), text);
        }
    }
}
