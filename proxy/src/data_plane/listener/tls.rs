//! The TLS side of a listener, and the facts of a handshake for later phases.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use filters::{Label, identity::ClientCertificate};
use pingora::{
    listeners::{TlsAccept, tls::TlsSettings},
    protocols::tls::TlsRef,
};

/// The facts of a handshake.
#[derive(Debug)]
pub struct HandshakeInfo {
    /// The server name that the client requested.
    pub server_name: Option<String>,
    /// The verified client certificate.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// The certificates of a TLS listener, to be swapped when their files change.
pub struct ListenerCertificates {
    /// The listener's name.
    pub listener: String,
    /// The certificates it serves.
    pub certificates: certs::Certificates,
    /// The client CAs it trusts.
    pub clients: Option<Arc<certs::ClientCertificates>>,
}

/// Reads the certificates of a TLS listener.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn certificates(
    listener: &str,
    written: &config::Tls,
) -> Result<ListenerCertificates, certs::LoadError> {
    let clients = clients(written)?.map(Arc::new);
    let certificates = certs::Certificates::new(store(written)?);
    Ok(ListenerCertificates { listener: listener.to_owned(), certificates, clients })
}

/// Reads the CAs of the clients that a TLS listener believes.
///
/// # Errors
/// Why the file cannot be used.
pub fn clients(
    written: &config::Tls,
) -> Result<Option<certs::ClientCertificates>, certs::LoadError> {
    let Some(ca) = &written.client_ca else { return Ok(None) };
    let required = written.client_certificate == config::ClientCertificate::Required;
    let clients = certs::ClientCertificates::new(certs::roots(ca)?, required);
    clients
        .map(Some)
        .map_err(|error| certs::LoadError { file: ca.value.clone(), cause: error.to_string() })
}

/// Reads a listener's certificates once more.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn store(written: &config::Tls) -> Result<certs::Store, certs::LoadError> {
    let pairs: Result<Vec<_>, _> =
        written.certificates.iter().map(|pair| certs::pair(&pair.cert, &pair.key)).collect();
    Ok(certs::Store::new(pairs?).expect("a config's listener has a certificate"))
}

/// What Pingora needs to serve them.
///
/// # Errors
/// Never, with rustls.
pub fn settings(
    written: &config::Tls,
    certificates: &ListenerCertificates,
) -> pingora::Result<TlsSettings> {
    let mut settings = TlsSettings::with_callbacks(Box::new(HandshakeCallbacks))?;
    settings.set_cert_resolver(Arc::new(certificates.certificates.clone()));
    if let Some(clients) = &certificates.clients {
        settings.set_client_cert_verifier(Arc::clone(clients) as _);
    }
    if written.http2 {
        settings.enable_h2();
    }
    Ok(settings)
}

struct HandshakeCallbacks;

#[async_trait]
impl TlsAccept for HandshakeCallbacks {
    async fn handshake_complete_callback(
        &self,
        tls: &TlsRef,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        let certificate = tls.peer_certificate_der().map(|der| {
            let names = certs::names_of(der);
            let labels = |texts: Vec<String>| texts.iter().filter_map(|t| Label::new(t)).collect();
            Arc::new(ClientCertificate {
                common_name: names.common_name.as_deref().and_then(Label::new),
                dns: labels(names.dns),
                uris: labels(names.uris),
                emails: labels(names.emails),
                fingerprint: None,
            })
        });
        let server_name = tls.server_name().map(str::to_owned);
        Some(Arc::new(HandshakeInfo { server_name, certificate }))
    }
}
