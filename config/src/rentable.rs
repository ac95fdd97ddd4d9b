//! Domains below which anybody can have a name, and so take what is sent there.

/// Beyond those of the public suffix list.
const LISTED: &str = include_str!("../egress/rentable.txt");

/// Who can have a name directly below a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Whoever registers one: `com`, `co.uk`.
    Registered,
    /// Whoever rents one of its owner: `blob.core.windows.net`.
    Rented,
    /// Only its owner.
    Owned,
}

/// Who can have a name directly below `domain`.
pub(crate) fn names_below(domain: &str) -> Names {
    let suffix = psl::suffix(domain.as_bytes());
    let suffix = suffix.filter(|suffix| suffix.as_bytes() == domain.as_bytes());
    let listed = LISTED.lines().filter(|line| !line.starts_with('#')).any(|line| line == domain);
    match suffix.map(|suffix| suffix.typ()) {
        Some(Some(psl::Type::Icann)) => Names::Registered,
        Some(_) => Names::Rented,
        None if listed => Names::Rented,
        None => Names::Owned,
    }
}

/// The nearest domain above `host` below which anybody can rent a name.
pub fn rentable_above(host: &str) -> Option<&str> {
    let mut above = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
    // A top-level domain that nobody listed is not for rent.
    above.find(|domain| domain.contains('.') && names_below(domain) == Names::Rented)
}

/// The part of a name that somebody registered: `example.co.uk` of `api.example.co.uk`.
pub fn registered(host: &str) -> Option<&str> {
    psl::domain_str(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_anybody_can_have_is_known_by_the_domain_above_it() {
        let check = |host: &str, expected: Option<&str>| {
            assert_eq!(rentable_above(host), expected, "{host}");
        };
        check("acme.blob.core.windows.net", Some("blob.core.windows.net"));
        check("a.b.github.io", Some("github.io"));
        check("api.github.com", None);
        check("example.co.uk", None);
        check("db.corp", None);
        check("a.egress.test", None);
    }
}
