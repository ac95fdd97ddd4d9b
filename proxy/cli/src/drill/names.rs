//! A name server for the copy: every name resolves to loopback, until its answers are poisoned.

use std::net::Ipv4Addr;

use tokio::{net::UdpSocket, sync::watch};

/// Where every stand-in is.
pub(super) const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

/// Answers queries for IPv4 addresses with `addresses`, and all others with nothing.
pub(super) async fn serve(socket: UdpSocket, addresses: watch::Receiver<Vec<Ipv4Addr>>) {
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = answer(&buffer[..length], &addresses.borrow());
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a query (RFC 1035 4.1); `None` if it is not a query.
fn answer(asked: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let mut at = HEADER;
    loop {
        match *asked.get(at)? {
            0 => break,
            length => at += usize::from(length) + 1,
        }
    }
    let kind = asked.get(at + 1..at + 3)?;
    let question = asked.get(HEADER..at + 5)?;
    let found = if kind == TYPE_A { addresses } else { &[] };
    let count = u8::try_from(found.len()).ok()?;
    let mut answer = asked[..2].to_vec();
    // An answer, with recursion; one question, and no other sections.
    answer.extend([0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    for address in found {
        // The name of the question; class IN; good for no second.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x07example\x00";

    #[test]
    fn a_name_has_the_addresses_that_it_is_given() {
        let ask = |kind: &[u8]| answer(&[ASKED, kind, b"\x00\x01"].concat(), &[HOME, HOME]);
        let found = ask(b"\x00\x01").unwrap();
        assert_eq!((found[0], found[1], found[7]), (0x12, 0x34, 2));
        assert!(found.ends_with(&[0, 4, 127, 0, 0, 1]));
        assert_eq!(ask(b"\x00\x1c").unwrap()[7], 0, "it has no IPv6 address");
    }

    #[test]
    fn only_a_query_gets_an_answer() {
        assert_eq!(answer(b"", &[HOME]), None);
        assert_eq!(answer(ASKED, &[HOME]), None);
        assert_eq!(answer(&[0xff; 40], &[HOME]), None);
    }
}
