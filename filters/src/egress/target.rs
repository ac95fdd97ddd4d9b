//! The target of a call: host and port, in one normal form.
//!
//! The allowlist and the resolver both use the normal form, so no two parsers can disagree about the host.
//! What some parser could read as an address is not a name.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

pub use crate::denial::TargetFault;

/// The target of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// A host as a client wrote it, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name to look up.
    Name(HostName),
    /// An address. Its class is not decided here.
    Address(IpAddr),
}

/// A name that DNS can resolve, and that no parser takes for an address.
///
/// Invariant: 1 to 253 bytes; labels of 1 to 63 lower-case letters, digits, `-` and `_`, with no
/// `-` at either end; those that begin with `xn--` are valid; the last is not a number; no dot
/// after it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl Target {
    /// The target of a CONNECT, `host:port`.
    ///
    /// # Errors
    /// If it could be read in two ways, or has no port.
    pub fn of_connect(authority: &[u8]) -> Result<Self, TargetFault> {
        let (host, port) = parts(authority)?;
        Ok(Self { host, port: port.ok_or(TargetFault::PortMissing)? })
    }

    /// The target of a request in absolute form, `http://host[:port]/path?query`, and its path and query,
    /// which begin with a slash.
    ///
    /// # Errors
    /// If the host could be read in two ways, or for a URL other than of scheme `http`.
    pub fn of_url(url: &[u8]) -> Result<(Self, Cow<'_, [u8]>), TargetFault> {
        let after = |scheme: &[u8]| {
            let (start, rest) = url.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        if after(b"https://").is_some() {
            return Err(TargetFault::HttpsWithoutConnect);
        }
        let rest = after(b"http://").ok_or(TargetFault::NotHttp)?;
        if rest.iter().any(|b| b.is_ascii_control() || b" #".contains(b)) {
            return Err(TargetFault::Malformed { why: "a space, a control character or a `#`" });
        }
        let end = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = parts(authority)?;
        let target = Self { host, port: port.unwrap_or(80) };
        match path.first() {
            None => Ok((target, Cow::Borrowed(b"/"))),
            Some(b'/') => Ok((target, Cow::Borrowed(path))),
            // An empty path is the root (RFC 9110 4.2.3), also before a query.
            Some(_) => Ok((target, Cow::Owned([b"/", path].concat()))),
        }
    }
}

impl Host {
    /// The normal form of `text`: a name, an IPv4 address, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// If it could be read in two ways.
    pub fn of(text: &str) -> Result<Self, TargetFault> {
        if let Some(rest) = text.strip_prefix('[') {
            let inner: Option<Ipv6Addr> = rest.strip_suffix(']').and_then(|ip| ip.parse().ok());
            return Ok(Self::Address(inner.ok_or(TargetFault::AddressMalformed)?.into()));
        }
        match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(Self::Address(ip.into())),
            Err(_) => HostName::of(text).map(Self::Name),
        }
    }
}

impl HostName {
    const LENGTH_MAX: usize = 253;

    /// Characters that a name cannot have, before or after the conversion from Unicode. STD3 would also
    /// refuse `_`, which is in use.
    const REFUSED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

    fn of(text: &str) -> Result<Self, TargetFault> {
        // A character has at most four bytes, and yields at least one unless it vanishes: anything longer is
        // too long or padded, and not worth converting.
        if text.len() > 4 * (Self::LENGTH_MAX + 1) {
            return Err(TargetFault::NameTooLong);
        }
        let ascii = Uts46::new()
            .to_ascii(text.as_bytes(), Self::REFUSED, Hyphens::CheckFirstLast, DnsLength::Ignore)
            .map_err(|_| TargetFault::LabelBad)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.is_empty() {
            return Err(TargetFault::HostEmpty);
        }
        if name.len() > Self::LENGTH_MAX {
            return Err(TargetFault::NameTooLong);
        }
        if !name.split('.').all(|label| (1..=63).contains(&label.len())) {
            return Err(TargetFault::LabelBad);
        }
        // Resolvers pass it to `inet_aton`, which makes 127.0.0.1 of `0x7f.1`.
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(TargetFault::AddressOdd);
        }
        Ok(Self(name.into()))
    }
}

