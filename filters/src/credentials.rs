//! What an upstream is shown instead of what the client sent. Here it is known by name; its value
//! is the machinery's.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    Label,
    headers::{folded, name},
    identity::without_tokens,
};

/// A credential, without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// Its name in the config.
    pub name: Label,
    /// The header that holds it.
    pub header: HeaderName,
    /// Whether clients that insist on signing in for it are answered here.
    pub signs_in: bool,
}

impl Credential {
    /// From what the operator wrote.
    pub fn new(called: &config::Name, written: &config::Credential) -> Self {
        let header = written.header.as_ref();
        let header = header.map_or(header::AUTHORIZATION, |header| name(header));
        let signs_in = written.kind == config::CredentialKind::SpaceliftApiKey;
        Self { name: called.into(), header, signs_in }
    }

    /// Shows `value` to the upstream. What the client said in its place, and the client's own token
    /// wherever it may stand but in a cookie, does not reach it.
    pub fn show(&self, headers: &mut HeaderMap, mut value: HeaderValue) {
        let own = folded(self.header.as_str().as_bytes());
        let is_taken = |name: &HeaderName| {
            let folded = folded(name.as_str().as_bytes());
            folded == own || *folded == *b"authorization"
        };
        let taken: Vec<HeaderName> =
            headers.keys().filter(|name| is_taken(name)).cloned().collect();
        for name in taken {
            headers.remove(name);
        }
        without_tokens(headers);
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str, came: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in came {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let credential = Credential {
            name: Label::lossy("jenkins"),
            header: header.parse().unwrap(),
            signs_in: false,
        };
        credential.show(&mut headers, HeaderValue::from_static("ours"));
        assert!(headers[header].is_sensitive());
        assert!(!format!("{headers:?}").contains("ours"));
        let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[track_caller]
    fn check(header: &str, came: &[(&str, &str)], left: &[(&str, &str)]) {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let expected: Vec<_> = left.iter().map(owned).collect();
        assert_eq!(shown(header, came), expected);
    }

    #[test]
    fn an_upstream_sees_the_credential_and_nothing_of_the_clients_in_its_place() {
        let token = ("authorization", "Bearer eyJ.a.b");
        check("authorization", &[token, token], &[("authorization", "ours")]);
        check(
            "authorization",
            &[("cookie", "a=b")],
            &[("cookie", "a=b"), ("authorization", "ours")],
        );
        for spelling in ["x-api-key", "X-API-Key", "x_api_key", "X.Api-Key", "x~api!key"] {
            check("x-api-key", &[(spelling, "theirs"), token], &[("x-api-key", "ours")]);
        }
        check("x-api-key", &[("x-api-keys", "1")], &[("x-api-keys", "1"), ("x-api-key", "ours")]);
    }

    #[test]
    fn a_token_among_the_protocols_of_a_websocket_is_taken_out_too() {
        let name = "sec-websocket-protocol";
        check("x-api-key", &[(name, "eyJ.a.b")], &[("x-api-key", "ours")]);
        check(
            "x-api-key",
            &[(name, "chat, eyJ.a.b"), (name, "v2")],
            &[(name, "chat, v2"), ("x-api-key", "ours")],
        );
        check("x-api-key", &[(name, "a.b.c")], &[(name, "a.b.c"), ("x-api-key", "ours")]);
    }
}
