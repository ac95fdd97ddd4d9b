//! Rewrites between our paths and an upstream's, in requests and in responses.

use std::borrow::Cow;

use url::Url;

use crate::request::normal_form::NormalPath;

/// How an upstream's paths map to ours: `/ext/github/repos` here is `https://ghes.example/api/v3/repos`
/// there.
#[derive(Debug)]
pub struct UrlRewrite {
    /// How many of our segments are removed.
    cut: usize,
    /// What is removed: empty, or with a leading slash.
    ours: Box<str>,
    /// Its replacement.
    theirs: Box<str>,
    /// The upstream's own scheme, host and port.
    origin: Url,
}

/// How the client reached us.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port, as the client wrote them.
    pub host: &'a str,
    /// Whether the upstream gets this host as well. Then the hosts in its URLs are right.
    pub preserved: bool,
}

impl UrlRewrite {
    /// From what the operator wrote.
    pub fn new(upstream: &config::Url, strip_prefix: Option<&config::PathTemplate>) -> Self {
        let mut bare = upstream.clone();
        bare.path.clear();
        let ours = strip_prefix.map_or_else(String::new, ToString::to_string);
        Self {
            cut: strip_prefix.map_or(0, |prefix| prefix.segments.len()),
            ours: ours.into(),
            theirs: upstream.path.as_str().into(),
            origin: Url::parse(&bare.to_string()).expect("a URL of the config's is one"),
        }
    }

    /// Whether paths are forwarded unchanged.
    pub fn is_plain(&self) -> bool {
        self.cut == 0 && self.theirs.is_empty()
    }

    /// The prefix of our paths that the upstream does not see, if there is one.
    pub fn prefix(&self) -> Option<&str> {
        (!self.ours.is_empty()).then_some(&*self.ours)
    }

