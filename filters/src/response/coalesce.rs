//! Which requests are coalesced, and which responses several of them may share.

use std::time::Duration;

use config::CoalesceScope;
use http::{HeaderMap, HeaderName, header};

use crate::{
    Head, Label,
    identity::{Caller, headers::Headers},
    types::sha256::Sha256,
};

/// The key that coalesced requests have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// How responses of a route may be shared.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The route's name.
    route: Label,
    /// Whether the route is public.
    public: bool,
    /// Whether its upstream is external.
    external: bool,
    scope: CoalesceScope,
    /// How long a response is stored for later requests.
    pub ttl: Duration,
    /// A larger response is not shared.
    pub bytes_max: usize,
}

/// The parts of a request that the key covers.
#[derive(Clone, Copy)]
pub(crate) struct KeyInput<'a> {
    pub(crate) head: &'a Head<'a>,
    /// Path and query, as sent to the upstream.
    pub(crate) target: &'a [u8],
    pub(crate) rules: &'a Rules,
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) workspace: Option<&'a Label>,
}

/// Headers that only describe the client, its origin and its trace.
const ASIDE: &[&str] = &[
    "authorization",
    "baggage",
    "connection",
    "keep-alive",
    "priority",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
];

impl Key {
    /// The key of a request, if it may be coalesced. `digest` is that of the policy.
    pub(crate) fn of(asked: &KeyInput<'_>, headers: &Headers, digest: &Label) -> Option<Self> {
        let KeyInput { head, target, rules, caller, workspace } = *asked;
        if !is_bare_get(head) {
            return None;
        }
        let mut parts = Sha256::new();
        let mut say = |part: &[u8]| parts.part(part);
        say(digest.as_bytes());
        say(rules.route.as_bytes());
        say(target);
        // Responses refer to us by the host that the client used.
        say(head.host.unwrap_or_default());
        say(&[u8::from(head.tls)]);
        let proto = head.headers.get("x-forwarded-proto");
        say(proto.map_or(&b""[..], |proto| proto.as_bytes()));
        let caller = caller.filter(|_| rules.scope == CoalesceScope::Caller);
        for part in caller.iter().flat_map(|c| [&c.issuer, &c.subject]) {
            say(part.as_bytes());
        }
        say(caller.and_then(|c| c.on_behalf_of.as_deref()).unwrap_or_default().as_bytes());
        let workspace = workspace.filter(|_| rules.scope != CoalesceScope::All);
        say(workspace.map_or(&b""[..], |workspace| workspace.as_bytes()));
        let unseen = |name: &HeaderName| rules.external && *name == header::COOKIE;
        // On a public route the upstream may authenticate callers itself.
        let is_aside = |name: &HeaderName| {
            ASIDE.contains(&name.as_str()) && !(rules.public && *name == header::AUTHORIZATION)
        };
        for (name, value) in head.headers {
            let gone = headers.is_ours(name) && !headers.is_preserved(name);
            if !is_aside(name) && !gone && !unseen(name) {
                say(name.as_str().as_bytes());
                say(value.as_bytes());
            }
        }
        Some(Self(parts.finish()))
    }
}

impl Rules {
    /// From what the operator wrote for a route.
    pub fn new(written: config::Coalesce, route: &config::Route, external: bool) -> Self {
        let bytes_max = usize::try_from(written.bytes_max.bytes()).unwrap_or(usize::MAX);
        Self {
            route: (&route.name).into(),
            public: route.options.public,
            external,
            scope: written.scope,
            ttl: *written.ttl,
            bytes_max,
        }
    }

    /// Whether a response may be shared with concurrent identical requests.
    pub fn may_share(&self, status: u16, headers: &HeaderMap) -> bool {
        let alike = matches!(status, 200 | 203 | 204 | 304 | 429 | 500..=599);
        // Any other response may be about this caller.
        (alike || self.scope == CoalesceScope::Caller && status >= 200)
            && !headers.contains_key(header::SET_COOKIE)
            && !is_unreadable(headers)
            && !self.is_personal(headers)
            && !self.varies(headers)
    }

    /// How long it may be stored for later requests.
    pub fn keeps(&self, status: u16) -> Duration {
        if status == 200 { self.ttl } else { Duration::ZERO }
    }

    fn is_personal(&self, headers: &HeaderMap) -> bool {
        tokens(headers, &header::CACHE_CONTROL).any(|directive| {
            let name = directive.split('=').next().unwrap_or_default();
            name.eq_ignore_ascii_case("no-store")
                || name.eq_ignore_ascii_case("private") && self.scope != CoalesceScope::Caller
        })
    }

    /// Whether it depends on a header that the key does not cover.
    fn varies(&self, headers: &HeaderMap) -> bool {
        let is_shared = self.scope != CoalesceScope::Caller;
        tokens(headers, &header::VARY).any(|name| {
            let aside = ASIDE.iter().any(|aside| name.eq_ignore_ascii_case(aside));
            let who = name.eq_ignore_ascii_case("authorization");
            name == "*" || aside && (!who || is_shared)
        })
    }
}

/// Whether a request is a GET without a body, since a response could depend on a body.
pub(crate) fn is_bare_get(head: &Head<'_>) -> bool {
    let has_body = head.headers.contains_key(header::TRANSFER_ENCODING)
        || head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    *head.method == http::Method::GET && !has_body
}

/// Whether the caching headers of a response cannot be parsed: they may forbid sharing it.
pub(crate) fn is_unreadable(headers: &HeaderMap) -> bool {
    let mut said = [header::CACHE_CONTROL, header::VARY].into_iter();
    said.any(|name| headers.get_all(name).iter().any(|line| line.to_str().is_err()))
}

/// The items of a list header, over all its lines.
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str =
        r#"{"name": "r", "methods": ["GET"], "path": "/x", "upstream": "up", "class": "read"}"#;

    #[test]
    fn what_is_meant_for_one_is_not_given_to_others() {
        let check = |scope: &str, status: u16, headers: &[(&'static str, &str)], expected: bool| {
            let text = format!("{{\"scope\": \"{scope}\"}}");
            let route = serde_json::from_str(ROUTE).unwrap();
            let rules = Rules::new(serde_json::from_str(&text).unwrap(), &route, false);
            let pairs = headers.iter();
            let map = pairs.map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()));
            assert_eq!(
                rules.may_share(status, &map.collect()),
                expected,
                "{scope} {status} {headers:?}"
            );
        };
        for scope in ["caller", "workspace", "all"] {
            check(scope, 200, &[], true);
            check(scope, 200, &[("vary", "accept, Accept-Encoding")], true);
            check(scope, 429, &[], true);
            check(scope, 503, &[], true);
            check(scope, 200, &[("set-cookie", "a=b")], false);
            check(scope, 200, &[("cache-control", "max-age=0, No-Store")], false);
            check(scope, 200, &[("vary", "*")], false);
            check(scope, 200, &[("vary", "accept, user-agent")], false);
            check(scope, 200, &[("vary", "\u{e4}, user-agent")], false);
            check(scope, 200, &[("cache-control", "\u{e4}, no-store")], false);
        }
        check("caller", 403, &[], true);
        check("workspace", 403, &[], false);
        check("all", 404, &[], false);
        check("caller", 200, &[("cache-control", "private, max-age=60")], true);
        check("workspace", 200, &[("cache-control", "private")], false);
        check("caller", 200, &[("vary", "Authorization")], true);
        check("all", 200, &[("vary", "Authorization")], false);
    }
}