impl std::ops::Deref for HostName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// As in a URL: an IPv6 address is in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Host and port of `host[:port]`.
fn parts(authority: &[u8]) -> Result<(Host, Option<u16>), TargetFault> {
    let refuse = |why| Err(TargetFault::Malformed { why });
    let Ok(text) = str::from_utf8(authority) else { return refuse("it is not UTF-8") };
    if text.contains('@') {
        return Err(TargetFault::UserInfo);
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return refuse("a space or a control character");
    }
    if text.contains(['/', '\\', '?', '#']) {
        return refuse("a slash, a backslash, a `?` or a `#` beside the host");
    }
    if text.contains('%') {
        return refuse("a percent sign, of an escape or a zone");
    }
    let inside = if text.starts_with('[') {
        text.find(']').ok_or(TargetFault::AddressMalformed)?
    } else {
        0
    };
    let Some(colon) = text[inside..].find(':') else { return Ok((Host::of(text)?, None)) };
    let (host, port) = (&text[..inside + colon], &text[inside + colon + 1..]);
    if port.contains(':') {
        return refuse("more than one colon; an IPv6 address needs brackets");
    }
    if port.is_empty() {
        return Err(TargetFault::PortMissing);
    }
    // `parse` takes a plus sign and zeros in front.
    let plain = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
    let port = port.parse().ok().filter(|_| plain).ok_or(TargetFault::PortInvalid)?;
    Ok((Host::of(host)?, Some(port)))
}

