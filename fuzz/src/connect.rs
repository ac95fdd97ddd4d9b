//! Where a client of a forward proxy wants to go is where `url` would go, and its normal form is its own.

use filters::target::{Host, Target};
use url::Url;

pub fn check(bytes: &[u8]) {
    if let Ok(target) = Target::of_connect(bytes) {
        let text = str::from_utf8(bytes).expect("only UTF-8 is taken");
        same_place(&target, &Url::parse(&format!("ws://{text}/")).expect("a URL"));
        assert_eq!(Target::of_connect(target.to_string().as_bytes()), Ok(target));
    }
    if let Ok((target, path)) = Target::of_url(bytes) {
        assert!(path.starts_with(b"/"));
        // Up to the path, which may be no text.
        let host = bytes.iter().skip(b"http://".len()).position(|b| b"/?".contains(b));
        let end = host.map_or(bytes.len(), |length| b"http://".len() + length);
        let text = str::from_utf8(&bytes[..end]).expect("only UTF-8 is taken");
        same_place(&target, &Url::parse(text).expect("a URL"));
    }
}

fn same_place(ours: &Target, theirs: &Url) {
    match (&ours.host, theirs.host().expect("a host")) {
        (Host::Name(name), url::Host::Domain(domain)) => {
            assert_eq!(&**name, domain.strip_suffix('.').unwrap_or(domain));
        }
        (Host::Address(ours), url::Host::Ipv4(theirs)) => assert_eq!(*ours, theirs),
        (Host::Address(ours), url::Host::Ipv6(theirs)) => assert_eq!(*ours, theirs),
        (ours, theirs) => panic!("{ours:?} is {theirs:?} to `url`"),
    }
    assert_eq!(Some(ours.port), theirs.port_or_known_default());
    assert!(theirs.username().is_empty() && theirs.password().is_none());
}
