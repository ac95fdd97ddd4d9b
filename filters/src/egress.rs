//! The rules that apply to every outbound call, whoever makes it.

pub mod addresses;
pub mod allowlist;
pub mod client_hello;
pub mod guard;
pub mod hello_fault;
pub mod target;

/// The rules that apply to every outbound call.
#[derive(Debug)]
pub struct Egress {
    /// Ports on which a tunnel must carry TLS.
    pub tls_ports: Vec<u16>,
    /// What happens when the server's name is encrypted.
    pub encrypted_client_hello: config::EncryptedClientHello,
    /// Concurrent tunnels for each workspace.
    pub tunnels_max: u32,
}

impl Egress {
    /// From what the operator wrote.
    pub fn new(written: &config::Egress) -> Self {
        Self {
            tls_ports: written.tls_ports.clone(),
            encrypted_client_hello: written.encrypted_client_hello,
            tunnels_max: written.tunnels_max,
        }
    }
}
