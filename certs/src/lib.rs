//! Certificates and keys: read from files, chosen by name, swapped when they change.

mod client;
pub mod dev;
mod load;
mod store;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{ClientCertificates, Names, names_of};
pub use load::{
    CertificateInfo, LoadError, Pair, bytes, ca_certificates, client_pair, key, key_in, pair,
    pkcs8, roots,
};
pub use store::{Certificates, Store};

/// The cryptography of this process: ring. Installs it as the default.
pub fn provider() -> Arc<CryptoProvider> {
    // An error means that one is installed already: ours, because nothing else installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arc::clone(CryptoProvider::get_default().expect("just installed"))
}
