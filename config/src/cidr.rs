//! Networks in CIDR notation, without host bits.

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error};

/// Reads a list of networks.
///
/// # Errors
/// For an address with bits behind the prefix: `10.1.2.3/8` may be meant as `10.0.0.0/8` or as
/// `10.1.2.3/32`, and the one lets sixteen million addresses in that the other does not.
pub(crate) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    Ok(Vec::<Network>::deserialize(from)?.into_iter().map(|network| network.0).collect())
}

struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let net = IpNet::deserialize(from)?;
        if net.trunc() == net {
            return Ok(Self(net));
        }
        Err(D::Error::custom(format!(
            "`{net}` has bits set after its prefix; write `{}` for the network, or `{}/{}` for the address",
            net.trunc(),
            net.addr(),
            net.max_prefix_len()
        )))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_network_has_no_host_bits() {
        let told = |networks: &str| {
            let text = format!(
                "version: stagedoor/v1\nlisteners:\n  edge: {{kind: reverse, address: '127.0.0.1:1', trusted_proxies: {networks}}}\n"
            );
            crate::parse("t", &text).err().map(|problems| problems.to_string()).unwrap_or_default()
        };
        assert_eq!(told("[10.0.0.0/8, 10.1.2.3/32, '::1/128']"), "");
        assert!(
            told("[10.1.2.3/8]").contains("write `10.0.0.0/8` for the network, or `10.1.2.3/32`"),
            "{}",
            told("[10.1.2.3/8]")
        );
        assert!(told("['fe80::1/10']").contains("write `fe80::/10`"), "{}", told("['fe80::1/10']"));
    }
}
