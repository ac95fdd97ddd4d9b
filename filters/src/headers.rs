//! The headers that say who is calling: removed in every spelling, then set from what was verified.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::{
    Head, Label, Now,
    assertion::{Assertions, Statement},
    client,
    identity::{Caller, without_tokens},
    routes::Route,
    workspaces::Workspace,
};

/// The header rules of a policy.
#[derive(Debug)]
pub struct Headers {
    workspace: HeaderName,
    caller: HeaderName,
    plugin: HeaderName,
    assertion: HeaderName,
    assertion_issuer: String,
    /// Names that never come in from outside, with every punctuation folded into `-`.
    ours: Vec<Box<[u8]>>,
    /// Bit n is set if one of `ours` has n bytes, so that most headers need no comparison.
    lengths: u128,
}

/// How a head is changed on its way to the upstream.
#[derive(Debug, Default)]
pub struct Edits {
    /// Headers to set, after those that are ours have been removed.
    pub set: SmallVec<[(HeaderName, HeaderValue); 4]>,
    /// The path and query it is sent with, if not those it came with.
    pub target: Option<String>,
}

/// Headers about the client and its way here, which only we may write.
const ALWAYS: &[&str] = &[
    "forwarded",
    "proxy-authorization",
    "proxy-connection",
    "x-forwarded-by",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// A header name that the config has checked.
pub(crate) fn name(written: &config::HeaderName) -> HeaderName {
    HeaderName::from_bytes(written.as_bytes()).expect("a config's header name is valid")
}

impl Headers {
    /// From what the operator wrote.
    pub fn new(written: &config::Headers) -> Self {
        let named = [&written.workspace, &written.caller, &written.plugin, &written.assertion];
        let ours: Vec<Box<[u8]>> = named
            .into_iter()
            .chain(&written.remove)
            .map(|name| folded(name.as_bytes()).into_vec().into())
            .chain(ALWAYS.iter().map(|name| name.as_bytes().into()))
            .collect();
        let lengths = ours.iter().fold(0, |all, name| all | 1u128 << name.len().min(127));
        Self {
            workspace: name(&written.workspace),
            caller: name(&written.caller),
            plugin: name(&written.plugin),
            assertion: name(&written.assertion),
            assertion_issuer: written.assertion_issuer.clone(),
            ours,
            lengths,
        }
    }

    /// Whether a header of this name never comes in from outside.
    pub fn is_ours(&self, name: &HeaderName) -> bool {
        let bytes = name.as_str().as_bytes();
        if self.lengths & 1 << bytes.len().min(127) == 0 {
            return false;
        }
        let folded = folded(bytes);
        self.ours.iter().any(|ours| **ours == *folded)
    }

    /// The headers to remove from a request before `Edits::set`.
    pub fn strip(&self, headers: &HeaderMap) -> SmallVec<[HeaderName; 4]> {
        headers.keys().filter(|name| self.is_ours(name)).cloned().collect()
    }

    /// What a request of nobody in particular carries.
    pub fn anonymous(&self, route: &Route) -> Edits {
        let mut edits = Edits::default();
        edits.say(&self.plugin, route.plugin.as_ref());
        edits
    }

    /// What a request of a known caller carries.
    pub fn vouch(
        &self,
        route: &Route,
        caller: &Caller,
        workspace: Option<&Workspace>,
        assertions: &Assertions,
        now: Now,
    ) -> Edits {
        let mut edits = Edits::default();
        let workspace = workspace.map(|workspace| &workspace.name);
        edits.say(&self.workspace, workspace);
        edits.say(&self.caller, Some(&caller.subject));
        edits.say(&self.plugin, route.plugin.as_ref());
        let statement = Statement {
            issuer: &self.assertion_issuer,
            caller,
            workspace,
            plugin: route.plugin.as_ref(),
            upstream: &route.upstream,
        };
        edits.set.push((self.assertion.clone(), assertions.sign(&statement, now)));
        edits
    }
}

impl Edits {
    fn say(&mut self, name: &HeaderName, value: Option<&Label>) {
        let Some(value) = value else { return };
        let value = HeaderValue::from_str(value).expect("a label can stand in a header");
        self.set.push((name.clone(), value));
    }
}

/// What of a request is no business of an upstream that is somebody else's: what a browser tells of
/// the portal and its users, and unless the route is public, the token that said who is calling.
pub fn hide_portal(headers: &mut HeaderMap, public: bool) {
    const OF_THE_PORTAL: [HeaderName; 4] =
        [header::COOKIE, header::ORIGIN, header::REFERER, HeaderName::from_static("baggage")];
    for name in OF_THE_PORTAL {
        headers.remove(name);
    }
    // On a public route it is none that we were shown.
    if !public {
        headers.remove(header::AUTHORIZATION);
        without_tokens(headers);
    }
}

/// What a server that folds header names, as CGI does, makes of one.
pub(crate) fn folded(name: &[u8]) -> SmallVec<[u8; 64]> {
    name.iter()
        .map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' })
        .collect()
}

/// The value of `X-Forwarded-For` that the upstream sees.
pub fn forwarded_for(head: &Head<'_>, trusted: &[ipnet::IpNet]) -> HeaderValue {
    let peer = head.peer.to_canonical();
    let plain = |text: &[u8]| HeaderValue::from_bytes(text).expect("it was in a header");
    if !trusted.iter().any(|net| net.contains(&peer)) {
        return plain(&client::text(peer));
    }
    let lines = head.headers.get_all("x-forwarded-for").iter();
    let mut chain: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let peer = peer.to_string();
    chain.push(&peer);
    plain(chain.join(", ").as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours() -> Headers {
        Headers::new(&config::Headers::default())
    }

    #[test]
    fn a_stranger_sees_nothing_of_the_portal_nor_the_token_that_said_who_is_calling() {
        let left = |public: bool| -> Vec<String> {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("cookie", "a=b"),
                ("origin", "https://portal.example"),
                ("referer", "https://portal.example/x"),
                ("baggage", "user=ada"),
                ("authorization", "Bearer eyJ.a.b"),
                ("sec-websocket-protocol", "chat, eyJ.a.b"),
                ("accept", "text/plain"),
            ] {
                headers.insert(name, value.parse().unwrap());
            }
            hide_portal(&mut headers, public);
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect()
        };
        let mut kept = left(false);
        kept.sort();
        assert_eq!(kept, ["accept: text/plain", "sec-websocket-protocol: chat"]);
        let public = [
            "authorization: Bearer eyJ.a.b",
            "sec-websocket-protocol: chat, eyJ.a.b",
            "accept: text/plain",
        ];
        let mut came = left(true);
        came.sort();
        let mut wanted = public.map(str::to_owned);
        wanted.sort();
        assert_eq!(came, wanted);
    }

    #[test]
    fn an_identity_header_is_removed_in_every_spelling() {
        for spelling in [
            "X-Orbit-Workspace-Id",
            "x_orbit_workspace_id",
            "X-ORBIT_WORKSPACE.ID",
            "x-orbit-user-id",
            "X-Stagedoor-Assertion",
            "x_forwarded_for",
            "Forwarded",
        ] {
            let mut headers = HeaderMap::new();
            let name = HeaderName::from_bytes(spelling.as_bytes()).unwrap();
            headers.append(name.clone(), "a".parse().unwrap());
            headers.append(name.clone(), "b".parse().unwrap());
            headers.append("accept", "c".parse().unwrap());
            assert_eq!(ours().strip(&headers).to_vec(), [name]);
        }
    }

    proptest! {
        #[test]
        fn no_spelling_of_an_identity_header_survives(
            upper in proptest::collection::vec(any::<bool>(), 20),
            dashes in proptest::collection::vec("[-_.!~^|]", 20),
        ) {
            let mut dashes = dashes.iter();
            let spelling: String = "x-orbit-workspace-id"
                .chars()
                .zip(upper)
                .map(|(c, up)| match c {
                    '-' => dashes.next().and_then(|d| d.chars().next()).unwrap_or('_'),
                    c if up => c.to_ascii_uppercase(),
                    c => c,
                })
                .collect();
            prop_assert!(ours().is_ours(&HeaderName::from_bytes(spelling.as_bytes()).unwrap()));
        }
    }
}
