//! Hellos of real clients must be understood, wherever they are cut; what is broken must not.

use std::{
    io,
    sync::{Arc, LazyLock},
};

use data_encoding::HEXLOWER;
use proptest::{collection::vec, prelude::*, sample::Index};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, crypto::ring,
    server::Acceptor, version,
};

use super::*;

fn hello(name: &str, encrypted: bool) -> Peek {
    let server_name = (name != "-").then(|| name.to_owned());
    Peek::Hello(ClientHello { server_name, encrypted })
}

struct Captured {
    client: &'static str,
    expected: Peek,
    bytes: Vec<u8>,
}

static CAPTURED: LazyLock<Vec<Captured>> = LazyLock::new(|| {
    let mut all: Vec<Captured> = Vec::new();
    for line in include_str!("tests/captured.txt").lines().filter(|line| !line.starts_with('#')) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [""] => {}
            [client, name, kind] => {
                let expected = hello(name, kind == "encrypted");
                all.push(Captured { client, expected, bytes: Vec::new() });
            }
            [digits] => {
                let bytes = HEXLOWER.decode(digits.as_bytes()).unwrap();
                all.last_mut().unwrap().bytes.extend(bytes);
            }
            _ => panic!("{line}"),
        }
    }
    all
});

/// What rustls sends for such a server.
fn of_rustls(
    server: &'static str,
    version: &'static SupportedProtocolVersion,
    fragment: Option<usize>,
) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.max_fragment_size = fragment;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut client = ClientConnection::new(config.into(), server.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The name that rustls, as a server, reads in a hello that it takes.
fn name_for_rustls(bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest as &mut dyn io::Read).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted.client_hello().server_name().map(str::to_owned));
        }
    }
    None
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1], length.as_slice(), payload].concat()
}

/// The bytes after a number of `N` bytes that counts them.
fn counted<const N: usize>(bytes: &[u8]) -> Vec<u8> {
    [&bytes.len().to_be_bytes()[8 - N..], bytes].concat()
}

fn handshake(body: &[u8]) -> Vec<u8> {
    [vec![1], counted::<3>(body)].concat()
}

/// The same handshake messages in records of another size.
fn split(payload: &[u8], size: usize) -> Vec<u8> {
    payload.chunks(size).flat_map(|part| record(HANDSHAKE, part)).collect()
}

/// The version, random, session, cipher suites and compression methods of a hello.
const FIXED: [&[u8]; 5] = [&[3, 3], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]];

/// A hello in one record, with whatever extensions.
fn with_extensions(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    record(HANDSHAKE, &handshake(&[FIXED.concat(), counted::<2>(&joined(extensions))].concat()))
}

fn joined(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let one = |(kind, data): &(u16, Vec<u8>)| [kind.to_be_bytes().to_vec(), counted::<2>(data)];
    extensions.iter().flat_map(one).flatten().collect()
}

/// The data of a `server_name`.
fn names(names: &[&str]) -> Vec<u8> {
    let one = |name: &&str| [vec![0], counted::<2>(name.as_bytes())].concat();
    counted::<2>(&names.iter().flat_map(one).collect::<Vec<_>>())
}

#[test]
fn real_clients_are_understood() {
    assert_eq!(CAPTURED.len(), 7);
    for Captured { client, expected, bytes } in &*CAPTURED {
        assert_eq!(peek(bytes), *expected, "{client}");
    }
    let check = |server: &'static str, version, expected: &str| {
        for fragment in [None, Some(32), Some(100), Some(16_384)] {
            let bytes = of_rustls(server, version, fragment);
            assert_eq!(peek(&bytes), hello(expected, false), "{server} in {fragment:?}");
        }
    };
    check("registry.example.com", &version::TLS13, "registry.example.com");
    check("registry.example.com", &version::TLS12, "registry.example.com");
    check("Registry_1.Example.COM", &version::TLS13, "registry_1.example.com");
    check("localhost", &version::TLS13, "localhost");
    check("192.0.2.1", &version::TLS13, "-");
    check("2001:db8::1", &version::TLS12, "-");
}

