//! An address with a scheme, as far as Stagedoor needs one.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// An `http` or `https` address: scheme, host, port, path. No credentials, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// The host in lower case; an IPv6 address without its brackets.
    pub host: String,
    /// The port, that of the scheme by default.
    pub port: u16,
    /// The path, empty or beginning with `/`, without a trailing one.
    pub path: String,
}

impl Url {
    /// Host and, unless it is the scheme's own, port, as a `Host` header wants them.
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// Scheme, host and port alone.
    pub fn origin(&self) -> String {
        Self { path: String::new(), ..self.clone() }.to_string()
    }

    /// The host, if it is an address and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            // Credentials in a URL would end up in the message.
            let shown = if text.contains('@') { "<hidden>" } else { text };
            Err(format!("`{}` {why}", shown.escape_debug()))
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return wrong("is not a URL; write `https://host:port` or `http://host:port`"),
        };
        if rest.contains(['?', '#', '@', '\\']) || rest.contains(char::is_whitespace) {
            return wrong("must not contain a user, a query, a fragment or spaces");
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
                _ => return wrong("has a broken IPv6 address; write `http://[::1]:8080`"),
            },
            None => match authority.find(':') {
                Some(colon) => authority.split_at(colon),
                None => (authority, ""),
            },
        };
        let port = match port.strip_prefix(':').map(str::parse::<u16>) {
            None if port.is_empty() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(Ok(port)) if port > 0 => port,
            _ => return wrong("has an invalid port; write 1 to 65535"),
        };
        let dns = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let is_v6 = authority.starts_with('[');
        if host.is_empty() || !(is_v6 || host.bytes().all(dns)) || host.len() > 253 {
            return wrong("has an invalid host");
        }
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Url {
    fn schema_name() -> Cow<'static, str> {
        "Url".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^https?://[^?#@\\s]+$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together() {
        let check = |text: &str, host: &str, port: u16, path: &str, shown: &str| {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, url.path.as_str()), (host, port, path));
            assert_eq!(url.to_string(), shown);
        };
        check("https://DXCP.svc:8443", "dxcp.svc", 8443, "", "https://dxcp.svc:8443");
        check("http://a/b/", "a", 80, "/b", "http://a/b");
        check("http://[::1]:7007", "::1", 7007, "", "http://[::1]:7007");
        check("https://127.0.0.1", "127.0.0.1", 443, "", "https://127.0.0.1");
    }

    #[test]
    fn what_is_not_a_plain_address_is_refused() {
        for wrong in [
            "dxcp:8443",
            "ftp://a",
            "https://",
            "https://a:0",
            "https://a:99999",
            "https://a:",
            "https://u:p@a",
            "https://a?x=1",
            "https://a b",
            "http://[::1",
            "http://[nope]:1",
        ] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
        assert!(!"https://u:secret@a".parse::<Url>().unwrap_err().contains("secret"));
    }
}
