//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): a load balancer's header about
//! its client.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The content of a PROXY protocol header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The client's address.
    Client(SocketAddr),
    /// Nothing: it speaks for itself (`UNKNOWN`, `LOCAL`), as to see whether we are well.
    Local,
}

/// Why there is no such header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection does not begin with a header.
    Missing,
    /// It is broken.
    Malformed(&'static str),
    /// The client has disconnected.
    Closed,
}

/// The sentence about a header where none is expected.
pub(super) const UNEXPECTED: &str = "this begins with a PROXY protocol header: write `proxy_protocol` on the listener and name the load balancers";
/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const WORD: &[u8; 6] = b"PROXY ";
/// A line of version 1 has no more bytes, its end included.
const LINE_MAX: usize = 107;
/// As nginx has it: what follows the head of version 2 has no more bytes.
const REST_MAX: usize = 4096;

/// Whether bytes begin like a header. Version 2 takes twelve to recognize.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(WORD) || bytes.starts_with(SIGNATURE)
}

/// Reads a header, and not a byte after it.
///
/// # Errors
/// If there is none, or it is malformed.
pub(super) async fn read<R: AsyncRead + Unpin>(from: &mut R) -> Result<Header, Fault> {
    let mut start = [0; 12];
    let mut came = 0;
    // Anything else may be shorter, so do not wait for more.
    while came < start.len() {
        let count = from.read(&mut start[came..]).await.map_err(|_| Fault::Closed)?;
        if count == 0 {
            return Err(if came == 0 { Fault::Closed } else { Fault::Missing });
        }
        came += count;
        let (word, signature) = (came.min(WORD.len()), came.min(SIGNATURE.len()));
        if start[..word] != WORD[..word] && start[..signature] != SIGNATURE[..signature] {
            return Err(Fault::Missing);
        }
    }
    if start == *SIGNATURE { version_2(from).await } else { version_1(from, &start).await }
}

/// Of version 1, with its first bytes.
async fn version_1<R: AsyncRead + Unpin>(from: &mut R, start: &[u8]) -> Result<Header, Fault> {
    let mut line = Vec::with_capacity(LINE_MAX);
    line.extend_from_slice(start);
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_MAX {
            return Err(Fault::Malformed("its line is too long"));
        }
        line.push(from.read_u8().await.map_err(|_| Fault::Closed)?);
    }
    let wrong = Err(Fault::Malformed("its line is not `PROXY TCP4 from to port port`"));
    let line = &line[..line.len() - 2];
    let Ok(line) = std::str::from_utf8(line) else { return wrong };
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Header::Local);
    }
    let words: Vec<&str> = words.collect();
    let [source, destination, port, other] = words[..] else { return wrong };
    let header = match family {
        Some("TCP4") => both::<std::net::Ipv4Addr>(source, destination),
        Some("TCP6") => both::<std::net::Ipv6Addr>(source, destination),
        _ => None,
    };
    match (header, number(port), number(other)) {
        (Some(ip), Some(port), Some(_)) => Ok(Header::Client(SocketAddr::new(ip, port))),
        _ => wrong,
    }
}

/// The source, if both are addresses of this kind.
fn both<A: FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Option<IpAddr> {
    destination.parse::<A>().ok()?;
    source.parse::<A>().ok().map(Into::into)
}

/// A port in plain digits.
fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Of version 2, after its signature.
async fn version_2<R: AsyncRead + Unpin>(from: &mut R) -> Result<Header, Fault> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await.map_err(|_| Fault::Closed)?;
    let [version, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_MAX {
        return Err(Fault::Malformed("it is longer than 4096 bytes"));
    }
    let mut rest = vec![0; length];
    from.read_exact(&mut rest).await.map_err(|_| Fault::Closed)?;
    // The family determines the length of the addresses; after them come TLVs.
    let addresses = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Err(Fault::Malformed("its address family is unknown")),
    };
    let Some((addresses, more)) = rest.split_at_checked(addresses) else {
        return Err(Fault::Malformed("it ends before its addresses do"));
    };
    checked(&head, addresses, more)?;
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let part = |length: usize| &addresses[..length];
    match (version, family) {
        // A connection of the load balancer itself.
        (0x20, _) => Ok(Header::Local),
        // A client without an internet address.
        (0x21, 0x00 | 0x31) => Ok(Header::Local),
        (0x21, 0x11) => {
            let ip: [u8; 4] = part(4).try_into().expect("four bytes are four");
            Ok(Header::Client(SocketAddr::new(ip.into(), port(8))))
        }
        (0x21, 0x21) => {
            let ip: [u8; 16] = part(16).try_into().expect("sixteen bytes are sixteen");
            Ok(Header::Client(SocketAddr::new(ip.into(), port(32))))
        }
        (0x21, _) => Err(Fault::Malformed("it is not for a stream")),
        _ => Err(Fault::Malformed("its version or command is unknown")),
    }
}

