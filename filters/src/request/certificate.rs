//! The names in a client certificate.

use crate::Label;

/// A client certificate that our CA signed.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificate {
    /// The subject's common name.
    pub common_name: Option<Label>,
    /// DNS names.
    pub dns: Vec<Label>,
    /// URIs, for example a SPIFFE id.
    pub uris: Vec<Label>,
    /// Email addresses.
    pub emails: Vec<Label>,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: Option<Label>,
}

impl ClientCertificate {
    /// Whether it has this name.
    pub(crate) fn names(&self, wanted: &str) -> bool {
        let mut sans = [&self.uris, &self.dns, &self.emails].into_iter().flatten().peekable();
        // A common name counts only without any other name (RFC 6125 6.4.4).
        if sans.peek().is_none() {
            return self.common_name.as_deref() == Some(wanted);
        }
        sans.any(|name| **name == *wanted)
    }
}
