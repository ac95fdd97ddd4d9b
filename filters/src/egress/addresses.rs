//! Which kind of network an address belongs to.
//!
//! An allowed name can resolve to anything: to the metadata service that hands out cloud credentials, or to
//! the database next door. So the address decides as well, and an IPv6 address that is not known to be
//! public counts as private (RFC 6890, and both IANA special-purpose address registries).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The kind of network that an address belongs to.
///
/// An IPv6 address that embeds an IPv4 address is of the embedding's class, whatever is inside: no public
/// service is reached that way. An address for a translator with its own prefix (NAT64, 6rd) cannot be
/// recognized; only its operator knows the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// The Internet.
    Public,
    /// This machine's own, or one of the operator's `own_addresses`, whatever its network.
    Own,
    /// No address; a socket that dials it reaches its own host.
    Unspecified,
    /// "This network", which some hosts treat as themselves.
    ThisNetwork,
    /// The host itself.
    Loopback,
    /// A private network (RFC 1918).
    Private,
    /// Between a provider and its customers (RFC 6598); clouds number pods and nodes from it.
    SharedNat,
    /// The same link.
    LinkLocal,
    /// A cloud's metadata service, which hands out the machine's credentials.
    Metadata,
    /// A group of hosts.
    Multicast,
    /// Every host on the link.
    Broadcast,
    /// Documentation.
    Documentation,
    /// Benchmarks of network devices.
    Benchmarking,
    /// The nearest provider of a network service (PCP, TURN, AS112, AMT): often the own router.
    Anycast,
    /// The name of a host or a drone in the form of an address (ORCHID, DRIP).
    Identifier,
    /// A step in the routing inside an operator's network (SRv6).
    SegmentRouting,
    /// Discarded by routers.
    Discard,
    /// Set aside, or not assigned to anyone.
    Reserved,
    /// A private network (RFC 4193).
    UniqueLocal,
    /// A deprecated private network (RFC 3879).
    SiteLocal,
    /// An IPv4 address written as IPv6: mapped, compatible or translated.
    V4InV6,
    /// An IPv4 address behind a translator (RFC 6052, RFC 8215).
    Nat64,
    /// An IPv4 address at the end of a tunnel (RFC 3056), or a relay to one.
    SixToFour,
    /// An IPv4 address at the end of a tunnel (RFC 4380).
    Teredo,
    /// An IPv4 address at the end of a tunnel (RFC 5214).
    Isatap,
}

impl AddressClass {
    /// The class of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => {
                let found = NETWORKS_V4.iter().find(|(network, _)| network.contains(&ip));
                found.map_or(Self::Public, |(_, class)| *class)
            }
            IpAddr::V6(ip) => {
                let found = NETWORKS_V6.iter().find(|(network, _)| network.contains(&ip));
                match found.map_or(Self::Reserved, |(_, class)| *class) {
                    Self::Public if is_isatap(ip) => Self::Isatap,
                    class => class,
                }
            }
        }
    }

    /// The class in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Own => "own",
            Self::Unspecified => "unspecified",
            Self::ThisNetwork => "this_network",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedNat => "shared_nat",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Anycast => "anycast",
            Self::Identifier => "identifier",
            Self::SegmentRouting => "segment_routing",
            Self::Discard => "discard",
            Self::Reserved => "reserved",
            Self::UniqueLocal => "unique_local",
            Self::SiteLocal => "site_local",
            Self::V4InV6 => "v4_in_v6",
            Self::Nat64 => "nat64",
            Self::SixToFour => "six_to_four",
            Self::Teredo => "teredo",
            Self::Isatap => "isatap",
        }
    }

    /// Whether anyone on the Internet could have this address.
    pub fn is_public(self) -> bool {
        self == Self::Public
    }
}

