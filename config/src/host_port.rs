//! `logs.example.com:6514`: whom to connect to.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::Url;

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The name in lower case, or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is not a host with a port; write for example `logs.example.com:6514`",
                text.escape_debug()
            )
        };
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        if text.contains('/') || !has_port {
            return Err(wrong());
        }
        let url: Url = format!("https://{text}").parse().map_err(|_| wrong())?;
        Ok(Self { host: url.host, port: url.port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for HostPort {
    fn schema_name() -> Cow<'static, str> {
        "HostPort".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[^/?#@\\s]+:[0-9]{1,5}$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_port_with_it() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<HostPort>().ok().map(|read| read.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("Logs.Example.com:6514", Some("logs.example.com:6514"));
        check("10.0.0.1:601", Some("10.0.0.1:601"));
        check("[::1]:6514", Some("[::1]:6514"));
        check("logs.example.com", None);
        check("[::1]", None);
        check("::1", None);
        check("logs.example.com:", None);
        check("logs.example.com:0", None);
        check("user@logs:1", None);
        check("https://logs:1", None);
    }
}
