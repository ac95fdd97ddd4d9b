//! Which responses are stored for when the upstream fails, and which requests may get them.
//!
//! A response is only for the same caller, workspace and request.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    Denial, Head, Label,
    identity::Caller,
    request::normal_form::NormalPath,
    response::coalesce::{is_bare_get, is_unreadable, tokens},
    types::sha256::Sha256,
};

/// How responses of a route are stored. Not for an upstream that decides about delivery.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a stored response may be served.
    pub ttl: Duration,
    /// A larger response is not stored.
    pub bytes_max: usize,
}

/// The parts of a request that the key covers.
#[derive(Clone, Copy)]
pub struct KeyInput<'a> {
    /// Its head.
    pub head: &'a Head<'a>,
    /// Its path in normal form.
    pub path: &'a NormalPath,
    /// Its route.
    pub route: &'a Label,
    /// Whether the route is public.
    pub public: bool,
    /// The caller, if the route requires one.
    pub caller: Option<&'a Caller>,
    /// The workspace it is for.
    pub workspace: Option<&'a Label>,
}

/// The key of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Headers of the request that the response depends on (RFC 9110 12.5.5), and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Varied(Vec<(HeaderName, Vec<HeaderValue>)>);

/// Whether a stale response may replace this denial: the upstream failed, or its breaker is open.
pub fn replaces(denial: &Denial) -> bool {
    matches!(denial, Denial::BreakerOpen { .. }) || denial.is_upstream_failure()
}

impl Rules {
    /// From the config. `None` for an upstream that decides about delivery, whatever the config says.
    pub fn of(written: Option<config::Fallback>, upstream: &config::Upstream) -> Option<Self> {
        let written = written.filter(|_| upstream.authority == config::Authority::None)?;
        let bytes_max = usize::try_from(written.bytes_max.bytes()).unwrap_or(usize::MAX);
        Some(Self { ttl: *written.ttl, bytes_max })
    }
}

impl Key {
    /// The key of a request, if its response may be stored. `digest` is that of the policy: what an older
    /// policy allowed, or did not redact, is not served under a newer one.
    pub fn of(asked: &KeyInput<'_>, digest: &Label) -> Option<Self> {
        let KeyInput { head, path, route, public, caller, workspace } = *asked;
        let asks_who = [header::AUTHORIZATION, header::COOKIE];
        // On a public route the upstream may authenticate callers itself.
        let unknown = public && asks_who.iter().any(|n| head.headers.contains_key(n));
        let in_part = head.headers.contains_key(header::RANGE);
        if !is_bare_get(head) || head.is_upgrade() || unknown || in_part {
            return None;
        }
        let mut parts = Sha256::new();
        let mut say = |part: &[u8]| parts.part(part);
        say(digest.as_bytes());
        say(route.as_bytes());
        say(head.host.unwrap_or_default());
        say(&[u8::from(head.tls)]);
        // Responses refer to us by the host that the client used.
        let proto = head.headers.get("x-forwarded-proto");
        say(proto.map_or(&b""[..], |proto| proto.as_bytes()));
        say(path.as_str().as_bytes());
        say(head.query().unwrap_or_default());
        say(workspace.map_or(&b""[..], |workspace| workspace.as_bytes()));
        if let Some(caller) = caller {
            say(caller.issuer.as_bytes());
            say(caller.subject.as_bytes());
            say(caller.on_behalf_of.as_deref().unwrap_or_default().as_bytes());
        }
        Some(Self(parts.finish()))
    }
}

impl Varied {
    /// What a response depends on. `None` if it must not be stored.
    pub fn of(status: u16, asked: &HeaderMap, answered: &HeaderMap) -> Option<Self> {
        let forbids = |headers, all: &[&str]| {
            tokens(headers, &header::CACHE_CONTROL).any(|directive| {
                let name = directive.split('=').next().unwrap_or_default();
                all.iter().any(|forbids| name.eq_ignore_ascii_case(forbids))
            })
        };
        let forbidden = forbids(asked, &["no-store"])
            || forbids(answered, &["no-store", "no-cache", "must-revalidate", "proxy-revalidate"]);
        let personal = answered.contains_key(header::SET_COOKIE);
        if status != 200 || is_unreadable(answered) || forbidden || personal {
            return None;
        }
        let mut names = vec![header::ACCEPT_ENCODING];
        for name in tokens(answered, &header::VARY).filter(|name| !name.is_empty()) {
            // `*` is not a name.
            names.push(name.parse().ok().filter(|_| name != "*")?);
        }
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        // The key covers the caller; the token itself changes every hour.
        names.retain(|name| name != header::AUTHORIZATION);
        Some(Self(names.into_iter().map(|name| (name.clone(), values(asked, &name))).collect()))
    }

    /// Whether the stored response fits another request.
    pub fn fits(&self, asked: &HeaderMap) -> bool {
        self.0.iter().all(|(name, expected)| values(asked, name) == *expected)
    }
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn a_stale_response_replaces_a_failure_of_the_upstream_but_no_refusal_of_ours() {
        let upstream = || Label::lossy("portal");
        let failed = [
            Denial::UpstreamUnreachable { upstream: upstream() },
            Denial::UpstreamTimeout { upstream: upstream() },
        ];
        assert!(failed.iter().all(replaces));
        let refused = [Denial::CallerMissing, Denial::WorkspaceMissing, Denial::BodyTimeout];
        assert!(!refused.iter().any(replaces));
    }

    #[test]
    fn what_must_not_be_stored_is_not() {
        let check = |status: u16,
                     asked: &[(&'static str, &str)],
                     answered: &[(&'static str, &str)],
                     kept: bool| {
            let varied = Varied::of(status, &map(asked), &map(answered));
            assert_eq!(varied.is_some(), kept, "{status} {asked:?} {answered:?}");
        };
        check(200, &[], &[], true);
        check(200, &[], &[("cache-control", "private, max-age=60")], true);
        check(200, &[], &[("vary", "accept, Origin")], true);
        for status in [201, 204, 206, 301, 304, 404, 500] {
            check(status, &[], &[], false);
        }
        for directive in ["no-store", "max-age=0, No-Cache", "must-revalidate", "no-cache=\"x\""] {
            check(200, &[], &[("cache-control", directive)], false);
        }
        check(200, &[("cache-control", "no-store")], &[], false);
        check(200, &[], &[("set-cookie", "a=b")], false);
        check(200, &[], &[("vary", "*")], false);
        check(200, &[], &[("vary", "accept, b\u{e4}d")], false);
    }

    #[test]
    fn who_would_have_got_something_else_does_not_get_it() {
        let asked = [("accept", "text/html"), ("accept-encoding", "gzip"), ("authorization", "a")];
        let varied =
            Varied::of(200, &map(&asked), &map(&[("vary", "accept, authorization")])).unwrap();
        let fits = |changed: (&'static str, &str)| {
            let mut other = map(&asked);
            other.insert(HeaderName::from_static(changed.0), changed.1.parse().unwrap());
            varied.fits(&other)
        };
        assert!(varied.fits(&map(&asked)));
        assert!(fits(("authorization", "a newer token of the same caller")));
        assert!(fits(("user-agent", "other")));
        assert!(!fits(("accept", "application/json")));
        assert!(!fits(("accept-encoding", "br")), "also if the upstream does not say so");
    }
}