/// The networks of IPv4 that are not public. The first match counts, so narrow ones precede wide ones.
const NETWORKS_V4: &[(Ipv4Net, AddressClass)] = {
    use AddressClass::*;
    &[
        (v4([0, 0, 0, 0], 32), Unspecified),
        (v4([255, 255, 255, 255], 32), Broadcast),
        (v4([169, 254, 169, 254], 32), Metadata), // AWS, Azure, Google, Oracle, OpenStack, ...
        (v4([169, 254, 170, 2], 32), Metadata),   // AWS: tasks on ECS
        (v4([169, 254, 170, 23], 32), Metadata),  // AWS: pods on EKS
        (v4([169, 254, 42, 42], 32), Metadata),   // Scaleway
        (v4([169, 254, 0, 23], 32), Metadata),    // Tencent
        (v4([168, 63, 129, 16], 32), Metadata),   // Azure: the wire server, among public addresses
        (v4([100, 100, 100, 200], 32), Metadata), // Alibaba
        (v4([192, 0, 0, 192], 32), Metadata),     // Oracle Classic
        (v4([192, 0, 0, 9], 32), Anycast),        // PCP
        (v4([192, 0, 0, 10], 32), Anycast),       // TURN
        (v4([192, 0, 0, 0], 24), Reserved),       // protocols of the IETF: DS-Lite, DNS64, dummy
        (v4([192, 0, 2, 0], 24), Documentation),
        (v4([198, 51, 100, 0], 24), Documentation),
        (v4([203, 0, 113, 0], 24), Documentation),
        (v4([192, 31, 196, 0], 24), Anycast), // AS112
        (v4([192, 175, 48, 0], 24), Anycast), // AS112, delegated directly
        (v4([192, 52, 193, 0], 24), Anycast), // AMT
        (v4([192, 88, 99, 0], 24), SixToFour),
        (v4([192, 168, 0, 0], 16), Private),
        (v4([169, 254, 0, 0], 16), LinkLocal),
        (v4([198, 18, 0, 0], 15), Benchmarking),
        (v4([172, 16, 0, 0], 12), Private),
        (v4([100, 64, 0, 0], 10), SharedNat),
        (v4([0, 0, 0, 0], 8), ThisNetwork),
        (v4([10, 0, 0, 0], 8), Private),
        (v4([127, 0, 0, 0], 8), Loopback),
        (v4([224, 0, 0, 0], 4), Multicast),
        (v4([240, 0, 0, 0], 4), Reserved),
    ]
};

