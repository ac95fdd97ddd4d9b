//! Names of headers that requests must not have, in every spelling that some server could accept.

use http::HeaderName;

use crate::request::header_name::folded;

/// Headers that only we may set, about a request's origin and target: removed from every sender.
pub(super) const ALWAYS: &[&str] = &[
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
    // These override the method or path that was decided.
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Headers by which proxies describe a client, and which some upstream trusts: forwarded only from a trusted
/// proxy. `-*` matches any rest.
pub(super) const OF_PROXIES: &[&str] = &[
    // The client's address.
    "cf-connecting-*",
    "cf-pseudo-ipv4",
    "client-ip",
    "fastly-client-*",
    "forwarded-for",
    "proxy-client-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-originating-ip",
    "x-proxyuser-ip",
    // Its request and protocol.
    "front-end-https",
    "x-arr-*",
    "x-envoy-*",
    "x-forwarded-*",
    "x-host",
    "x-http-host-override",
    "x-original-*",
    "x-scheme",
    "x-url-scheme",
    // Its certificate.
    "client-cert-*",
    "ssl-client-*",
    "x-amzn-mtls-*",
    "x-client-cert-*",
    "x-client-certificate-*",
    "x-client-dn",
    "x-client-verify",
    "x-ssl-*",
    "x-tls-client-*",
    // Who it is.
    "cf-access-*",
    "remote-*",
    "x-amzn-oidc-*",
    "x-auth-request-*",
    "x-authenticated-*",
    "x-authentik-*",
    "x-consumer-*",
    "x-goog-authenticated-*",
    "x-goog-iap-*",
    "x-ms-client-principal-*",
    "x-pomerium-*",
    "x-remote-*",
    "x-webauth-*",
];

/// Names and prefixes of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Normalized and sorted.
    whole: Vec<Box<[u8]>>,
    /// Normalized, with the final `-`.
    beginnings: Vec<Box<[u8]>>,
    /// Bit n is set if one begins with letter n of the alphabet (or, for the last bit, with anything else),
    /// so that most headers need only this check.
    letters: u32,
}

impl Names {
    /// From texts like `x-internal` and `x-internal-*`.
    pub(super) fn new<'a>(written: impl IntoIterator<Item = &'a str>) -> Self {
        let mut this = Self::default();
        for text in written {
            let (beginning, is_whole) = match text.strip_suffix('*') {
                Some(beginning) => (beginning, false),
                None => (text, true),
            };
            let mut folded = folded(beginning.as_bytes());
            this.letters |= letter(&folded);
            if is_whole {
                this.whole.push(folded.into_vec().into());
            } else {
                if beginning.ends_with(|c: char| !c.is_ascii_alphanumeric()) {
                    folded.push(b'-');
                }
                this.beginnings.push(folded.into_vec().into());
            }
        }
        this.whole.sort_unstable();
        this
    }

    /// Whether a server could read `name` as one of these.
    pub(super) fn cover(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        if self.letters & letter(name) == 0 {
            return false;
        }
        let mut folded = folded(name);
        if self.whole.binary_search_by(|whole| (**whole).cmp(&folded)).is_ok() {
            return true;
        }
        // `x-internal-*` also covers `x-internal` itself.
        folded.push(b'-');
        self.beginnings.iter().any(|beginning| folded.starts_with(beginning))
    }
}

fn letter(name: &[u8]) -> u32 {
    let first = name.iter().find(|b| b.is_ascii_alphanumeric());
    match first.map(u8::to_ascii_lowercase) {
        Some(b @ b'a'..=b'z') => 1 << (b - b'a'),
        _ => 1 << 26,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_about_whatever_follows_and_no_other_word() {
        let names = Names::new(["x-internal-*", "x-team", "y*", "9-*"]);
        let check = |name: &str, expected: bool| {
            let header = HeaderName::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(names.cover(&header), expected, "{name}");
        };
        for name in
            ["x-internal-a", "X_Internal_A-B", "x--internal.a", "-x-internal-", "x-internal"]
        {
            check(name, true);
        }
        for name in ["x-team", "x-team-", "X__TEAM", "y", "yes", "Y-1", "9-1", "9"] {
            check(name, true);
        }
        for name in ["x-internals", "x-intern-al", "x-teams", "x-team-a", "accept", "z", "99", "-"]
        {
            check(name, false);
        }
    }
}
