//! What holds for all calls out, whoever makes them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addresses::AddressClass;

/// What holds for all calls out.
#[derive(Debug)]
pub struct Egress {
    /// Ports on which a tunnel must carry TLS.
    pub tls_ports: Vec<u16>,
    /// What happens when the server's name is encrypted.
    pub encrypted_hello: config::EncryptedHello,
    /// Tunnels at once for each workspace.
    pub tunnels_max: u32,
    own_addresses: Vec<IpNet>,
}

impl Egress {
    /// From what the operator wrote.
    pub fn new(written: &config::Egress) -> Self {
        Self {
            tls_ports: written.tls_ports.clone(),
            encrypted_hello: written.encrypted_hello,
            tunnels_max: written.tunnels_max,
            own_addresses: written.own_addresses.clone(),
        }
    }

    /// The class of an address, of which this machine has `own`.
    pub(crate) fn class(&self, ip: IpAddr, own: &[IpAddr]) -> AddressClass {
        let ours = own.contains(&ip) || self.own_addresses.iter().any(|net| net.contains(&ip));
        match AddressClass::of(ip) {
            AddressClass::Public if ours => AddressClass::Own,
            class => class,
        }
    }
}