    /// The upstream's path for one of ours.
    pub fn theirs<'a>(&self, path: &'a NormalPath) -> Cow<'a, str> {
        let path = path.as_str();
        let mut slashes = path.match_indices('/').map(|(at, _)| at);
        let rest = slashes.nth(self.cut).map_or("", |at| &path[at..]);
        match (&*self.theirs, rest) {
            ("", "") => Cow::Borrowed("/"),
            ("", rest) => Cow::Borrowed(rest),
            (theirs, rest) => Cow::Owned(format!("{theirs}{rest}")),
        }
    }

    /// The rewritten form of `reference`, a URL in the response to the request for `target` there. `None` if
    /// it stays.
    ///
    /// A URL of the upstream becomes ours, so that a client that follows it comes through Stagedoor again.
    /// One to another host stays. A relative one stays relative (RFC 9110 10.2.2): the client knows better
    /// than we do how it reached us.
    pub fn ours(&self, reference: &str, target: &str, here: Here<'_>) -> Option<String> {
        if self.has_our_prefix(reference) {
            return None;
        }
        if here.preserved {
            return self.our_path(reference);
        }
        let reference = reference.trim();
        let is_absolute = Url::parse(reference).is_ok();
        if !is_absolute && self.is_plain() {
            return None;
        }
        let asked = self.origin.join(target).ok()?;
        let meant = asked.join(reference).ok()?;
        let plain = meant.username().is_empty() && meant.password().is_none();
        let same = meant.origin() == self.origin.origin() && plain;
        let inside = meant.path().strip_prefix(&*self.theirs);
        let inside = inside.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(rest) = inside.filter(|_| same) else {
            // To the client a path is relative to us.
            let is_path = !is_absolute && !reference.starts_with("//");
            return is_path.then(|| meant.into());
        };
        let rest = if rest.is_empty() { "/" } else { rest };
        let mut ours = match is_absolute {
            true => format!("{}://{}{}{rest}", here.scheme, here.host, self.ours),
            false => format!("{}{rest}", self.ours),
        };
        if let Some(query) = meant.query() {
            ours.push('?');
            ours.push_str(query);
        }
        if let Some(fragment) = meant.fragment() {
            ours.push('#');
            ours.push_str(fragment);
        }
        Some(ours)
    }

    /// Whether an upstream that knows our prefix has added it to a path of its own.
    fn has_our_prefix(&self, path: &str) -> bool {
        let rest = path.trim().strip_prefix(&*self.ours).filter(|_| !self.ours.is_empty());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }

    /// A path of an upstream that knows our host, with the removed prefix added.
    fn our_path(&self, reference: &str) -> Option<String> {
        let path = reference.trim();
        let is_path = path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/\\");
        if !is_path || self.ours.is_empty() && self.theirs.is_empty() {
            return None;
        }
        let rest = path.strip_prefix(&*self.theirs)?;
        let whole = rest.is_empty() || rest.starts_with(['/', '?', '#']);
        whole.then(|| format!("{}{rest}", self.ours))
    }

    /// The rewritten form of a `Set-Cookie`, so that the cookie is only sent back here. `None` if it stays.
    pub fn our_cookie(&self, cookie: &str) -> Option<String> {
        // A cookie with this prefix must be for all paths, or browsers reject it (RFC 6265bis 4.1.3.2).
        if self.is_plain() || cookie.trim_start().to_ascii_lowercase().starts_with("__host-") {
            return None;
        }
        let mut changed = false;
        let parts: Vec<Cow<'_, str>> = cookie
            .split(';')
            .enumerate()
            .map(|(index, part)| {
                let ours = part.split_once('=').filter(|_| index > 0).and_then(|(name, path)| {
                    let is_path = name.trim().eq_ignore_ascii_case("path");
                    let path = path.trim();
                    if !is_path || self.has_our_prefix(path) || !path.starts_with('/') {
                        return None;
                    }
                    let below = path.strip_prefix(&*self.theirs);
                    let below = below.filter(|rest| rest.is_empty() || rest.starts_with('/'));
                    // A path above its base becomes the whole of our prefix at most.
                    let ours = format!("{}{}", self.ours, below.unwrap_or_default());
                    let ours = ours.trim_end_matches('/');
                    Some(format!(" Path={}", if ours.is_empty() { "/" } else { ours }))
                });
                changed |= ours.is_some();
                ours.map_or(Cow::Borrowed(part), Cow::Owned)
            })
            .collect();
        changed.then(|| parts.join(";"))
    }

    /// Applies [`UrlRewrite::ours`] to every target of a `Link` header (RFC 8288 3), where APIs name the
    /// next page.
    pub fn our_links(&self, links: &str, target: &str, here: Here<'_>) -> Option<String> {
        let mut written = String::with_capacity(links.len() + 64);
        let (mut rest, mut changed, mut quoted) = (links, false, false);
        while let Some(at) = rest.find(['<', '"', '\\']) {
            let (before, from) = rest.split_at(at);
            written.push_str(before);
            let first = &from[..1];
            match first {
                "<" if !quoted => {
                    let end = from.find('>')?;
                    let ours = self.ours(&from[1..end], target, here);
                    changed |= ours.is_some();
                    written.push('<');
                    written.push_str(ours.as_deref().unwrap_or(&from[1..end]));
                    rest = &from[end..];
                    continue;
                }
                "\\" if quoted => {
                    let escaped = from.chars().take(2).map(char::len_utf8).sum();
                    written.push_str(&from[..escaped]);
                    rest = &from[escaped..];
                    continue;
                }
                "\"" => quoted = !quoted,
                _ => {}
            }
            written.push_str(first);
            rest = &from[1..];
        }
        written.push_str(rest);
        changed.then_some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Here<'_> = Here { scheme: "https", host: "portal.example", preserved: false };

    fn base(url: &str, prefix: Option<&str>) -> UrlRewrite {
        let prefix: Option<config::PathTemplate> = prefix.map(|prefix| prefix.parse().unwrap());
        UrlRewrite::new(&url.parse().unwrap(), prefix.as_ref())
    }

    #[test]
    fn a_path_of_ours_is_one_of_theirs() {
        let check = |url: &str, prefix: Option<&str>, path: &str, expected: &str| {
            let path = NormalPath::of(path.as_bytes()).unwrap();
            assert_eq!(base(url, prefix).theirs(&path), expected, "{url} {prefix:?}");
        };
        check("https://a", None, "/x/y", "/x/y");
        check("https://a", Some("/ext/gh"), "/ext/gh/repos/b", "/repos/b");
        check("https://a", Some("/ext/gh"), "/ext/gh", "/");
        check("https://a", Some("/ext/gh"), "/ext/gh/", "/");
        check("https://a/api/v3", Some("/ext/gh"), "/ext/gh/repos/", "/api/v3/repos/");
        check("https://a/api/v3", Some("/ext/gh"), "/ext/gh", "/api/v3");
        check("https://a/api/v3", None, "/repos%2Fb", "/api/v3/repos%2Fb");
        check("https://a", Some("/e"), "/e/%E4", "/%E4");
    }

    #[test]
    fn a_url_of_the_upstreams_becomes_ours_and_another_stays() {
        let github = base("https://api.github.com", Some("/ext/github"));
        let check = |base: &UrlRewrite, reference: &str, expected: Option<&str>| {
            assert_eq!(base.ours(reference, "/a/b?c=d", HERE).as_deref(), expected, "{reference}");
        };
        let ours = "https://portal.example/ext/github";
        check(&github, "https://api.github.com/x?y=z#f", Some(&format!("{ours}/x?y=z#f")));
        check(&github, "https://API.GitHub.com:443/x", Some(&format!("{ours}/x")));
        check(&github, "https://api.github.com", Some(&format!("{ours}/")));
        check(&github, "/x", Some("/ext/github/x"));
        check(&github, "x", Some("/ext/github/a/x"));
        check(&github, "?page=2", Some("/ext/github/a/b?page=2"));
        check(&github, "//api.github.com/x", Some("/ext/github/x"));
        for elsewhere in [
            "https://codeload.github.com/x",
            "http://api.github.com/x",
            "https://api.github.com:8443/x",
            "https://api.github.com.evil.example/x",
            "https://user@api.github.com/x",
            "mailto:a@b",
        ] {
            check(&github, elsewhere, None);
        }
        check(&github, "//cdn.example/x", None);
        let plain = base("http://backstage:7007", None);
        check(&plain, "http://backstage:7007/x", Some("https://portal.example/x"));
        for stays in ["/login", "login", "?page=2", "../x", "//cdn.example/x", "https://a.example"]
        {
            check(&plain, stays, None);
        }
        let ghes = base("https://ghes.example/api/v3", Some("/ext/ghes"));
        let ours = "https://portal.example/ext/ghes";
        check(&ghes, "https://ghes.example/api/v3/x", Some(&format!("{ours}/x")));
        check(&ghes, "/api/v3", Some("/ext/ghes/"));
        check(&ghes, "https://ghes.example/api/v30/x", None);
        check(&ghes, "https://ghes.example/api/v3/../login", None);
        check(&ghes, "/login", Some("https://ghes.example/login"));
    }

    #[test]
    fn an_upstream_that_knows_our_host_is_below_our_prefix() {
        let here = Here { preserved: true, ..HERE };
        let check = |base: &UrlRewrite, reference: &str, expected: Option<&str>| {
            assert_eq!(base.ours(reference, "/a/b", here).as_deref(), expected, "{reference}");
        };
        let portal = base("http://backstage:7007", Some("/backstage"));
        check(&portal, "/", Some("/backstage/"));
        check(&portal, "/login?next=/", Some("/backstage/login?next=/"));
        check(&portal, "/backstages", Some("/backstage/backstages"));
        for stays in [
            "/backstage",
            "/backstage/",
            "/backstage/api/auth/x",
            "/backstage?a=b",
            "c",
            "?page=2",
            "//idp.example/x",
            "/\\idp.example",
            "https://portal.example/sso",
            "https://idp.example/authorize",
        ] {
            check(&portal, stays, None);
        }
        check(&base("http://backstage:7007", None), "/x", None);
        let based = base("http://backstage:7007/portal", Some("/backstage"));
        check(&based, "/portal/x", Some("/backstage/x"));
        check(&based, "/portals", None);
    }

    #[test]
    fn a_cookie_is_sent_back_to_its_upstream_only() {
        let portal = base("http://backstage:7007", Some("/backstage"));
        let check = |base: &UrlRewrite, cookie: &str, expected: Option<&str>| {
            assert_eq!(base.our_cookie(cookie).as_deref(), expected, "{cookie}");
        };
        check(&portal, "a=b; Path=/; HttpOnly", Some("a=b; Path=/backstage; HttpOnly"));
        check(&portal, "a=b;path=/api/auth", Some("a=b; Path=/backstage/api/auth"));
        check(&portal, "path=/; secure", None);
        check(&portal, "a=b", None);
        check(&portal, "a=b; Path=/backstage/api/auth/github", None);
        check(&portal, "a=b; Path=/backstage", None);
        check(&portal, "a=b; Path=/backstages", Some("a=b; Path=/backstage/backstages"));
        check(&portal, "__Host-a=b; Path=/; Secure", None);
        check(&portal, "a=b; Path=api", None);
        check(&portal, "a=b; Path", None);
        check(&base("http://backstage:7007", None), "a=b; Path=/x", None);
        let based = base("http://backstage:7007/portal", Some("/backstage"));
        check(&based, "a=b; Path=/portal/x", Some("a=b; Path=/backstage/x"));
        check(&based, "a=b; Path=/", Some("a=b; Path=/backstage"));
        check(&base("http://a:1/v3", None), "a=b; Path=/v3/x", Some("a=b; Path=/x"));
    }

    #[test]
    fn every_target_of_a_link_becomes_ours_and_its_parameters_stay() {
        let github = base("https://api.github.com", Some("/ext/github"));
        let check = |links: &str, expected: Option<&str>| {
            assert_eq!(github.our_links(links, "/a", HERE).as_deref(), expected, "{links}");
        };
        check(
            "<https://api.github.com/r?page=2>; rel=\"next\", <https://api.github.com/r?page=9>; rel=\"last\"",
            Some(
                "<https://portal.example/ext/github/r?page=2>; rel=\"next\", <https://portal.example/ext/github/r?page=9>; rel=\"last\"",
            ),
        );
        check("<https://docs.github.com/x>; rel=\"help\"", None);
        check(
            "</r>; title=\"a <https://api.github.com/> \\\" b\", <https://other/>",
            Some("</ext/github/r>; title=\"a <https://api.github.com/> \\\" b\", <https://other/>"),
        );
        check("<https://api.github.com/r", None);
        check("", None);
        check("\"\\", None);
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text in "(<|>|\"|\\\\|https://api.github.com|\\PC){0,20}") {
            let github = base("https://api.github.com/v3", Some("/ext/github"));
            let _ = github.our_links(&text, "/a", HERE);
            let _ = github.ours(&text, "/a?b", HERE);
            let _ = github.our_cookie(&text);
        }
    }
}
