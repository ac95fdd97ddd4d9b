//! The real client address, behind proxies that the operator trusts.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;
use smallvec::SmallVec;

/// The address of the client: if our peer is a trusted proxy, the last hop in `X-Forwarded-For` that is not
/// one; else our peer. What an untrusted client writes there never counts.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| self::is_trusted(*ip, trusted);
    let peer = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(&peer) {
        return peer;
    }
    let mut nearest = peer;
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for line in lines.iter().rev() {
        let Ok(text) = line.to_str() else { return nearest };
        for hop in text.rsplit(',') {
            // Anything but an address comes from an unknown source: stop at the last known hop.
            let Some(hop) = parse(hop.trim()) else { return nearest };
            nearest = hop;
            if !is_trusted(&hop) {
                return nearest;
            }
        }
    }
    nearest
}

/// Whether this is the address of a trusted proxy.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// An address as text. By hand, because it is written several times for each request.
pub fn text(ip: IpAddr) -> SmallVec<[u8; 48]> {
    let mut text = SmallVec::new();
    match ip {
        IpAddr::V4(ip) => {
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    text.push(b'.');
                }
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(ip) => text.extend_from_slice(ip.to_string().as_bytes()),
    }
    text
}

/// The network of one client: an IPv4 address, or an IPv6 /64.
pub fn network(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|h| h.split_once(']')).map_or(hop, |(h, _)| h);
    let parsed: Option<IpAddr> = bare.parse().ok();
    parsed
        .or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_always_does() {
        for ip in ["127.0.0.1", "255.255.255.255", "0.10.200.7", "2001:db8::1", "::ffff:1.2.3.4"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(text(ip).to_vec(), ip.to_string().into_bytes());
        }
    }

    #[test]
    fn only_a_trusted_proxy_can_name_the_client() {
        let check = |peer: &str, forwarded: &[&str], expected: &str| {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
            let found = address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        };
        check("198.51.100.7", &["1.2.3.4"], "198.51.100.7");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.7"], "198.51.100.7");
        check("10.0.0.1", &["1.2.3.4, 198.51.100.7, 10.0.0.2"], "198.51.100.7");
        check("10.0.0.1", &["1.2.3.4", "198.51.100.7"], "198.51.100.7");
        check("10.0.0.1", &["1.2.3.4, nonsense, 10.0.0.2"], "10.0.0.2");
        check("::ffff:10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7");
        check("fd00::1", &["[2001:db8::7]:443"], "2001:db8::7");
    }

    #[test]
    fn an_ipv6_client_cannot_be_many_by_changing_its_lower_half() {
        let net = |ip: &str| network(ip.parse().unwrap());
        assert_eq!(net("2001:db8:1:2::1"), net("2001:db8:1:2:ffff::9"));
        assert_ne!(net("2001:db8:1:2::1"), net("2001:db8:1:3::1"));
        assert_ne!(net("192.0.2.1"), net("192.0.2.2"));
        assert_eq!(net("::ffff:192.0.2.1"), net("192.0.2.1"));
    }
}
