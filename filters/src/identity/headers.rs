//! The headers that say who is calling: removed in every spelling, then set from what was verified.

mod names;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use names::Names;

use crate::{
    Head, Label, Now,
    identity::{
        Caller,
        assertion::{Assertions, Statement},
        without_tokens,
    },
    request::{client, header_name::of_config as name},
};

/// The header rules of a policy.
#[derive(Debug)]
pub struct Headers {
    workspace: HeaderName,
    caller: HeaderName,
    plugin: HeaderName,
    assertion: HeaderName,
    assertion_issuer: String,
    /// Names that are always removed from requests.
    ours: Names,
    /// These, and those that only a trusted proxy may send.
    of_strangers: Names,
    /// Headers in which trusted proxies present tokens, if they are preserved for upstreams.
    preserved: Vec<HeaderName>,
}

/// Who connected to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Any other peer.
    Stranger,
    /// One of a listener's `trusted_proxies`.
    TrustedProxy,
}

/// What an upstream learns of a known caller.
#[derive(Clone, Copy, Debug)]
pub struct Vouched<'a> {
    /// Who is calling.
    pub caller: &'a Caller,
    /// The workspace it is for.
    pub workspace: Option<&'a Label>,
    /// The plugin that its route belongs to.
    pub plugin: Option<&'a Label>,
    /// The upstream.
    pub upstream: &'a Label,
}

/// The edits of a head on its way to the upstream.
#[derive(Debug, Default)]
pub struct Edits {
    /// Headers to set, after ours have been removed.
    pub set: SmallVec<[(HeaderName, HeaderValue); 4]>,
    /// The path and query to send, if not those received.
    pub target: Option<String>,
}

impl Headers {
    /// From what the operator wrote.
    pub fn new(written: &config::Headers, identity: &config::Identity) -> Self {
        let tokens = identity.issuers.values().filter_map(|issuer| issuer.token_from.as_ref());
        let named = [&written.workspace, &written.caller, &written.plugin, &written.assertion];
        let named = named.map(|name| &***name);
        let ours: Vec<&str> = named
            .into_iter()
            .chain(written.remove.iter().map(|pattern| &***pattern))
            .chain(names::ALWAYS.iter().copied())
            // They are meant for us.
            .chain(tokens.clone().map(|from| &**from.header))
            .collect();
        let of_strangers = ours.iter().chain(names::OF_PROXIES).copied();
        Self {
            workspace: name(&written.workspace),
            caller: name(&written.caller),
            plugin: name(&written.plugin),
            assertion: name(&written.assertion),
            assertion_issuer: written.assertion_issuer.clone(),
            of_strangers: Names::new(of_strangers),
            ours: Names::new(ours),
            preserved: tokens.filter(|from| from.preserve).map(|from| name(&from.header)).collect(),
        }
    }

    /// Whether a header of this name from a trusted proxy is preserved for upstreams.
    pub(crate) fn is_preserved(&self, name: &HeaderName) -> bool {
        self.preserved.contains(name)
    }

    /// Forwards the tokens of a trusted proxy, for upstreams that verify them themselves.
    pub(crate) fn preserve(&self, head: &Head<'_>, trusted: &[ipnet::IpNet], edits: &mut Edits) {
        if self.preserved.is_empty() || !client::is_trusted(head.peer, trusted) {
            return;
        }
        for name in &self.preserved {
            let mut lines = head.headers.get_all(name).iter();
            // One of two may be the client's.
            if let (Some(line), None) = (lines.next(), lines.next()) {
                edits.set.push((name.clone(), line.clone()));
            }
        }
    }

    /// Whether a header of this name is always removed from requests.
    pub fn is_ours(&self, name: &HeaderName) -> bool {
        self.ours.cover(name)
    }

