//! The secrets of a sink: headers, the signing key, and the CAs to trust.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use certs::LoadError;
use http::{HeaderName, HeaderValue};

use crate::secret_file;

/// A key that is shorter can be guessed.
const KEY_MIN: usize = 24;

/// The content of the files in a sink's config. No `Debug`: it would print them.
#[derive(Clone, Default, PartialEq)]
pub struct Secrets {
    /// Marked as sensitive.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) ca: Option<Vec<u8>>,
}

impl Secrets {
    /// Reads them.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn read(written: &config::Ship) -> Result<Self, LoadError> {
        let headers =
            written.headers.iter().map(|(name, header)| Ok((self::name(name), value(header)?)));
        let key = written.secret_file.as_ref().map(|file| key(file)).transpose()?;
        let ca = written.ca.as_ref().map(|file| {
            certs::roots(file)?;
            certs::bytes(file)
        });
        Ok(Self { headers: headers.collect::<Result<_, LoadError>>()?, key, ca: ca.transpose()? })
    }
}

fn name(name: &config::HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_bytes()).expect("a header's name in a config is one")
}

fn value(written: &config::ShipHeader) -> Result<HeaderValue, LoadError> {
    let file = &written.value_file;
    let secret = secret_file::line(file)?;
    let prefix = written.prefix.as_deref().unwrap_or_default();
    let value = format!("{prefix}{}", secret.expose());
    let value = value.is_ascii().then(|| HeaderValue::from_str(&value).ok()).flatten();
    let mut value = value.ok_or_else(|| LoadError {
        file: file.clone(),
        cause: "it is not ASCII, which a header must be".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A key in the format of Standard Webhooks, or any text.
fn key(file: &Path) -> Result<Vec<u8>, LoadError> {
    let wrong = |cause: String| LoadError { file: file.to_owned(), cause };
    let secret = secret_file::line(file)?;
    let key = match secret.expose().strip_prefix("whsec_") {
        Some(text) => BASE64
            .decode(text)
            .map_err(|_| wrong("what follows `whsec_` is not base64".to_owned()))?,
        None => secret.expose().as_bytes().to_vec(),
    };
    if key.len() < KEY_MIN {
        let length = key.len();
        return Err(wrong(format!("the key has {length} bytes; it needs at least {KEY_MIN}")));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_base64_after_its_mark_and_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            key(&file).map_err(|error| error.cause)
        };
        let bytes = [7_u8; 24];
        assert_eq!(read(&format!("whsec_{}\n", BASE64.encode(bytes))), Ok(bytes.to_vec()));
        assert_eq!(read(&"a".repeat(24)), Ok(vec![b'a'; 24]));
        let short = Err("the key has 3 bytes; it needs at least 24".to_owned());
        assert_eq!(read("abc"), short);
        assert_eq!(read("whsec_***"), Err("what follows `whsec_` is not base64".to_owned()));
    }
}
