//! External responses that redirect into our own network: a client inside that follows them would call what
//! the sender cannot reach itself.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::{Host, Url};

use crate::egress::addresses::AddressClass;

/// Headers that redirect (RFC 9110 10.2.2, 8.7; `Refresh` is defined by browsers).
const LEADS: [HeaderName; 3] = [header::LOCATION, header::CONTENT_LOCATION, header::REFRESH];

/// The target of a redirect, if it is a literal address of our own network in any notation. `is_known`
/// recognizes the upstream's own URLs, which are allowed. `judge` returns why an address may not be called,
/// if so.
pub fn inside(
    headers: &HeaderMap,
    is_known: impl Fn(&str) -> bool,
    judge: impl Fn(IpAddr, u16) -> Option<AddressClass>,
) -> Option<AddressClass> {
    LEADS.iter().find_map(|name| {
        headers.get_all(name).iter().find_map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text = if name == header::REFRESH { refreshed(&text) } else { &text };
            if is_known(text) { None } else { class(text, &judge) }
        })
    })
}

/// Removes such links (RFC 8288): they are hints, and the response is usable without them.
pub fn unlink(
    headers: &mut HeaderMap,
    is_known: impl Fn(&str) -> bool,
    judge: impl Fn(IpAddr, u16) -> Option<AddressClass>,
) {
    let leads_inside = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.split('<').skip(1).any(|link| {
            let target = link.split('>').next().unwrap_or_default();
            !is_known(target) && class(target, &judge).is_some()
        })
    };
    if !headers.get_all(header::LINK).iter().any(leads_inside) {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(header::LINK).iter().filter(|v| !leads_inside(v)).cloned().collect();
    headers.remove(header::LINK);
    for value in kept {
        headers.append(header::LINK, value);
    }
}

/// The URL in `5; url=http://host/`.
fn refreshed(text: &str) -> &str {
    let rest = text.split_once([';', ',']).map_or("", |(_, rest)| rest).trim_start();
    let rest = match rest.get(..3) {
        Some(start) if start.eq_ignore_ascii_case("url") => {
            let after = rest[3..].trim_start();
            after.strip_prefix('=').map_or(rest, str::trim_start)
        }
        _ => rest,
    };
    rest.trim_matches(['"', '\''])
}

/// The class of the address that a reference points to, parsed like browsers do: to them `http:\\0x7f.1` is
/// one. `None` if it points to a name, or stays on the host.
fn class(text: &str, judge: impl Fn(IpAddr, u16) -> Option<AddressClass>) -> Option<AddressClass> {
    let base = Url::parse("https://elsewhere.invalid/").expect("it is a URL");
    let Ok(url) = base.join(text) else {
        // What one parser rejects another may accept.
        return Some(AddressClass::Unspecified);
    };
    let ip: IpAddr = match url.host()? {
        Host::Ipv4(ip) => ip.into(),
        Host::Ipv6(ip) => ip.into(),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            return match &*name {
                "localhost" => Some(AddressClass::Loopback),
                "metadata.google.internal" => Some(AddressClass::Metadata),
                _ if name.ends_with(".localhost") => Some(AddressClass::Loopback),
                // With another scheme it may still be an address.
                _ => judge(name.parse().ok()?, url.port().unwrap_or(0)),
            };
        }
    };
    judge(ip, url.port_or_known_default().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, value: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name.clone(), "/fine".parse().unwrap());
        headers.append(name, value.parse().unwrap());
        let known = |text: &str| text.starts_with("http://10.9.9.9/");
        inside(&headers, known, judge).map(AddressClass::name)
    }

    fn judge(ip: IpAddr, port: u16) -> Option<AddressClass> {
        Some(AddressClass::of(ip)).filter(|class| !class.is_public() && port != 4711)
    }

    #[test]
    fn an_address_of_our_own_network_is_found_in_any_notation() {
        for (value, class) in [
            ("http://127.0.0.1/", "loopback"),
            ("http://127.1/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0x7f.0.0.1:8080/x", "loopback"),
            ("http://0177.0.0.1/", "loopback"),
            ("http://017700000001/", "loopback"),
            ("HTTP://127.0.0.1./", "loopback"),
            ("http:\\\\127.0.0.1/", "loopback"),
            ("//127.0.0.1/x", "loopback"),
            ("\\/127.0.0.1", "loopback"),
            ("http:/\\127.0.0.1", "loopback"),
            ("http://user:pass@127.0.0.1/", "loopback"),
            ("http://%31%32%37.0.0.1/", "loopback"),
            (" http://10.0.0.1/", "private"),
            ("https://192.168.1.1:8443/", "private"),
            ("http://169.254.169.254/latest/meta-data/", "metadata"),
            ("http://2852039166/", "metadata"),
            ("http://169.254.1.1/", "link_local"),
            ("http://[::1]/", "loopback"),
            ("http://[::ffff:127.0.0.1]/", "v4_in_v6"),
            ("http://[fe80::1]/", "link_local"),
            ("http://[fd00::1]/", "unique_local"),
            ("http://localhost/", "loopback"),
            ("http://LOCALHOST.:80/", "loopback"),
            ("http://a.localhost/", "loopback"),
            ("http://metadata.google.internal/", "metadata"),
            ("ftp://127.0.0.1/", "loopback"),
            ("gopher://127.0.0.1:70/", "loopback"),
            ("http://[::1", "unspecified"),
            ("http://0/", "unspecified"),
        ] {
            assert_eq!(found("location", value), Some(class), "{value}");
        }
        assert_eq!(found("content-location", "//10.0.0.1/"), Some("private"));
        for refresh in
            ["0; url=http://127.0.0.1/", "0;URL='http://127.0.0.1/'", "1, http://127.0.0.1"]
        {
            assert_eq!(found("refresh", refresh), Some("loopback"), "{refresh}");
        }
    }

    #[test]
    fn what_leads_elsewhere_passes() {
        for value in [
            "/x?next=http://127.0.0.1/",
            "x",
            "",
            "?a",
            "https://github.com/login",
            "https://1.1.1.1/",
            "http://example.com:8080/127.0.0.1",
            "http://127.0.0.1.example.com/",
            "mailto:a@127.0.0.1",
            "http://10.0.0.1:4711/",
            "http://10.9.9.9/x",
        ] {
            assert_eq!(found("location", value), None, "{value}");
        }
        assert_eq!(found("refresh", "5"), None);
        assert_eq!(found("refresh", "5; url=/x"), None);
        assert_eq!(found("x-other", "http://127.0.0.1/"), None);
    }

    #[test]
    fn a_link_that_leads_there_goes_alone() {
        let mut headers = HeaderMap::new();
        headers.append("link", "</a>; rel=next, <http://127.1/x>; rel=preload".parse().unwrap());
        headers.append("link", "<https://example.com/>; rel=next".parse().unwrap());
        unlink(&mut headers, |_| false, judge);
        let kept: Vec<_> = headers.get_all("link").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(kept, ["<https://example.com/>; rel=next"]);
    }
}
