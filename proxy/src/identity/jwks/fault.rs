//! Why keys could not be fetched.

use std::fmt;

/// Why keys could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The discovery document is of another issuer than the configured one.
    Contradicted(Contradiction),
    /// The server does not have the requested URL.
    NotFound {
        /// The requested URL.
        url: String,
        /// The response status.
        status: u16,
    },
    /// None of its keys can be used.
    Keyless {
        /// Where they are.
        url: String,
    },
    /// Anything else: no connection, no response in time, a status, a body that is not JSON.
    Other(String),
}

/// The configured name of an issuer, and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The discovery document.
    pub url: String,
    /// `issuer` in the config.
    pub configured: String,
    /// `issuer` in the document, if it has one.
    pub discovered: Option<String>,
}

/// More of what a stranger calls itself is not repeated.
const PRINTED_MAX: usize = 256;

impl Contradiction {
    /// What differs, and what to write.
    pub fn correction(&self) -> String {
        let Some(discovered) = &self.discovered else {
            return "a discovery document must have an `issuer`: check the URL".to_owned();
        };
        if !is_plain(discovered) {
            return "no token can name such an issuer: check the URL".to_owned();
        }
        let slash = discovered.trim_end_matches('/') == self.configured.trim_end_matches('/');
        let slash = if slash { "they differ in the trailing slash; " } else { "" };
        format!("{slash}if that is the `iss` of its tokens, write `issuer: {discovered}`")
    }

    /// Its own name, safe to print.
    pub fn printable(&self) -> String {
        let Some(discovered) = &self.discovered else { return "none".to_owned() };
        let mut printable: String = discovered.chars().take(PRINTED_MAX).collect();
        if printable.len() < discovered.len() {
            printable.push('…');
        }
        format!("`{}`", printable.escape_debug())
    }
}

/// Whether it can be written in a config unquoted.
fn is_plain(issuer: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?@!$&()*+;=%".contains(&b);
    issuer.len() <= PRINTED_MAX && issuer.parse::<config::Url>().is_ok() && issuer.bytes().all(fits)
}

impl From<String> for Fault {
    fn from(cause: String) -> Self {
        Self::Other(cause)
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, configured, .. } = self;
        write!(
            f,
            "`{url}` says that its `issuer` is {}, but the config says `{configured}`; {}",
            self.printable(),
            self.correction()
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradicted(contradiction) => contradiction.fmt(f),
            Self::NotFound { url, status } => write!(f, "`{url}` responded with {status}"),
            Self::Keyless { url } => write!(f, "`{url}` has no usable key"),
            Self::Other(cause) => f.write_str(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(configured: &str, discovered: Option<&str>) -> String {
        let contradiction = Contradiction {
            url: "https://idp.test/.well-known/openid-configuration".to_owned(),
            configured: configured.to_owned(),
            discovered: discovered.map(str::to_owned),
        };
        contradiction.to_string()
    }

    #[test]
    fn it_names_both_and_the_line_to_write() {
        assert_eq!(
            of("https://idp.test/", Some("https://idp.test")),
            "`https://idp.test/.well-known/openid-configuration` says that its `issuer` is `https://idp.test`, but the config says `https://idp.test/`; they differ in the trailing slash; if that is the `iss` of its tokens, write `issuer: https://idp.test`"
        );
        let other = of("https://idp.test/realms/a", Some("https://sso.test/realms/a"));
        assert!(
            other.ends_with(
                "; if that is the `iss` of its tokens, write `issuer: https://sso.test/realms/a`"
            ),
            "{other}"
        );
        assert!(of("https://idp.test", None).contains("`issuer` is none"));
    }

    #[test]
    fn a_clients_text_is_never_a_line_to_write_and_is_truncated() {
        for odd in [
            "https://a.test\n- evil: true",
            "https://a.test #",
            "`",
            "https://a.test/\"",
            "\u{1b}[2J",
        ] {
            let said = of("https://idp.test", Some(odd));
            assert!(!said.contains("write `") && !said.contains(['\n', '\u{1b}']), "{said}");
        }
        assert!(of("https://idp.test", Some(&"x".repeat(100_000))).len() < 600);
    }
}