/// The known networks of IPv6, narrow ones first. Anything else is reserved.
const NETWORKS_V6: &[(Ipv6Net, AddressClass)] = {
    use AddressClass::*;
    &[
        (v6(&[], 128), Unspecified),
        (v6(&[0, 0, 0, 0, 0, 0, 0, 1], 128), Loopback),
        (v6(&[0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), Metadata), // AWS
        (v6(&[0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), Metadata),  // AWS: pods on EKS
        (v6(&[0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), Metadata),  // Google
        (v6(&[0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), Metadata),   // Scaleway
        (v6(&[0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), Metadata), // OpenStack
        (v6(&[0x2001, 1, 0, 0, 0, 0, 0, 1], 128), Anycast),          // PCP
        (v6(&[0x2001, 1, 0, 0, 0, 0, 0, 2], 128), Anycast),          // TURN
        (v6(&[0x2001, 1, 0, 0, 0, 0, 0, 3], 128), Anycast),          // DNS-SD registration
        (v6(&[], 96), V4InV6),                                       // compatible
        (v6(&[0, 0, 0, 0, 0, 0xffff], 96), V4InV6),                  // mapped
        (v6(&[0, 0, 0, 0, 0xffff], 96), V4InV6),                     // translated
        (v6(&[0x64, 0xff9b], 96), Nat64),
        (v6(&[0x100], 64), Discard),
        (v6(&[0x100, 0, 0, 1], 64), Discard), // the dummy prefix
        (v6(&[0x64, 0xff9b, 1], 48), Nat64),
        (v6(&[0x2001, 2], 48), Benchmarking),
        (v6(&[0x2001, 4, 0x112], 48), Anycast),     // AS112
        (v6(&[0x2620, 0x4f, 0x8000], 48), Anycast), // AS112, delegated directly
        (v6(&[0x2001], 32), Teredo),
        (v6(&[0x2001, 3], 32), Anycast), // AMT
        (v6(&[0x2001, 0xdb8], 32), Documentation),
        (v6(&[0x2001, 0x10], 28), Identifier), // ORCHID
        (v6(&[0x2001, 0x20], 28), Identifier), // ORCHIDv2
        (v6(&[0x2001, 0x30], 28), Identifier), // DRIP: remote ids of drones
        (v6(&[0x2001], 23), Reserved),         // protocols of the IETF
        (v6(&[0x3fff], 20), Documentation),
        (v6(&[0x2002], 16), SixToFour),
        (v6(&[0x3ffe], 16), Reserved), // the 6bone, given back
        (v6(&[0x5f00], 16), SegmentRouting),
        (v6(&[0xfe80], 10), LinkLocal),
        (v6(&[0xfec0], 10), SiteLocal),
        (v6(&[0xff00], 8), Multicast),
        (v6(&[0xfc00], 7), UniqueLocal),
        (v6(&[0x2000], 3), Public),
    ]
};

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Omitted segments are zero.
const fn v6(segments: &[u16], prefix: u8) -> Ipv6Net {
    let mut bits = 0;
    let mut at = 0;
    while at < segments.len() {
        bits |= (segments[at] as u128) << (112 - 16 * at);
        at += 1;
    }
    Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), prefix)
}

/// Whether the lower half says that an IPv4 address follows, under any prefix (RFC 5214 6.1). The
/// bits for "universal" and "group" may be set or not.
fn is_isatap(ip: Ipv6Addr) -> bool {
    let [_, _, _, _, marks, tag, _, _] = ip.segments();
    marks & !0x0300 == 0 && tag == 0x5efe
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::{AddressClass::*, *};

    fn class(ip: &str) -> AddressClass {
        AddressClass::of(ip.parse().unwrap())
    }

    /// The neighbour of an address; the first and the last address are neighbours.
    fn neighbour(ip: IpAddr, step: i32) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add_signed(step)).into(),
            IpAddr::V6(ip) => {
                Ipv6Addr::from_bits(ip.to_bits().wrapping_add_signed(step.into())).into()
            }
        }
    }

    #[test]
    fn every_network_has_the_bounds_of_its_registry() {
        let mut checked = HashSet::new();
        // Of each: the address before it, its first, its last, and the address after it.
        let mut check = |network: &str, expected: [AddressClass; 4]| {
            let net: IpNet = network.parse().unwrap();
            let (first, last) = (net.network(), net.broadcast());
            let found = [neighbour(first, -1), first, last, neighbour(last, 1)];
            assert_eq!(found.map(AddressClass::of), expected, "{network}");
            checked.insert(net);
        };

        check("0.0.0.0/8", [Broadcast, Unspecified, ThisNetwork, Public]);
        check("0.0.0.0/32", [Broadcast, Unspecified, Unspecified, ThisNetwork]);
        check("10.0.0.0/8", [Public, Private, Private, Public]);
        check("100.64.0.0/10", [Public, SharedNat, SharedNat, Public]);
        check("100.100.100.200/32", [SharedNat, Metadata, Metadata, SharedNat]);
        check("127.0.0.0/8", [Public, Loopback, Loopback, Public]);
        check("168.63.129.16/32", [Public, Metadata, Metadata, Public]);
        check("169.254.0.0/16", [Public, LinkLocal, LinkLocal, Public]);
        check("169.254.0.23/32", [LinkLocal, Metadata, Metadata, LinkLocal]);
        check("169.254.42.42/32", [LinkLocal, Metadata, Metadata, LinkLocal]);
        check("169.254.169.254/32", [LinkLocal, Metadata, Metadata, LinkLocal]);
        check("169.254.170.2/32", [LinkLocal, Metadata, Metadata, LinkLocal]);
        check("169.254.170.23/32", [LinkLocal, Metadata, Metadata, LinkLocal]);
        check("172.16.0.0/12", [Public, Private, Private, Public]);
        check("192.0.0.0/24", [Public, Reserved, Reserved, Public]);
        check("192.0.0.0/29", [Public, Reserved, Reserved, Reserved]);
        check("192.0.0.8/32", [Reserved, Reserved, Reserved, Anycast]);
        check("192.0.0.9/32", [Reserved, Anycast, Anycast, Anycast]);
        check("192.0.0.10/32", [Anycast, Anycast, Anycast, Reserved]);
        check("192.0.0.170/31", [Reserved, Reserved, Reserved, Reserved]);
        check("192.0.0.192/32", [Reserved, Metadata, Metadata, Reserved]);
        check("192.0.2.0/24", [Public, Documentation, Documentation, Public]);
        check("192.31.196.0/24", [Public, Anycast, Anycast, Public]);
        check("192.52.193.0/24", [Public, Anycast, Anycast, Public]);
        check("192.88.99.0/24", [Public, SixToFour, SixToFour, Public]);
        check("192.88.99.2/32", [SixToFour, SixToFour, SixToFour, SixToFour]);
        check("192.168.0.0/16", [Public, Private, Private, Public]);
        check("192.175.48.0/24", [Public, Anycast, Anycast, Public]);
        check("198.18.0.0/15", [Public, Benchmarking, Benchmarking, Public]);
        check("198.51.100.0/24", [Public, Documentation, Documentation, Public]);
        check("203.0.113.0/24", [Public, Documentation, Documentation, Public]);
        check("224.0.0.0/4", [Public, Multicast, Multicast, Reserved]);
        check("240.0.0.0/4", [Multicast, Reserved, Broadcast, Unspecified]);
        check("255.255.255.255/32", [Reserved, Broadcast, Broadcast, Unspecified]);

        check("::/96", [Multicast, Unspecified, V4InV6, Reserved]);
        check("::/128", [Multicast, Unspecified, Unspecified, Loopback]);
        check("::1/128", [Unspecified, Loopback, Loopback, V4InV6]);
        check("::ffff:0:0/96", [Reserved, V4InV6, V4InV6, Reserved]);
        check("::ffff:0:0:0/96", [Reserved, V4InV6, V4InV6, Reserved]);
        check("64:ff9b::/96", [Reserved, Nat64, Nat64, Reserved]);
        check("64:ff9b:1::/48", [Reserved, Nat64, Nat64, Reserved]);
        check("100::/64", [Reserved, Discard, Discard, Discard]);
        check("100:0:0:1::/64", [Discard, Discard, Discard, Reserved]);
        check("2000::/3", [Reserved, Public, Public, Reserved]);
        check("2001::/23", [Public, Teredo, Reserved, Public]);
        check("2001::/32", [Public, Teredo, Teredo, Reserved]);
        check("2001:1::1/128", [Reserved, Anycast, Anycast, Anycast]);
        check("2001:1::2/128", [Anycast, Anycast, Anycast, Anycast]);
        check("2001:1::3/128", [Anycast, Anycast, Anycast, Reserved]);
        check("2001:2::/48", [Reserved, Benchmarking, Benchmarking, Reserved]);
        check("2001:3::/32", [Reserved, Anycast, Anycast, Reserved]);
        check("2001:4:112::/48", [Reserved, Anycast, Anycast, Reserved]);
        check("2001:10::/28", [Reserved, Identifier, Identifier, Identifier]);
        check("2001:20::/28", [Identifier, Identifier, Identifier, Identifier]);
        check("2001:30::/28", [Identifier, Identifier, Identifier, Reserved]);
        check("2001:db8::/32", [Public, Documentation, Documentation, Public]);
        check("2002::/16", [Public, SixToFour, SixToFour, Public]);
        check("2620:4f:8000::/48", [Public, Anycast, Anycast, Public]);
        check("3ffe::/16", [Public, Reserved, Reserved, Documentation]);
        check("3fff::/20", [Reserved, Documentation, Documentation, Public]);
        check("5f00::/16", [Reserved, SegmentRouting, SegmentRouting, Reserved]);
        check("fc00::/7", [Reserved, UniqueLocal, UniqueLocal, Reserved]);
        check("fd00:42::42/128", [UniqueLocal, Metadata, Metadata, UniqueLocal]);
        check("fd00:ec2::23/128", [UniqueLocal, Metadata, Metadata, UniqueLocal]);
        check("fd00:ec2::254/128", [UniqueLocal, Metadata, Metadata, UniqueLocal]);
        check("fd20:ce::254/128", [UniqueLocal, Metadata, Metadata, UniqueLocal]);
        check("fe80::/10", [Reserved, LinkLocal, LinkLocal, SiteLocal]);
        check("fe80::a9fe:a9fe/128", [LinkLocal, Metadata, Metadata, LinkLocal]);
        check("fec0::/10", [LinkLocal, SiteLocal, SiteLocal, Multicast]);
        check("ff00::/8", [SiteLocal, Multicast, Multicast, Unspecified]);

        let v4 = NETWORKS_V4.iter().map(|(net, _)| IpNet::V4(*net));
        let v6 = NETWORKS_V6.iter().map(|(net, _)| IpNet::V6(*net));
        for net in v4.chain(v6) {
            assert!(checked.contains(&net), "{net} is checked above, and has no host bits");
        }
    }

    #[test]
    fn no_network_is_listed_after_a_wider_one() {
        assert!(NETWORKS_V4.is_sorted_by_key(|(net, _)| 32 - net.prefix_len()));
        assert!(NETWORKS_V6.is_sorted_by_key(|(net, _)| 128 - net.prefix_len()));
    }

    #[test]
    fn what_serves_the_public_is_public() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "140.82.121.4",
            "192.0.1.1",
            "192.1.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2a01:4f8::1",
        ] {
            assert!(class(ip).is_public(), "{ip}");
        }
    }

    #[test]
    fn a_tunnel_is_known_by_its_lower_half() {
        let check = |ip: &str, expected| assert_eq!(class(ip), expected, "{ip}");
        check("2a01:4f8::5efe:10.0.0.1", Isatap);
        check("2a01:4f8::200:5efe:10.0.0.1", Isatap);
        check("2a01:4f8::300:5efe:8.8.8.8", Isatap);
        check("2a01:4f8::400:5efe:10.0.0.1", Public);
        check("2a01:4f8::5eff:10.0.0.1", Public);
        check("2a01:4f8:0:5efe::1", Public);
        check("fe80::5efe:10.0.0.1", LinkLocal);
    }

    #[test]
    fn a_name_belongs_to_one_class() {
        let v4 = NETWORKS_V4.iter().map(|(_, class)| *class);
        let v6 = NETWORKS_V6.iter().map(|(_, class)| *class);
        let classes: HashSet<_> = v4.chain(v6).chain([Isatap]).collect();
        let names: HashSet<_> = classes.iter().map(|class| class.name()).collect();
        assert_eq!((classes.len(), names.len()), (24, 24));
        let snake = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(names.iter().all(|name| name.bytes().all(snake)));
    }

    proptest! {
        #[test]
        fn an_ipv4_address_inside_an_ipv6_address_is_never_public(
            v4 in any::<u32>(),
            upper in any::<u64>(),
            lower in any::<u64>(),
        ) {
            let (v4, upper, lower) = (u128::from(v4), u128::from(upper), u128::from(lower));
            let segment = |at: u32, value: u128| value << (112 - 16 * at);
            let holders = [
                v4,
                segment(5, 0xffff) | v4,
                segment(4, 0xffff) | v4,
                segment(0, 0x64) | segment(1, 0xff9b) | v4,
                // RFC 6052 2.2: behind a /48 the address goes around the eighth octet.
                segment(0, 0x64) | segment(1, 0xff9b) | segment(2, 1)
                    | (v4 >> 16 << 64) | ((v4 & 0xffff) << 40),
                segment(0, 0x64) | segment(1, 0xff9b) | segment(2, 1) | v4,
                segment(0, 0x2002) | (v4 << 80) | lower,
                segment(0, 0x2001) | (v4 << 64) | lower,
                segment(0, 0x2001) | (lower << 32) | (v4 ^ 0xffff_ffff),
                (upper << 64) | segment(5, 0x5efe) | v4,
                (upper << 64) | segment(4, 0x0200) | segment(5, 0x5efe) | v4,
            ];
            for holder in holders {
                let ip = Ipv6Addr::from_bits(holder);
                prop_assert!(!AddressClass::of(ip.into()).is_public(), "{}", ip);
            }
        }

        #[test]
        fn only_global_unicast_is_public(bits in any::<u128>()) {
            let ip = Ipv6Addr::from_bits(bits);
            prop_assert!(bits >> 125 == 1 || !AddressClass::of(ip.into()).is_public(), "{}", ip);
        }
    }
}