    /// Whether only we or a trusted proxy may send a header of this name.
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        self.of_strangers.cover(name)
    }

    /// The headers to remove from a request before `Edits::set`, by who sends it.
    pub fn strip(&self, headers: &HeaderMap, sender: Sender) -> SmallVec<[HeaderName; 4]> {
        let names = match sender {
            Sender::Stranger => &self.of_strangers,
            Sender::TrustedProxy => &self.ours,
        };
        headers.keys().filter(|name| names.cover(name)).cloned().collect()
    }

    /// The edits of a request without a caller.
    pub fn anonymous(&self, plugin: Option<&Label>) -> Edits {
        let mut edits = Edits::default();
        edits.say(&self.plugin, plugin);
        edits
    }

    /// The edits of a request of a known caller.
    pub fn vouch(&self, of: &Vouched<'_>, assertions: &Assertions, now: Now) -> Edits {
        let mut edits = Edits::default();
        let Vouched { caller, workspace, plugin, upstream } = *of;
        edits.say(&self.workspace, workspace);
        edits.say(&self.caller, Some(&caller.subject));
        edits.say(&self.plugin, plugin);
        let issuer = &self.assertion_issuer;
        let statement = Statement { issuer, caller, workspace, plugin, upstream };
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

/// Removes what an external upstream must not see: what a browser reveals of the portal and its users, and
/// unless the route is public, the token that authenticated the caller.
pub fn hide_portal(headers: &mut HeaderMap, public: bool) {
    const OF_THE_PORTAL: [HeaderName; 4] =
        [header::COOKIE, header::ORIGIN, header::REFERER, HeaderName::from_static("baggage")];
    for name in OF_THE_PORTAL {
        headers.remove(name);
    }
    // On a public route it is not a credential for us.
    if !public {
        headers.remove(header::AUTHORIZATION);
        without_tokens(headers);
    }
}

/// The value of `X-Forwarded-For` that the upstream sees.
pub fn forwarded_for(head: &Head<'_>, trusted: &[ipnet::IpNet]) -> HeaderValue {
    let peer = head.peer.to_canonical();
    // The parts of valid headers always fit into one.
    let unknown = |_| HeaderValue::from_static("unknown");
    let plain = |text: &[u8]| HeaderValue::from_bytes(text).unwrap_or_else(unknown);
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
        Headers::new(&config::Headers::default(), &config::Identity::default())
    }

    #[test]
    fn an_external_upstream_sees_nothing_of_the_portal_nor_the_callers_token() {
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

    /// How many headers with this name are left.
    fn left(spelling: &str, sender: Sender) -> usize {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_bytes(spelling.as_bytes()).unwrap();
        headers.append(name.clone(), "a".parse().unwrap());
        headers.append(name, "b".parse().unwrap());
        headers.append("accept", "c".parse().unwrap());
        for name in ours().strip(&headers, sender) {
            headers.remove(name);
        }
        assert!(headers.contains_key("accept"));
        headers.len() - 1
    }

    #[test]
    fn an_identity_header_is_removed_in_every_spelling() {
        for spelling in [
            "X-Orbit-Workspace-Id",
            "x_orbit_workspace_id",
            "X-ORBIT_WORKSPACE.ID",
            "x-orbit--workspace-id",
            "x-orbit-workspace-id-",
            "-x-orbit-workspace-id__",
            "x-orbit-user-id",
            "X-Stagedoor-Assertion",
            "x_forwarded_for",
            "Forwarded",
            "X-HTTP-Method-Override",
            "x_http_method_override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X-Original-URL",
        ] {
            assert_eq!(left(spelling, Sender::Stranger), 0, "{spelling}");
            assert_eq!(left(spelling, Sender::TrustedProxy), 0, "{spelling}");
        }
    }

    #[test]
    fn proxy_headers_pass_only_from_trusted_proxies() {
        for spelling in [
            "True-Client-IP",
            "true_client_ip",
            "X-Client-Cert",
            "X-Client-Cert-Chain",
            "Client-Cert",
            "X-Envoy-External-Address",
            "X-Forwarded-Path",
            "X-Forwarded-Uri",
            "X-Forwarded-Method",
            "X-Forwarded-Scheme",
            "X-Forwarded-Ssl",
            "X-Forwarded-User",
            "x_forwarded__groups",
            "CF-Connecting-IP",
            "Fastly-Client-IP",
            "X-Cluster-Client-IP",
            "X-Original-Host",
            "X-SSL-Client-Verify",
            "X-Remote-User",
            "Remote-User",
            "X-WEBAUTH-USER",
        ] {
            assert_eq!(left(spelling, Sender::Stranger), 0, "{spelling}");
            assert_eq!(left(spelling, Sender::TrustedProxy), 2, "{spelling}");
        }
        for spelling in [
            "X-Requested-With",
            "X-Client-Version",
            "X-Request-Id",
            "X-Csrf-Token",
            "Cf-Ray",
            "Content-Type",
            "Traceparent",
            "X-B3-TraceId",
        ] {
            assert_eq!(left(spelling, Sender::Stranger), 2, "{spelling}");
        }
    }

    #[test]
    fn the_operator_may_name_more_by_how_they_begin() {
        let mut written = config::Headers::default();
        for name in ["x-team", "x-internal-*"] {
            written.remove.push(config::Located::nowhere(name.parse().unwrap()));
        }
        let headers = Headers::new(&written, &config::Identity::default());
        let check = |name: &str, expected: bool| {
            assert_eq!(headers.is_ours(&name.parse().unwrap()), expected, "{name}");
        };
        check("x-team", true);
        check("x-internal-role", true);
        check("X_INTERNAL_ROLE", true);
        check("x-internals", false);
    }

    proptest! {
        #[test]
        fn no_spelling_of_an_identity_header_survives(
            name in prop_oneof![
                Just("x-orbit-workspace-id"),
                Just("x-stagedoor-assertion"),
                Just("x-http-method-override"),
                Just("x-forwarded-client-cert"),
            ],
            upper in proptest::collection::vec(any::<bool>(), 30),
            dashes in proptest::collection::vec("[-_.!~^|]{1,3}", 5),
            ends in ("[-_.]{0,2}", "[-_.]{0,2}"),
        ) {
            let mut dashes = dashes.iter();
            let mut spelling = ends.0;
            for (c, up) in name.chars().zip(upper) {
                match c {
                    '-' => spelling.push_str(dashes.next().unwrap()),
                    c if up => spelling.push(c.to_ascii_uppercase()),
                    c => spelling.push(c),
                }
            }
            spelling.push_str(&ends.1);
            prop_assert!(ours().is_ours(&HeaderName::from_bytes(spelling.as_bytes()).unwrap()));
        }
    }
}