#[test]
fn a_hello_that_is_cut_waits_for_its_rest() {
    let mut all = vec![of_rustls("a.example", &version::TLS13, Some(64))];
    all.extend(CAPTURED.iter().map(|captured| captured.bytes.clone()));
    for bytes in all {
        for cut in 0..bytes.len() {
            assert_eq!(peek(&bytes[..cut]), Peek::More, "{cut} of {}", bytes.escape_ascii());
        }
        assert!(matches!(peek(&bytes), Peek::Hello(_)));
        // Such as early data.
        let followed = [bytes.as_slice(), &record(23, b"early")].concat();
        assert_eq!(peek(&followed), peek(&bytes));
    }
}

#[test]
fn a_hello_may_be_split_over_records_anywhere() {
    for Captured { client, expected, bytes } in &*CAPTURED {
        for size in 1..100 {
            assert_eq!(peek(&split(&bytes[5..], size)), *expected, "{client} by {size}");
        }
    }
}

#[test]
fn anything_but_tls_is_recognized_immediately() {
    for bytes in [
        b"G".as_slice(),
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\0",
        b"\x80\x2e\x01\x03\x01", // a hello as SSL 2.0 would have it
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x14\x03\x03\x00\x01\x01",
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\x02",
        b"\x16\xfe\xfd\x00\x00", // DTLS
        b"\x16GET",
    ] {
        assert_eq!(peek(bytes), Peek::NotTls, "{}", bytes.escape_ascii());
    }
    assert_eq!(peek(b""), Peek::More);
    assert_eq!(peek(b"\x16"), Peek::More);
}

#[test]
fn records_that_are_not_a_hello_s_are_refused() {
    let check = |bytes: &[u8], expected: Why| {
        assert_eq!(peek(bytes), Peek::Malformed(expected), "{}", bytes.escape_ascii());
    };
    let whole = handshake(&[FIXED.concat(), counted::<2>(&[])].concat());
    let (begun, rest) = whole.split_at(20);
    let begun = record(HANDSHAKE, begun);
    let then = |record: &[u8]| [&begun, record].concat();
    assert_eq!(peek(&then(&record(HANDSHAKE, rest))), hello("-", false));

    let breaks_off = "it is truncated";
    check(&then(&record(20, &[1])), breaks_off);
    check(&then(&record(21, &[1, 0])), breaks_off);
    check(&then(&record(23, rest)), breaks_off);
    check(&then(b"\x16\x02\x01\x00\x01"), breaks_off);
    check(&then(b"GET / HTTP/1.1"), breaks_off);
    check(&record(HANDSHAKE, &[]), "a record is empty");
    check(&then(&record(HANDSHAKE, &[])), "a record is empty");
    check(b"\x16\x03\x01\x40\x01", "a record is too long");
    check(b"\x16\x03\x01\xff\xff", "a record is too long");
    check(&then(b"\x16\x03\x01\x40\x01"), "a record is too long");
    // Neither the server's hello nor a request for one.
    check(&record(HANDSHAKE, &[2]), "the first message is not a ClientHello");
    check(&record(HANDSHAKE, &[0, 0, 0, 0]), "the first message is not a ClientHello");
    let goes_on = "the record has more data after it";
    check(&record(HANDSHAKE, &[whole.as_slice(), &[1]].concat()), goes_on);
    check(&record(HANDSHAKE, &whole.repeat(2)), goes_on);
    check(&then(&record(HANDSHAKE, &[rest, &[1]].concat())), goes_on);
    // Known from the lengths alone.
    check(b"\x16\x03\x01\x00\x50\x01\x00\x00\x4b", goes_on);
}

