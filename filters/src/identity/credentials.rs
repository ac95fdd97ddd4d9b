//! The credential that an upstream gets in place of the client's. Here it is known by name; the proxy has
//! its value.

use config::CredentialKind;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    Denial, Label, Secret,
    identity::{Caller, Presented, Proof, without_tokens},
    request::header_name::{folded, of_config},
};

/// A credential, without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// Its name in the config.
    pub name: Label,
    /// The header that holds it.
    pub header: HeaderName,
    /// If it is exchanged for the caller's token: the issuers whose tokens it accepts. An empty list means
    /// the only one.
    pub exchanges: Option<Vec<Label>>,
}

impl Credential {
    /// From what the operator wrote.
    pub fn new(called: &config::Name, written: &config::Credential) -> Self {
        let header = written.header.as_ref();
        let header = header.map_or(header::AUTHORIZATION, |header| of_config(header));
        let issuers = || written.issuers.iter().map(|name| Label::from(&name.value)).collect();
        let exchanges = (written.kind == CredentialKind::TokenExchange).then(issuers);
        Self { name: called.into(), header, exchanges }
    }

    /// The token that authenticated the caller, if the credential is exchanged for it.
    ///
    /// # Errors
    /// [`Denial::CallerTokenMissing`] if the caller was authenticated otherwise, or by a token that is not
    /// accepted.
    pub fn token_of(
        &self,
        presented: &Presented<'_>,
        caller: &Caller,
    ) -> Result<Option<Secret>, Denial> {
        let Some(issuers) = &self.exchanges else { return Ok(None) };
        if caller.proof == Proof::Supposed {
            return Ok(None);
        }
        let taken = issuers.is_empty() || issuers.contains(&caller.issuer);
        // The same headers were just read without an error.
        match presented.token() {
            Ok(Some(found)) if found.proof == caller.proof && taken => {
                Ok(Some(Secret::new(found.text)))
            }
            _ => Err(Denial::CallerTokenMissing { credential: self.name.clone() }),
        }
    }

    /// Sets `value` in the request to the upstream. The client's own header of that name, and the client's
    /// token in any place but a cookie, are removed.
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
            exchanges: None,
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

    #[test]
    fn only_the_token_that_authenticated_the_caller_is_exchanged() {
        let credential = Credential {
            name: Label::lossy("orders"),
            header: header::AUTHORIZATION,
            exchanges: Some(Vec::new()),
        };
        let of = |credential: &Credential, name: &str, value: &str, proof: Proof| {
            let mut headers = HeaderMap::new();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.insert(name, value.parse().unwrap());
            let asked = Presented {
                headers: &headers,
                listener: 0,
                from_proxy: &[],
                cookie_allowed: true,
                upgrade: true,
                certificate: None,
            };
            let caller = Caller { proof, ..Caller::supposed(Label::lossy("ada")) };
            let token = credential.token_of(&asked, &caller);
            token.map(|token| token.map(|token| token.expose().to_owned()))
        };
        let missing = Err(Denial::CallerTokenMissing { credential: Label::lossy("orders") });
        let token = Ok(Some("eyJ.a.b".to_owned()));
        let bearer = ("authorization", "Bearer eyJ.a.b");
        assert_eq!(of(&credential, bearer.0, bearer.1, Proof::Token), token);
        assert_eq!(
            of(&credential, "sec-websocket-protocol", "eyJ.a.b, chat", Proof::WebSocketProtocol),
            token
        );
        assert_eq!(of(&credential, "cookie", "a=b; backstage-auth=eyJ.a.b", Proof::Cookie), token);
        assert_eq!(of(&credential, "x-token", "eyJ.a.b", Proof::ClientCertificate), missing);
        // A token that did not authenticate the caller is not exchanged.
        assert_eq!(of(&credential, bearer.0, bearer.1, Proof::ClientCertificate), missing);
        assert_eq!(of(&credential, bearer.0, bearer.1, Proof::Supposed), Ok(None));
        let other = Credential { exchanges: None, ..credential.clone() };
        assert_eq!(of(&other, bearer.0, bearer.1, Proof::Token), Ok(None));
        let of_issuers = |names: &[&str]| {
            let names = names.iter().map(|name| Label::lossy(name)).collect();
            let credential = Credential { exchanges: Some(names), ..credential.clone() };
            of(&credential, bearer.0, bearer.1, Proof::Token)
        };
        assert_eq!(of_issuers(&["keycloak", "supposed"]), token);
        assert_eq!(of_issuers(&["keycloak"]), missing);
    }
}
