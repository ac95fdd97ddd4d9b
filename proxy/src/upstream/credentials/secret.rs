//! The secrets of credentials, from their files.

use certs::LoadError;
use config::CredentialKind;
use filters::Secret;

use super::github_app;
use crate::secret_file::{line, text};

/// The secret of a credential.
///
/// # Errors
/// Why its file cannot be used.
pub fn secret(written: &config::Credential) -> Result<Secret, LoadError> {
    let file = written.secret_file().expect("a config that is valid has it");
    if written.kind == CredentialKind::GithubApp {
        let text = text(file)?;
        github_app::signer(&text).map_err(|cause| LoadError { file: file.value.clone(), cause })?;
        return Ok(Secret::new(text));
    }
    let secret = line(file)?;
    if written.kind == CredentialKind::Header && !secret.expose().is_ascii() {
        let cause = "it is not ASCII, which a header must be".to_owned();
        return Err(LoadError { file: file.value.clone(), cause });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_file::SECRET_BYTES_MAX;

    #[test]
    fn a_secret_is_one_line_that_can_be_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let of = |kind: &str, key: &str, bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            let text = format!(
                "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
                 credentials: {{a: {{kind: {kind}, {key}: {}}}}}\n",
                file.display()
            );
            let loaded = config::parse("test", &text).unwrap();
            let secret = secret(&loaded.config.credentials["a"]);
            secret.map(|s| s.expose().to_owned()).map_err(|error| error.cause)
        };
        let header = |bytes: &[u8]| of("header", "value_file", bytes);
        assert_eq!(header(b"a b\n"), Ok("a b".to_owned()));
        assert_eq!(header(b"a\r\n"), Ok("a".to_owned()));
        assert_eq!(header(b"\n"), Err("it is empty".to_owned()));
        assert_eq!(header(b"\xff"), Err("it is not UTF-8".to_owned()));
        assert_eq!(
            header("ä".as_bytes()),
            Err("it is not ASCII, which a header must be".to_owned())
        );
        let lines = Err("it has several lines or other control characters".to_owned());
        assert_eq!(header(b"a\nb: c\n"), lines);
        assert_eq!(header(b"a\n\n"), lines);
        assert_eq!(
            header(&[b'a'; SECRET_BYTES_MAX + 1]),
            Err("it is too long for a secret".to_owned())
        );
        let basic = of("basic", "username: b, password_file", "ä".as_bytes());
        assert_eq!(basic, Ok("ä".to_owned()));
    }
}