/// Checks the TLVs after the addresses, to the last byte. A checksum must be right.
fn checked(head: &[u8; 4], addresses: &[u8], more: &[u8]) -> Result<(), Fault> {
    const CRC32C: u8 = 0x03;
    let mut rest = more;
    while !rest.is_empty() {
        let [kind, high, low, value @ ..] = rest else {
            return Err(Fault::Malformed("one of its parts is truncated"));
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, after)) = value.split_at_checked(length) else {
            return Err(Fault::Malformed("one of its parts is truncated"));
        };
        if *kind == CRC32C {
            let wrong = Fault::Malformed("its checksum is wrong");
            let Ok(stated) = <[u8; 4]>::try_from(value) else { return Err(wrong) };
            // It is computed with zeros in its own place.
            let at = more.len() - after.len() - value.len();
            let mut zeroed = more.to_vec();
            zeroed[at..at + 4].fill(0);
            let all = [SIGNATURE.as_slice(), head, addresses, &zeroed];
            if crc32c(all.into_iter().flatten()) != u32::from_be_bytes(stated) {
                return Err(wrong);
            }
        }
        rest = after;
    }
    Ok(())
}

/// RFC 3720 appendix B.4.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    !bytes.fold(!0, |sum, byte| TABLE[usize::from((sum as u8) ^ byte)] ^ (sum >> 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is parsed of these bytes, and how many are left.
    async fn of(bytes: &[u8]) -> (Result<Header, Fault>, usize) {
        let mut rest = bytes;
        let header = read(&mut rest).await;
        (header, rest.len())
    }

    fn client(text: &str) -> Result<Header, Fault> {
        Ok(Header::Client(text.parse().unwrap()))
    }

    #[tokio::test]
    async fn version_1_is_one_line() {
        let check = async |line: &str, expected: Result<Header, Fault>| {
            let bytes = format!("{line}\r\nGET /");
            let (header, left) = of(bytes.as_bytes()).await;
            assert_eq!(header, expected, "{line}");
            if header.is_ok() {
                assert_eq!(left, 5, "{line}");
            }
        };
        check("PROXY TCP4 203.0.113.7 10.0.0.1 51111 443", client("203.0.113.7:51111")).await;
        check("PROXY TCP6 2001:db8::7 ::1 1 65535", client("[2001:db8::7]:1")).await;
        check("PROXY UNKNOWN", Ok(Header::Local)).await;
        check("PROXY UNKNOWN ffff::1 a b c", Ok(Header::Local)).await;
        let wrong = || Err(Fault::Malformed("its line is not `PROXY TCP4 from to port port`"));
        for line in [
            "PROXY TCP4 203.0.113.7 10.0.0.1 51111",
            "PROXY TCP4 203.0.113.7 10.0.0.1 51111 443 1",
            "PROXY TCP4  203.0.113.7 10.0.0.1 51111 443",
            "PROXY TCP4 203.0.113.7 10.0.0.1 51111 443 ",
            "PROXY TCP4 203.0.113.07 10.0.0.1 51111 443",
            "PROXY TCP4 203.0.113.7 10.0.0.1 051 443",
            "PROXY TCP4 203.0.113.7 10.0.0.1 65536 443",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +1 443",
            "PROXY TCP4 203.0.113.7 ::1 1 443",
            "PROXY TCP4 2001:db8::7 ::1 1 443",
            "PROXY TCP6 203.0.113.7 10.0.0.1 1 443",
            "PROXY UDP4 203.0.113.7 10.0.0.1 1 443",
            "PROXY TCP4 localhost 10.0.0.1 1 443",
            "PROXY tcp4 203.0.113.7 10.0.0.1 1 443",
            "PROXY TCP4 203.0.113.7\t10.0.0.1 1 443",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 443\nPROXY",
        ] {
            check(line, wrong()).await;
        }
        let long = format!("PROXY UNKNOWN {}", "a".repeat(10_000));
        check(&long, Err(Fault::Malformed("its line is too long"))).await;
        let longest = format!("PROXY UNKNOWN {}", "a".repeat(LINE_MAX - 16));
        check(&longest, Ok(Header::Local)).await;
        for other in ["GET / HTTP/1.1", "PROX", "PROXYTCP4", "proxy TCP4 a", "\r\nGET /", ""] {
            check(other, Err(Fault::Missing)).await;
        }
        assert_eq!(of(b"").await.0, Err(Fault::Closed));
        assert_eq!(of(b"PROXY TCP4 203.0").await.0, Err(Fault::Closed));
        assert_eq!(of(b"\x16\x03\x01\x02\x00").await.0, Err(Fault::Missing));
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn version_2_is_as_long_as_its_length() {
        let check = async |header: Vec<u8>, expected: Result<Header, Fault>| {
            let bytes = [&header, b"GET /".as_slice()].concat();
            let (header, left) = of(&bytes).await;
            assert_eq!(header, expected, "{header:?}");
            if header.is_ok() {
                assert_eq!(left, 5);
            }
        };
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0xc7, 0xa7, 0x01, 0xbb];
        check(v2(0x21, 0x11, &v4), client("203.0.113.7:51111")).await;
        let mut v6 = vec![0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 0x01, 7, 9);
        check(v2(0x21, 0x21, &v6), client("[2001::7]:9")).await;
        check(v2(0x20, 0x00, &[]), Ok(Header::Local)).await;
        check(v2(0x20, 0x11, &v4), Ok(Header::Local)).await;
        check(v2(0x21, 0x00, &[]), Ok(Header::Local)).await;
        check(v2(0x21, 0x31, &[0; 216]), Ok(Header::Local)).await;
        let parts = [&v4[..], &[0x04, 0, 3, 1, 2, 3, 0xea, 0, 0]].concat();
        check(v2(0x21, 0x11, &parts), client("203.0.113.7:51111")).await;

        let malformed = |why| Err(Fault::Malformed(why));
        check(v2(0x21, 0x11, &v4[..11]), malformed("it ends before its addresses do")).await;
        check(v2(0x21, 0x21, &v4), malformed("it ends before its addresses do")).await;
        check(v2(0x21, 0x12, &v4), malformed("it is not for a stream")).await;
        check(v2(0x21, 0x41, &v4), malformed("its address family is unknown")).await;
        check(v2(0x11, 0x11, &v4), malformed("its version or command is unknown")).await;
        check(v2(0x22, 0x11, &v4), malformed("its version or command is unknown")).await;
        let early = [&v4[..], &[0x04, 0, 4, 1, 2, 3]].concat();
        check(v2(0x21, 0x11, &early), malformed("one of its parts is truncated")).await;
        check(
            v2(0x21, 0x11, &[&v4[..], &[4]].concat()),
            malformed("one of its parts is truncated"),
        )
        .await;
        check(v2(0x21, 0x11, &[0; 4097]), malformed("it is longer than 4096 bytes")).await;
        let longest = [SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat();
        check(longest, malformed("it is longer than 4096 bytes")).await;
        assert_eq!(of(&v2(0x21, 0x11, &v4)[..20]).await.0, Err(Fault::Closed));
    }

    #[tokio::test]
    async fn a_checksum_must_be_right() {
        assert_eq!(crc32c([0; 32].iter()), 0x8a91_36aa, "RFC 3720 B.4");
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0xc7, 0xa7, 0x01, 0xbb];
        let bare = [&v4[..], &[0x04, 0, 1, 9, 0x03, 0, 4, 0, 0, 0, 0, 0x04, 0, 0]].concat();
        let sum = crc32c(v2(0x21, 0x11, &bare).iter()).to_be_bytes();
        let mut right = bare.clone();
        right[19..23].copy_from_slice(&sum);
        assert_eq!(of(&v2(0x21, 0x11, &right)).await.0, client("203.0.113.7:51111"));
        let wrong = Err(Fault::Malformed("its checksum is wrong"));
        assert_eq!(of(&v2(0x21, 0x11, &bare)).await.0, wrong);
        right[0] ^= 1;
        assert_eq!(of(&v2(0x21, 0x11, &right)).await.0, wrong);
        let short = [&v4[..], &[0x03, 0, 1, 0]].concat();
        assert_eq!(of(&v2(0x21, 0x11, &short)).await.0, wrong);
    }

    proptest! {
        #[test]
        fn no_input_panics(
            start in proptest::sample::select(vec![&b"PROXY "[..], &SIGNATURE[..], b""]),
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let bytes = [start, &rest].concat();
            let _ = runtime.block_on(of(&bytes));
        }
    }
}