#[test]
fn a_hello_ends_within_the_limit_or_is_refused() {
    let of_size = |size: usize| {
        let data = vec![0; size - 9 - FIXED.concat().len() - 6];
        handshake(&[FIXED.concat(), counted::<2>(&joined(&[(21, data)]))].concat())
    };
    let too_large = Peek::Malformed(TOO_LARGE);
    // Three records, so two more headers.
    let largest = split(&of_size(BYTES_MAX - 10), 16_000);
    assert_eq!(largest.len(), BYTES_MAX);
    assert_eq!(peek(&largest), hello("-", false));
    assert_eq!(peek(&largest[..BYTES_MAX - 1]), Peek::More);

    let larger = split(&of_size(BYTES_MAX - 9), 16_000);
    assert_eq!(peek(&larger), too_large);
    assert_eq!(peek(&larger[..BYTES_MAX]), too_large);
    assert_eq!(peek(&larger[..BYTES_MAX - 1]), Peek::More);

    // A length that cannot fit is not waited for.
    assert_eq!(peek(b"\x16\x03\x01\x00\x04\x01\x00\x7f\xfd"), too_large);
    assert_eq!(peek(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"), too_large);
    assert_eq!(peek(b"\x16\x03\x01\x00\x04\x01\x00\x7f\xfc"), Peek::More);

    // Six bytes for each one.
    let drops = split(&of_size(BYTES_MAX / 5), 1);
    assert_eq!(peek(&drops), too_large);
    assert_eq!(peek(&split(&of_size(BYTES_MAX / 7), 1)), hello("-", false));
}

#[test]
fn a_hello_with_a_wrong_part_is_refused() {
    let length = "a length in it is wrong";
    let with = |at: usize, part: &[u8]| {
        let mut parts = FIXED;
        parts[at] = part;
        peek(&record(HANDSHAKE, &handshake(&parts.concat())))
    };
    let check = |at, part: &[u8], expected| {
        assert_eq!(with(at, part), Peek::Malformed(expected), "{at} {part:?}");
    };
    let version = "its version is not TLS 1.0 to 1.3";
    check(0, &[3, 0], version);
    check(0, &[3, 4], version);
    check(0, &[2, 3], version);
    check(2, &[&[33], [0; 33].as_slice()].concat(), "the session id is too long");
    check(2, &[0xff], length);
    let suites = "the cipher suites are not pairs of bytes";
    check(3, &[0, 0], suites);
    check(3, &[0, 3, 0, 0, 0], suites);
    check(4, &[0], "it has no compression method");
    check(4, &[2, 0], length);
    check(4, &[], length);
    check(4, &[1, 0, 0], length);
    check(4, &[1, 0, 0, 0, 0], length);
    for (at, part) in [(0, [3, 1].as_slice()), (0, &[3, 2]), (2, &[1, 9]), (4, &[2, 1, 0])] {
        assert_eq!(with(at, part), hello("-", false), "{at} {part:?}");
    }
}

#[test]
fn a_hello_that_ends_too_early_inside_is_refused() {
    for Captured { client, bytes, .. } in &*CAPTURED {
        let body = &bytes[9..];
        let ends = (0..body.len()).map(|cut| peek(&record(HANDSHAKE, &handshake(&body[..cut]))));
        let (hellos, refused): (Vec<_>, Vec<_>) =
            ends.partition(|end| matches!(end, Peek::Hello(_)));
        // Right before the extensions it is still a hello, an old one.
        assert_eq!(hellos, [hello("-", false)], "{client}");
        assert!(refused.iter().all(|end| matches!(end, Peek::Malformed(_))), "{client}");
    }
}

#[test]
fn a_name_is_exactly_one_and_a_name() {
    let name = |data: Vec<u8>| peek(&with_extensions(&[(10, vec![0, 2, 0, 29]), (0, data)]));
    let check = |text: &str, expected: Result<&str, Why>| {
        let expected = expected.map_or_else(Peek::Malformed, |name| hello(name, false));
        assert_eq!(name(names(&[text])), expected, "{text}");
    };
    check("a.example", Ok("a.example"));
    check("A.Example", Ok("a.example"));
    check("xn--bcher-kva.example", Ok("xn--bcher-kva.example"));
    check("_x.1.example", Ok("_x.1.example"));
    check("0x7f.0xample", Ok("0x7f.0xample"));
    check("", Err("the server name is empty"));
    check("a.example.", Err("the server name ends with a dot"));
    check(".", Err("the server name ends with a dot"));
    check("b\u{fc}cher.example", Err("the server name is not ASCII"));
    for text in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "a.0x",
        "a.example.1",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "2001:db8::1",
    ] {
        check(text, Err("the server name is an address"));
    }
    for text in [
        "a.example\0",
        "\0",
        "a.example\0.b.example",
        "a example",
        " a.example",
        "a.example\n",
        ".a.example",
        "a..example",
        "a.example:443",
        "*.example",
        "a/b",
        "a@b",
        "a,b",
        "fe80::1%1",
    ] {
        check(text, Err("the server name is invalid"));
    }
    let label = "a".repeat(63);
    let long = [label.as_str(), &label, &label, &label[..61]].join(".");
    assert_eq!(long.len(), 253);
    check(&long, Ok(&long));
    check(&format!("{long}a"), Err("the server name is too long"));
    check(&"a".repeat(64), Err("the server name is invalid"));

    let refused = |data: Vec<u8>, expected| assert_eq!(name(data), Peek::Malformed(expected));
    refused(names(&["a.example", "b.example"]), "it has more than one server name");
    refused(names(&["a.example", "a.example"]), "it has more than one server name");
    refused(counted::<2>(&[0, 0, 1, b'a', 1, 0]), "it has more than one server name");
    refused(counted::<2>(&[1, 0, 1, b'a']), "a server name is not a host name");
    refused(counted::<2>(&[]), "the list of server names is empty");
    refused(counted::<2>(&[0, 0, 1, 0xff]), "the server name is not ASCII");
    let length = "a length in it is wrong";
    refused(vec![], length);
    refused(counted::<2>(&[0]), length);
    refused(counted::<2>(&[0, 0, 2, b'a']), length);
    refused([names(&["a.example"]), vec![0]].concat(), length);
    refused(vec![0, 5, 0, 0, 1, b'a'], length);
}

#[test]
fn extensions_occur_once_and_fill_their_length() {
    let check = |bytes: &[u8], expected| assert_eq!(peek(bytes), expected);
    let body = |extensions: &[u8]| {
        peek(&record(HANDSHAKE, &handshake(&[FIXED.concat(), extensions.to_vec()].concat())))
    };
    let name = (0, names(&["a.example"]));
    // GREASE comes as two unknown extensions (RFC 8701).
    check(
        &with_extensions(&[(0x0a0a, vec![]), name.clone(), (0x1a1a, vec![0])]),
        hello("a.example", false),
    );
    assert_eq!(body(&[]), hello("-", false));
    assert_eq!(body(&[0, 0]), hello("-", false));

    let twice = Peek::Malformed("an extension is repeated");
    check(&with_extensions(&[name.clone(), name.clone()]), twice.clone());
    check(&with_extensions(&[name.clone(), (0, names(&["b.example"]))]), twice.clone());
    check(&with_extensions(&[(0x0a0a, vec![]), name.clone(), (0x0a0a, vec![])]), twice);

    let wrong = Peek::Malformed("a length in it is wrong");
    for extensions in [
        [0].as_slice(),
        &[0, 1],
        &[0, 4, 0, 9, 0],
        &[0, 3, 0, 9, 0, 0],
        &[0, 5, 0, 9, 0, 0, 0],
        &[0, 5, 0, 9, 0, 2, 0],
        &[0, 4, 0, 9, 0, 0, 0],
        &[0, 0, 0],
    ] {
        assert_eq!(body(extensions), wrong, "{extensions:?}");
    }
}

#[test]
fn an_encrypted_hello_is_seen_and_an_inner_one_refused() {
    let check = |data: &[u8], expected| {
        let name = (0, names(&["front.example"]));
        let bytes = with_extensions(&[name, (0xfe0d, data.to_vec())]);
        assert_eq!(peek(&bytes), expected, "{data:?}");
    };
    let broken = Peek::Malformed("the Encrypted Client Hello is malformed");
    let length = Peek::Malformed("a length in it is wrong");
    let inner = Peek::Malformed("an inner ClientHello was sent unencrypted");
    check(&[0, 0, 1, 0, 1, 7, 0, 1, 9, 0, 1, 9], hello("front.example", true));
    check(&[0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9], hello("front.example", true));
    check(&[0, 0, 1, 0, 1, 7, 0, 0, 0, 0], broken.clone());
    check(&[0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9, 9], length.clone());
    check(&[0, 0, 1, 0, 1], length.clone());
    check(&[0], length.clone());
    check(&[], length);
    check(&[1], inner.clone());
    check(&[1, 0], inner);
    check(&[2], broken);
}

#[test]
fn no_changed_byte_lets_rustls_read_another_name() {
    let bytes = &CAPTURED.iter().find(|c| c.client == "openssl-tls-1.2").unwrap().bytes;
    let mut agreed = 0;
    for at in 0..bytes.len() {
        for byte in 0..=255 {
            let mut changed = bytes.clone();
            changed[at] = byte;
            let (Peek::Hello(hello), Some(name)) = (peek(&changed), name_for_rustls(&changed))
            else {
                continue;
            };
            let name = name.map(|name| name.to_ascii_lowercase());
            assert_eq!(hello.server_name, name, "{at} {byte}");
            agreed += 1;
        }
    }
    assert!(agreed > 10_000, "{agreed}");
}

fn good() -> impl Strategy<Value = Vec<u8>> {
    any::<Index>().prop_map(|index| index.get(&CAPTURED).bytes.clone())
}

/// A change at one place: another byte, a byte less, a byte more.
fn change(bytes: &mut Vec<u8>, (at, byte, kind): (Index, u8, u8)) {
    let at = at.index(bytes.len());
    match kind {
        0 => bytes.insert(at, byte),
        1 if bytes.len() > 1 => drop(bytes.remove(at)),
        _ => bytes[at] = byte,
    }
}

proptest! {
    #[test]
    fn no_input_panics(bytes in vec(any::<u8>(), 0..600)) {
        let _ = peek(&bytes);
        let _ = peek(&record(HANDSHAKE, &bytes));
        let _ = peek(&record(HANDSHAKE, &handshake(&bytes)));
        let _ = peek(&record(HANDSHAKE, &handshake(&[FIXED.concat(), bytes].concat())));
    }

    #[test]
    fn a_changed_hello_never_panics_and_names_what_rustls_would_read(
        mut bytes in good(),
        changes in vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..4),
        size in 1..700_usize,
        inside in any::<bool>(),
    ) {
        changes.into_iter().for_each(|one| change(&mut bytes, one));
        // The outer lengths are right again, so that what is inside is read.
        if inside && bytes.len() > 9 {
            bytes = split(&handshake(&bytes[9..]), size);
        }
        if let (Peek::Hello(hello), Some(name)) = (peek(&bytes), name_for_rustls(&bytes)) {
            prop_assert_eq!(hello.server_name, name.map(|name| name.to_ascii_lowercase()));
        }
    }

    #[test]
    fn a_verdict_on_the_first_bytes_is_final(
        mut bytes in good(),
        changed in (any::<Index>(), any::<u8>(), 0..4_u8),
        size in 1..700_usize,
        cut in any::<Index>(),
    ) {
        bytes = split(&bytes[5..], size);
        change(&mut bytes, changed);
        let first_bytes = peek(&bytes[..cut.index(bytes.len())]);
        prop_assert!(first_bytes == Peek::More || first_bytes == peek(&bytes));
    }
}
