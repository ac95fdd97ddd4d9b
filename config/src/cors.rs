//! Pages on other origins, and what of our answers they may read.

use std::{borrow::Cow, fmt, net::Ipv6Addr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::Url;

/// Pages on other origins that may read this listener's responses (CORS, Fetch standard). They see denials
/// and other responses that Stagedoor generates, with `Retry-After`, `X-Request-Id` and the rate limit
/// headers. An upstream's response that says anything about origins (`Access-Control-*`, or `Vary: Origin`)
/// stays unchanged; one that says nothing gets our headers. The same holds for a preflight: the upstream's
/// response counts. Stagedoor answers a preflight only if it refuses it; the page can then send its request
/// and read why it is refused. The record keeps the refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// The origins, each as a browser sends it in `Origin`: `https://app.example.com`, with a port only if it
    /// is not the scheme's default. Patterns are not supported.
    pub origins: Vec<Origin>,
    /// Also let pages read responses to requests that carry cookies or client certificates.
    #[serde(default = "yes")]
    pub credentials: bool,
}

fn yes() -> bool {
    true
}

impl Cors {
    /// Whether a page on this origin, as its browser sends it, is among them.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|own| own.0.as_bytes() == origin)
    }
}

/// An origin (RFC 6454 6.2), exactly as browsers write it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => {
                return Err(
                    "`*` would let every page in the world read responses; name each origin".into(),
                );
            }
            "null" => {
                return Err("`null` is the origin of every sandboxed page; name each origin".into());
            }
            _ => {}
        }
        let shown = text.escape_debug();
        if text.contains('*') {
            return Err(format!("`{shown}` is a pattern; name each origin"));
        }
        let mut url = text.parse::<Url>().map_err(|_| {
            format!("`{shown}` is not an origin; write `https://app.example.com`, or with a port")
        })?;
        if let Ok(address) = url.host.parse::<Ipv6Addr>() {
            url.host = address.to_string();
        }
        url.path.clear();
        let origin = url.to_string();
        if origin != text {
            return Err(format!("`{shown}` is not how a browser sends it; write `{origin}`"));
        }
        Ok(Self(origin))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Origin {
    fn schema_name() -> Cow<'static, str> {
        "Origin".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^https?://[^/?#@\\sA-Z]+$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for right in [
            "https://app.example.com",
            "http://localhost:3000",
            "https://127.0.0.1:8444",
            "https://[::1]:8444",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(right.parse::<Origin>().unwrap().to_string(), right);
        }
        let check = |wrong: &str, instead: &str| {
            let told = wrong.parse::<Origin>().unwrap_err();
            assert!(told.contains(instead), "{wrong}: {told}");
        };
        check("https://App.example.com", "write `https://app.example.com`");
        check("https://app.example.com/", "write `https://app.example.com`");
        check("https://app.example.com/catalog", "write `https://app.example.com`");
        check("https://app.example.com:443", "write `https://app.example.com`");
        check("http://app.example.com:80", "write `http://app.example.com`");
        check("HTTPS://app.example.com", "not an origin");
        check("https://[0:0:0:0:0:0:0:1]", "write `https://[::1]`");
        check("app.example.com", "not an origin");
        check("https://u:p@app.example.com", "not an origin");
        check("https://bücher.example", "not an origin");
        check("https://*.example.com", "is a pattern");
        check("*", "every page in the world");
        check("null", "sandbox");
        check("", "not an origin");
    }

    #[test]
    fn only_the_whole_origin_counts() {
        let origins = vec!["https://app.example.com".parse().unwrap()];
        let cors = Cors { origins, credentials: true };
        assert!(cors.allows(b"https://app.example.com"));
        for other in [
            "https://app.example.com.evil.example",
            "https://evil-app.example.com",
            "https://x.app.example.com",
            "https://evil.example/https://app.example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com:443",
            "https://app.example.com.",
            "https://app.example.com/",
            "https://APP.example.com",
            "https://app.example.com https://evil.example",
            "app.example.com",
            "null",
            "",
            "*",
        ] {
            assert!(!cors.allows(other.as_bytes()), "{other}");
        }
    }
}