/// Whether an address parser could read a label as a number: digits, or `0x` and hex digits.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{TargetFault::*, *};

    #[test]
    fn a_target_has_one_normal_form() {
        let check = |authority: &str, expected: &str| {
            let target = Target::of_connect(authority.as_bytes());
            assert_eq!(target.map(|t| t.to_string()), Ok(expected.to_owned()), "{authority}");
        };
        check("github.com:443", "github.com:443");
        check("GitHub.COM:443", "github.com:443");
        check("github.com.:443", "github.com:443");
        check("localhost:1", "localhost:1");
        check("a:65535", "a:65535");
        check("_dmarc.my_host.example:443", "_dmarc.my_host.example:443");
        check("r3---sn-4g5e6nez.example:443", "r3---sn-4g5e6nez.example:443");
        check("7.example:443", "7.example:443");
        check("127.0.0.1.example:443", "127.0.0.1.example:443");
        check("1.0xg:443", "1.0xg:443");
        check("0x7f.com:443", "0x7f.com:443");
        check("140.82.121.4:443", "140.82.121.4:443");
        check("127.0.0.1:443", "127.0.0.1:443");
        check("[::1]:443", "[::1]:443");
        check("[2001:DB8:0:0::1]:443", "[2001:db8::1]:443");
        check("[::ffff:127.0.0.1]:443", "[::ffff:127.0.0.1]:443");
        check("[::ffff:7f00:1]:443", "[::ffff:127.0.0.1]:443");
        check("bücher.example:443", "xn--bcher-kva.example:443");
        check("BÜCHER.example:443", "xn--bcher-kva.example:443");
        check("XN--BCHER-KVA.example:443", "xn--bcher-kva.example:443");
        check("straße.example:443", "xn--strae-oqa.example:443");
        check("ｇｉｔｈｕｂ．com:443", "github.com:443");
        check("github。com。:443", "github.com:443");
        check("git\u{ad}hub.com:443", "github.com:443");
        check("git\u{200b}hub.com:443", "github.com:443");
        // A name that looks like another is still another.
        check("gıthub.com:443", "xn--gthub-n4a.com:443");
        check("xn--github-3ya.com:443", "xn--github-3ya.com:443");
        check("githսb.com:443", "xn--githb-bjg.com:443");
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        check(&format!("{longest}.:1"), &format!("{longest}:1"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let check = |authority: &str, expected: TargetFault| {
            let found = Target::of_connect(authority.as_bytes());
            assert_eq!(found, Err(expected), "{authority:?}");
        };
        let malformed = |authority: &str| {
            let found = Target::of_connect(authority.as_bytes());
            assert!(matches!(found, Err(Malformed { .. })), "{authority:?}: {found:?}");
        };
        check("", HostEmpty);
        check(":443", HostEmpty);
        check(".:443", HostEmpty);
        check("\u{ad}:443", HostEmpty);

        check("github.com", PortMissing);
        check("github.com:", PortMissing);
        check("[::1]", PortMissing);
        for port in
            ["0", "00", "0443", "+443", "-1", "65536", "99999999999", "0x1bb", "https", "٤٤٣"]
        {
            check(&format!("github.com:{port}"), PortInvalid);
        }

        check("github.com@evil.com:443", UserInfo);
        check("github.com:443@evil.com:443", UserInfo);
        check("github.com:x@evil.com:443", UserInfo);
        check("@github.com:443", UserInfo);

        malformed("http://github.com:443");
        malformed("github.com/:443");
        malformed("github.com:443/");
        malformed("evil.com\\.github.com:443");
        malformed("evil.com#.github.com:443");
        malformed("evil.com?.github.com:443");
        malformed("evil.com%2f.github.com:443");
        malformed("%67ithub.com:443");
        malformed("github.com%00:443");
        malformed(" github.com:443");
        malformed("github.com :443");
        malformed("github.com: 443");
        malformed("github.com:443\r\nHost: evil.com");
        malformed("github.com\0.evil.com:443");
        malformed("github.com\u{7f}:443");
        malformed("github.com\u{85}:443");
        malformed("github.com\u{a0}:443");
        malformed("github\u{3000}.com:443");
        malformed("::1:443");
        malformed("github.com:443:443");
        malformed("2001:db8::1");

        check("github.com..:443", LabelBad);
        check("github..com:443", LabelBad);
        check(".github.com:443", LabelBad);
        check("..:443", LabelBad);
        check("github.com.。:443", LabelBad);
        check("-github.com:443", LabelBad);
        check("github-.com:443", LabelBad);
        check("*.github.com:443", LabelBad);
        check("github.com,evil.com:443", LabelBad);
        check("github.com]:443", LabelBad);
        check("evil.com／.github.com:443", LabelBad);
        check("evil.com＠github.com:443", LabelBad);
        check("evil.com：443:443", LabelBad);
        check("evil.com％2f:443", LabelBad);
        check("℀.com:443", LabelBad);
        check("a\u{202e}b.com:443", LabelBad);
        check("a\u{fffd}.com:443", LabelBad);
        check(&format!("{}.com:443", "a".repeat(64)), LabelBad);
        check(&format!("{}.com:443", "ü".repeat(80)), LabelBad);

        // An A-label must be valid, and the only one for its name.
        check("xn--.com:443", LabelBad);
        check("xn--github-.com:443", LabelBad);
        check("xn--a.com:443", LabelBad);
        check("xn--bücher.com:443", LabelBad);
        check("xn--zzzzzzzzzzzz.com:443", LabelBad);
        check("xn--BCHER-KVA-.com:443", LabelBad);
        check("xn--strasse-.example:443", LabelBad);

        check(&format!("{}:443", "a".repeat(300)), NameTooLong);
        check(&format!("{}com:443", "a.".repeat(126)), NameTooLong);
        check(&format!("{}:443", "\u{ad}".repeat(5000)), NameTooLong);

        check("2130706433:443", AddressOdd);
        check("017700000001:443", AddressOdd);
        check("0x7f000001:443", AddressOdd);
        check("0X7F000001:443", AddressOdd);
        check("0x7f.1:443", AddressOdd);
        check("0x:443", AddressOdd);
        check("127.1:443", AddressOdd);
        check("127.0.1:443", AddressOdd);
        check("0177.0.0.1:443", AddressOdd);
        check("127.0.0.01:443", AddressOdd);
        check("127.000.000.001:443", AddressOdd);
        check("127.0.0.0x1:443", AddressOdd);
        check("127.0.0.1.:443", AddressOdd);
        check("1.2.3.4.5:443", AddressOdd);
        check("256.256.256.256:443", AddressOdd);
        check("99999999999999999999:443", AddressOdd);
        check("0:443", AddressOdd);
        check("github.com.1:443", AddressOdd);
        check("127。0。0。1:443", AddressOdd);
        check("１２７.0.0.1:443", AddressOdd);
        check("①②⑦.0.0.1:443", AddressOdd);
        check("127.0.0.\u{ad}1:443", AddressOdd);
        check("０ｘ7f.0.0.0x1:443", AddressOdd);

        malformed("[fe80::1%eth0]:443");
        malformed("[fe80::1%25eth0]:443");
        check("[]:443", AddressMalformed);
        check("[127.0.0.1]:443", AddressMalformed);
        check("[github.com]:443", AddressMalformed);
        check("[::1:443", AddressMalformed);
        check("[::1]x:443", AddressMalformed);
        check("[[::1]]:443", AddressMalformed);
        malformed("[::1]:443]:443");
        check("[::1]443", AddressMalformed);
        check("[v1.x]:443", AddressMalformed);
        check("[::127.0.0.01]:443", AddressMalformed);
        check("[1::2::3]:443", AddressMalformed);

        let found = Target::of_connect(b"caf\xe9.com:443");
        assert_eq!(found, Err(Malformed { why: "it is not UTF-8" }));
    }

    #[test]
    fn a_url_is_target_and_path() {
        let check = |url: &'static str, target: &str, path: &str| {
            let (found, rest) = Target::of_url(url.as_bytes()).unwrap();
            assert_eq!((found.to_string().as_str(), &*rest), (target, path.as_bytes()), "{url}");
        };
        check("http://a/b", "a:80", "/b");
        check("http://a", "a:80", "/");
        check("http://a?b=c", "a:80", "/?b=c");
        check("http://a:8080", "a:8080", "/");
        check("HTTP://GitHub.com./x?y=http://z/@", "github.com:80", "/x?y=http://z/@");
        check("http://a//evil.com", "a:80", "//evil.com");
        check("http://[::1]:8080/", "[::1]:8080", "/");
        check("http://[::1]/", "[::1]:80", "/");
        check("http://bücher.example/%C3%BC", "xn--bcher-kva.example:80", "/%C3%BC");

        let refuse = |url: &str, expected: TargetFault| {
            assert_eq!(Target::of_url(url.as_bytes()), Err(expected), "{url:?}");
        };
        refuse("https://a/b", HttpsWithoutConnect);
        refuse("HTTPS://a", HttpsWithoutConnect);
        refuse("", NotHttp);
        refuse("/b", NotHttp);
        refuse("*", NotHttp);
        refuse("a:443", NotHttp);
        refuse("ftp://a/", NotHttp);
        refuse("http:a", NotHttp);
        refuse("http:/a", NotHttp);
        refuse("http:\\\\a/", NotHttp);
        refuse(" http://a/", NotHttp);
        refuse("http://", HostEmpty);
        refuse("http:///b", HostEmpty);
        refuse("http://:80/", HostEmpty);
        refuse("http://a:/", PortMissing);
        refuse("http://a:0/", PortInvalid);
        refuse("http://a@b/", UserInfo);
        refuse("http://a:80@b/", UserInfo);
        refuse("http://a\\@b/", UserInfo);
        refuse("http://0x7f.1/", AddressOdd);
        refuse("http://a..b/", LabelBad);
        for url in [
            "http://a#b",
            "http://a/#b",
            "http://a/ b",
            "http://a/b\r\nx: y",
            "http://a\\b/",
            "http://%61/",
        ] {
            let found = Target::of_url(url.as_bytes());
            assert!(matches!(found, Err(Malformed { .. })), "{url:?}: {found:?}");
        }
    }

    /// The invariant of a name, written independently.
    fn holds(name: &str) -> bool {
        name.len() <= 253
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b"abcdefghijklmnopqrstuvwxyz0123456789-_".contains(&b))
            })
            && name.rsplit('.').next().is_none_or(|last| last.parse::<u128>().is_err())
    }

    fn is_stable(authority: &[u8]) -> Result<(), TestCaseError> {
        let Ok(target) = Target::of_connect(authority) else { return Ok(()) };
        if let Host::Name(name) = &target.host {
            prop_assert!(holds(name), "{:?} from {:?}", name, authority);
        }
        let shown = target.to_string();
        prop_assert_eq!(&Target::of_connect(shown.as_bytes()), &Ok(target.clone()));
        let url = format!("http://{shown}/x");
        prop_assert_eq!(Target::of_url(url.as_bytes()), Ok((target, Cow::Borrowed(&b"/x"[..]))));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Target::of_url(&bytes);
            let _ = Target::of_url(&[b"http://", &bytes[..]].concat());
            is_stable(&bytes)?;
            is_stable(&[&bytes[..], b":443"].concat())?;
        }

        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(
            host in "[a-zA-Z0-9._@%\\[\\]:ßüıſａ-ｚ０-９。．①\u{ad}\u{200b}\u{200d}אب٣-]{0,16}",
            any_host in "\\PC{0,12}",
            label in "[xX][nN]--[a-z0-9-]{0,12}",
        ) {
            is_stable(format!("{host}:443").as_bytes())?;
            is_stable(format!("{any_host}:443").as_bytes())?;
            is_stable(format!("{any_host}.com:443").as_bytes())?;
            is_stable(format!("{label}.com:443").as_bytes())?;
            is_stable(format!("{label}.{host}:443").as_bytes())?;
        }

        #[test]
        fn what_inet_aton_reads_is_never_a_name(
            numbers in proptest::collection::vec((any::<u32>(), 0..6u8, 0..4u8), 1..5),
            dot in any::<bool>(),
        ) {
            let digits = |(number, notation, shift): (u32, u8, u8)| {
                let number = number >> (8 * shift);
                match notation {
                    0 => format!("0x{number:x}"),
                    1 => format!("0X{number:X}"),
                    2 => format!("0x{number:012x}"),
                    3 => format!("0{number:o}"),
                    _ => number.to_string(),
                }
            };
            let host: Vec<_> = numbers.into_iter().map(digits).collect();
            let host = host.join(".") + if dot { "." } else { "" };
            let expected = match host.parse::<Ipv4Addr>() {
                Ok(ip) => Ok(Host::Address(ip.into())),
                Err(_) => Err(AddressOdd),
            };
            prop_assert_eq!(Host::of(&host), expected);
        }
    }
}
