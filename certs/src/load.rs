//! From PEM files to keys that fit their certificates.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use rustls::{RootCertStore, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate with its key, ready to serve.
#[derive(Clone, Debug)]
pub struct Pair {
    /// For rustls.
    pub certified: Arc<CertifiedKey>,
    /// For an operator.
    pub facts: CertificateInfo,
}

/// A certificate as reported to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Its file.
    pub file: PathBuf,
    /// Its subject.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its DNS names and addresses.
    pub names: Vec<String>,
    /// Its serial number, in hex.
    pub serial: String,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
}

/// Why a certificate or key cannot be used: which file, and why.
#[derive(Debug)]
pub struct LoadError {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub cause: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use `{}`: {}", self.file.display(), self.cause)
    }
}

impl std::error::Error for LoadError {}

fn wrong(file: &Path, cause: impl Into<String>) -> LoadError {
    LoadError { file: file.to_owned(), cause: cause.into() }
}

/// Reads a file, whatever is in it.
///
/// # Errors
/// Why it cannot be read.
pub fn bytes(file: &Path) -> Result<Vec<u8>, LoadError> {
    std::fs::read(file).map_err(|error| {
        wrong(
            file,
            match error.kind() {
                io::ErrorKind::NotFound => "no such file".to_owned(),
                io::ErrorKind::PermissionDenied => {
                    "permission denied; the user that runs stagedoor must be able to read it"
                        .to_owned()
                }
                _ => error.to_string(),
            },
        )
    })
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(file)?).collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong(file, "it contains no certificate (PEM)")),
        Ok(all) => Ok(all),
        Err(error) => Err(wrong(file, format!("it is not valid PEM: {error}"))),
    }
}

/// Reads a private key.
///
/// # Errors
/// If it cannot be read, is encrypted or is not a key.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    key_in(&bytes(file)?).map_err(|cause| wrong(file, cause))
}

/// The private key in a PEM text.
///
/// # Errors
/// If it is encrypted or is not a key.
pub fn key_in(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    if String::from_utf8_lossy(pem).contains("ENCRYPTED") {
        return Err("the key is encrypted; store it without a passphrase");
    }
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| "it contains no private key (PEM: PKCS#8, PKCS#1 or SEC1)")
}

/// Reads a certificate and its key.
///
/// # Errors
/// Which file cannot be used, and why: also if the key is another certificate's.
pub fn pair(cert_file: &Path, key_file: &Path) -> Result<Pair, LoadError> {
    let chain = chain(cert_file)?;
    let facts = facts(cert_file, &chain[0])?;
    let signing = crate::provider()
        .key_provider
        .load_private_key(key(key_file)?)
        .map_err(|_| wrong(key_file, "its key type is not supported; use RSA, ECDSA or Ed25519"))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => {
            let cause = format!("it is not the key of `{}`", cert_file.display());
            return Err(wrong(key_file, cause));
        }
    }
    Ok(Pair { certified: Arc::new(certified), facts })
}

/// Reads a certificate and key that we present ourselves: the chain, and the key in DER.
///
/// # Errors
/// As [`pair`].
pub fn client_pair(
    cert_file: &Path,
    key_file: &Path,
) -> Result<(Vec<Vec<u8>>, Vec<u8>), LoadError> {
    pair(cert_file, key_file)?;
    let chain = chain(cert_file)?.into_iter().map(|cert| cert.to_vec()).collect();
    match key(key_file)? {
        PrivateKeyDer::Pkcs8(key) => Ok((chain, key.secret_pkcs8_der().to_vec())),
        _ => Err(wrong(
            key_file,
            "a client key must be PKCS#8; convert it with `openssl pkcs8 -topk8 -nodes`",
        )),
    }
}

/// Reads a private key as PKCS#8 (DER).
///
/// # Errors
/// If it cannot be read or is in another form.
pub fn pkcs8(file: &Path) -> Result<Vec<u8>, LoadError> {
    match key(file)? {
        PrivateKeyDer::Pkcs8(key) => Ok(key.secret_pkcs8_der().to_vec()),
        _ => Err(wrong(
            file,
            "the key must be PKCS#8; convert it with `openssl pkcs8 -topk8 -nodes`",
        )),
    }
}

/// Reads CA certificates, in DER.
///
/// # Errors
/// If the file cannot be read or contains none.
pub fn ca_certificates(file: &Path) -> Result<Vec<Vec<u8>>, LoadError> {
    let all = chain(file)?;
    all.iter().map(|cert| facts(file, cert).map(|_| cert.to_vec())).collect()
}

/// Reads CA certificates, for verifying.
///
/// # Errors
/// If the file cannot be read, contains none, or one that is not a CA's.
pub fn roots(file: &Path) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    for cert in chain(file)? {
        roots
            .add(cert)
            .map_err(|error| wrong(file, format!("a certificate is unusable: {error}")))?;
    }
    Ok(roots)
}

fn facts(file: &Path, cert: &CertificateDer<'_>) -> Result<CertificateInfo, LoadError> {
    let (_, cert) = X509Certificate::from_der(cert)
        .map_err(|_| wrong(file, "a certificate in it is not valid X.509"))?;
    let names = cert.subject_alternative_name().ok().flatten().map(|names| {
        let names = names.value.general_names.iter();
        names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
                GeneralName::IPAddress(v6) => {
                    let bytes: [u8; 16] = (*v6).try_into().ok()?;
                    Some(std::net::Ipv6Addr::from(bytes).to_string())
                }
                _ => None,
            })
            .collect()
    });
    Ok(CertificateInfo {
        file: file.to_owned(),
        subject: cert.subject().to_string(),
        issuer: cert.issuer().to_string(),
        names: names.unwrap_or_default(),
        serial: HEXLOWER.encode(cert.raw_serial()),
        not_before: cert.validity().not_before.timestamp(),
        not_after: cert.validity().not_after.timestamp(),
    })
}
