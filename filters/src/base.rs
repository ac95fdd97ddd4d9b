//! Where an upstream's paths stand among ours, on the way there and on the way back.

use std::borrow::Cow;

use url::Url;

use crate::normal_form::NormalPath;

/// Where an upstream's paths stand among ours: `/ext/github/repos` here is
/// `https://ghes.example/api/v3/repos` there.
#[derive(Debug)]
pub struct Base {
    /// How many segments of ours are cut off.
    cut: usize,
    /// What is cut off, empty or beginning with a slash.
    ours: Box<str>,
    /// What is put in its place.
    theirs: Box<str>,
    /// The upstream's own scheme, host and port.
    origin: Url,
}

/// How a client reaches us.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port, as the client wrote them.
    pub host: &'a str,
}

impl Base {
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

    /// Whether a path is sent on as it came.
    pub fn is_plain(&self) -> bool {
        self.cut == 0 && self.theirs.is_empty()
    }

    /// A path of ours, as the upstream is asked for it.
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

    /// What a client should be told instead of `reference`, a URL in an answer to the request for
    /// `target` there. `None` if it can stay.
    ///
    /// One of the upstream's own becomes ours, so that whoever follows it passes here again. One
    /// that leads elsewhere stays.
    pub fn ours(&self, reference: &str, target: &str, here: Here<'_>) -> Option<String> {
        let asked = self.origin.join(target).ok()?;
        let meant = asked.join(reference.trim()).ok()?;
        let is_absolute = Url::parse(reference.trim()).is_ok();
        let plain = meant.username().is_empty() && meant.password().is_none();
        let same = meant.origin() == self.origin.origin() && plain;
        let inside = meant.path().strip_prefix(&*self.theirs);
        let inside = inside.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(rest) = inside.filter(|_| same) else {
            // To the client it would be relative to us.
            return (!is_absolute).then(|| meant.into());
        };
        let rest = if rest.is_empty() { "/" } else { rest };
        let mut ours = format!("{}://{}{}{rest}", here.scheme, here.host, self.ours);
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

    /// The same for every target of a `Link` header (RFC 8288 3): APIs name their next page there.
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

    const HERE: Here<'_> = Here { scheme: "https", host: "portal.example" };

    fn base(url: &str, prefix: Option<&str>) -> Base {
        let prefix: Option<config::PathTemplate> = prefix.map(|prefix| prefix.parse().unwrap());
        Base::new(&url.parse().unwrap(), prefix.as_ref())
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
        let check = |base: &Base, reference: &str, expected: Option<&str>| {
            assert_eq!(base.ours(reference, "/a/b?c=d", HERE).as_deref(), expected, "{reference}");
        };
        let ours = "https://portal.example/ext/github";
        check(&github, "https://api.github.com/x?y=z#f", Some(&format!("{ours}/x?y=z#f")));
        check(&github, "https://API.GitHub.com:443/x", Some(&format!("{ours}/x")));
        check(&github, "https://api.github.com", Some(&format!("{ours}/")));
        check(&github, "/x", Some(&format!("{ours}/x")));
        check(&github, "x", Some(&format!("{ours}/a/x")));
        check(&github, "?page=2", Some(&format!("{ours}/a/b?page=2")));
        check(&github, "//api.github.com/x", Some(&format!("{ours}/x")));
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
        check(&github, "//evil.example/x", Some("https://evil.example/x"));
        let ghes = base("https://ghes.example/api/v3", Some("/ext/ghes"));
        let ours = "https://portal.example/ext/ghes";
        check(&ghes, "https://ghes.example/api/v3/x", Some(&format!("{ours}/x")));
        check(&ghes, "/api/v3", Some(&format!("{ours}/")));
        check(&ghes, "https://ghes.example/api/v30/x", None);
        check(&ghes, "https://ghes.example/api/v3/../login", None);
        check(&ghes, "/login", Some("https://ghes.example/login"));
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
            Some(
                "<https://portal.example/ext/github/r>; title=\"a <https://api.github.com/> \\\" b\", <https://other/>",
            ),
        );
        check("<https://api.github.com/r", None);
        check("", None);
        check("\"\\", None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_nothing_panics(text in "(<|>|\"|\\\\|https://api.github.com|\\PC){0,20}") {
            let github = base("https://api.github.com/v3", Some("/ext/github"));
            let _ = github.our_links(&text, "/a", HERE);
            let _ = github.ours(&text, "/a?b", HERE);
        }
    }
}
