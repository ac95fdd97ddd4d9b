//! Client certificates: the CAs they must be from, and the names in them.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Verifies client certificates against CAs that can be swapped.
pub struct ClientCertificates {
    inner: ArcSwap<Arc<dyn ClientCertVerifier>>,
    required: bool,
}

/// The names in a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs, for example a SPIFFE id.
    pub uris: Vec<String>,
    /// Email addresses.
    pub emails: Vec<String>,
}

impl ClientCertificates {
    /// Accepts certificates from these CAs.
    ///
    /// # Errors
    /// If there is no CA.
    pub fn new(roots: RootCertStore, required: bool) -> Result<Self, VerifierBuilderError> {
        let inner = ArcSwap::from_pointee(verifier(roots, required)?);
        Ok(Self { inner, required })
    }

    /// Accepts certificates from these CAs from now on.
    ///
    /// # Errors
    /// If there is no CA; then the last ones stay.
    pub fn swap(&self, roots: RootCertStore) -> Result<(), VerifierBuilderError> {
        self.inner.store(Arc::new(verifier(roots, self.required)?));
        Ok(())
    }
}

fn verifier(
    roots: RootCertStore,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::provider());
    if required { builder.build() } else { builder.allow_unauthenticated().build() }
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates").field("required", &self.required).finish()
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// Empty: a hint would have to outlive a swap, and clients choose well without.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner.load().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.load().verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.load().verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.load().supported_verify_schemes()
    }
}

/// The names in a certificate (DER); empty if it cannot be parsed.
pub fn names_of(der: &[u8]) -> Names {
    let Ok((_, cert)) = X509Certificate::from_der(der) else { return Names::default() };
    let common_name = cert.subject().iter_common_name().next();
    let mut names = Names {
        common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
        ..Names::default()
    };
    let sans = cert.subject_alternative_name().ok().flatten();
    for name in sans.iter().flat_map(|sans| &sans.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
            GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
            GeneralName::RFC822Name(email) => names.emails.push((*email).to_owned()),
            _ => {}
        }
    }
    names
}
