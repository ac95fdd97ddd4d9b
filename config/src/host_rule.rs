//! `api.example.com`, `*.example.com:8443`: a host that may be called, on one port.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A host that may be called, and on which port: `api.example.com`, `*.example.com` for every name
/// below, `10.1.2.3:8443`. The port is 443 unless it is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostRule {
    /// The name or address; for a wildcard the domain that it is below.
    pub host: String,
    /// Whether it stands for every name below `host`, and not for `host` itself.
    pub subdomains: bool,
    /// The port.
    pub port: u16,
}

impl HostRule {
    /// The address, if it is one and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        if text.contains("://") || text.contains('/') {
            return Err(format!("`{shown}` is a URL; write the host alone: `api.example.com`"));
        }
        let (host, port) = match split(text) {
            Some(parts) => parts,
            None => return Err(format!("`{shown}` has no port after its colon; write `:443`")),
        };
        let port = match port {
            None => 443,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                format!("`{shown}`: `{}` is not a port from 1 to 65535", port.escape_debug())
            })?,
        };
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), subdomains: false, port });
        }
        let subdomains = host.starts_with("*.");
        let name = host.strip_prefix("*.").unwrap_or(host);
        if name.contains('*') {
            return Err(format!(
                "`{shown}`: `*` can only replace whole labels at the beginning; write `*.example.com`"
            ));
        }
        let star = if subdomains { "*." } else { "" };
        if subdomains && !name.contains('.') {
            return Err(format!("`{shown}` would allow half the internet; name a domain under it"));
        }
        let ascii = idna::domain_to_ascii_strict(name).map_err(|_| {
            format!("`{shown}` is not a host; write `api.example.com` or `*.example.com`")
        })?;
        if ascii != name {
            let port = if port == 443 { String::new() } else { format!(":{port}") };
            return Err(format!(
                "`{shown}` is not in its normal form; write `{star}{ascii}{port}`"
            ));
        }
        let label = |label: &str| (1..=63).contains(&label.len());
        if name.len() > 253 || !name.contains('.') || !name.split('.').all(label) {
            return Err(format!(
                "`{shown}` is not a fully qualified name; write it with its domain: `api.example.com`"
            ));
        }
        if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(format!("`{shown}` is neither a name nor an address"));
        }
        Ok(Self { host: ascii, subdomains, port })
    }
}

/// A host, on one port or on any: `harbor.corp.example`, `*.lab.example:8443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPorts {
    /// The host. Its port counts only where `every_port` is false.
    pub rule: HostRule,
    /// Whether no port was given.
    pub every_port: bool,
}

impl HostPorts {
    /// Whether some host is one of both rules'. Ports are not looked at.
    pub fn shares_host_with(&self, other: &HostRule) -> bool {
        let below = |name: &str, domain: &str| {
            name.strip_suffix(domain).is_some_and(|before| before.ends_with('.'))
        };
        let own = &self.rule;
        own.host == other.host && own.subdomains == other.subdomains
            || own.subdomains && below(&other.host, &own.host)
            || other.subdomains && below(&own.host, &other.host)
    }
}

impl From<HostRule> for HostPorts {
    fn from(rule: HostRule) -> Self {
        Self { rule, every_port: false }
    }
}

impl FromStr for HostPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = text.parse()?;
        let every_port = split(text).is_some_and(|(_, port)| port.is_none());
        Ok(Self { rule, every_port })
    }
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.rule.to_string();
        let bare = whole.rsplit_once(':').map_or(&*whole, |(host, _)| host);
        f.write_str(if self.every_port { bare } else { &whole })
    }
}

impl Serialize for HostPorts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPorts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for HostPorts {
    fn schema_name() -> Cow<'static, str> {
        "HostPorts".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// Host and port; `None` if there is a colon and nothing after it.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let after = text.rfind(']').map_or(0, |at| at + 1);
    // An IPv6 address without brackets has no port.
    if after == 0 && text.matches(':').count() > 1 {
        return Some((text, None));
    }
    match text[after..].find(':') {
        None => Some((text, None)),
        Some(at) if text.len() == after + at + 1 => None,
        Some(at) => Some((&text[..after + at], Some(&text[after + at + 1..]))),
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.subdomains { "*." } else { "" };
        let v6 = self.host.contains(':');
        let (open, close) = if v6 { ("[", "]") } else { ("", "") };
        write!(f, "{star}{open}{}{close}:{}", self.host, self.port)
    }
}

impl Serialize for HostRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for HostRule {
    fn schema_name() -> Cow<'static, str> {
        "HostRule".into()
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
    fn a_host_rule_is_a_host_and_a_port() {
        let check = |text: &str, host: &str, subdomains: bool, port: u16| {
            let host = host.to_owned();
            assert_eq!(text.parse(), Ok(HostRule { host, subdomains, port }), "{text}");
        };
        check("api.github.com", "api.github.com", false, 443);
        check("*.example.com", "example.com", true, 443);
        check("*.example.com:8443", "example.com", true, 8443);
        check("xn--bcher-kva.example", "xn--bcher-kva.example", false, 443);
        check("10.1.2.3:80", "10.1.2.3", false, 80);
        check("[2001:db8::1]:8443", "2001:db8::1", false, 8443);
        check("2001:db8::1", "2001:db8::1", false, 443);
    }

    #[test]
    fn a_host_without_a_port_is_on_every_port() {
        let check = |text: &str, every_port: bool| {
            let read: HostPorts = text.parse().unwrap();
            assert_eq!((read.every_port, read.to_string().as_str()), (every_port, text));
        };
        check("harbor.corp.example", true);
        check("harbor.corp.example:443", false);
        check("*.corp.example", true);
        check("[2001:db8::1]", true);
        check("[2001:db8::1]:8443", false);
        check("10.1.2.3", true);
    }

    #[test]
    fn two_rules_share_a_host_by_whole_labels() {
        let check = |own: &str, other: &str, expected: bool| {
            let (own, other): (HostPorts, HostRule) =
                (own.parse().unwrap(), other.parse().unwrap());
            assert_eq!(own.shares_host_with(&other), expected, "{own} {other}");
        };
        check("a.example", "a.example:8443", true);
        check("a.example", "b.example", false);
        check("*.lab.example", "a.lab.example:81", true);
        check("*.lab.example", "lab.example", false);
        check("*.lab.example", "evillab.example", false);
        check("a.lab.example", "*.lab.example", true);
        check("*.a.lab.example", "*.lab.example", true);
    }

    #[test]
    fn what_is_no_host_rule_is_told_with_what_to_write() {
        let check = |text: &str, expected: &str| {
            let message = text.parse::<HostRule>().unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("*.GitHub.com", "write `*.github.com`");
        check("bücher.example:8443", "write `xn--bcher-kva.example:8443`");
        check("https://api.github.com", "is a URL");
        check("api.github.com/v3", "is a URL");
        check("api.*.com", "`*` can only replace whole labels");
        check("*github.com", "`*` can only replace whole labels");
        check("*", "`*` can only replace whole labels");
        check("github", "with its domain");
        check("api.github.com.", "write");
        check("api.github.com:", "has no port");
        check("api.github.com:0", "is not a port");
        check("api.github.com:https", "is not a port");
        check("1.2.3", "neither a name nor an address");
        check("a..b", "is not a");
        check("user@example.com", "is not a host");
    }
}
