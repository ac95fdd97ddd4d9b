//! Which CAs to trust for TLS to a parent proxy and, within it, to the target: each has its own.

use std::{path::Path, sync::Arc};

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Parent;
use crate::net::fetch;

/// One verifier for the parent proxy by its name, one for all other hosts.
#[derive(Debug)]
struct Either {
    parent: ServerName<'static>,
    of_parent: Arc<WebPkiServerVerifier>,
    others: Arc<WebPkiServerVerifier>,
}

/// For connections through `parent` to targets that `ca` (or the system's CAs) certify.
pub(crate) fn with_parent(
    parent: &Parent,
    ca: Option<&Path>,
) -> Result<rustls::ClientConfig, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let verifier = |ca: Option<&Path>| {
        let roots = Arc::new(fetch::roots(ca)?);
        let builder = WebPkiServerVerifier::builder_with_provider(roots, certs::provider());
        builder.build().map_err(|error| told(&error))
    };
    let either = Either {
        parent: ServerName::try_from(parent.url.host.clone()).map_err(|error| told(&error))?,
        of_parent: verifier(parent.ca.as_deref())?,
        others: verifier(ca)?,
    };
    let builder = rustls::ClientConfig::builder_with_provider(certs::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| told(&error))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(either)).with_no_client_auth())
}

impl ServerCertVerifier for Either {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = if *server_name == self.parent { &self.of_parent } else { &self.others };
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The same for both: it does not depend on CAs.
        self.others.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
}
