//! Secrets and tokens that are one line of a file.

use std::path::Path;

use certs::LoadError;
use filters::Secret;

pub const SECRET_BYTES_MAX: usize = 16 << 10;

/// A secret that is the one line of a file. A line end is not part of it.
///
/// # Errors
/// Why it cannot be used.
pub fn line(file: &Path) -> Result<Secret, LoadError> {
    let wrong = |cause: &str| LoadError { file: file.to_owned(), cause: cause.to_owned() };
    let text = text(file)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.len() > SECRET_BYTES_MAX {
        return Err(wrong("it is too long for a secret"));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong("it has several lines or other control characters"));
    }
    Ok(Secret::new(text))
}

pub fn text(file: &Path) -> Result<String, LoadError> {
    let cause = || LoadError { file: file.to_owned(), cause: "it is not UTF-8".to_owned() };
    String::from_utf8(certs::bytes(file)?).map_err(|_| cause())
}

/// The token in a file.
///
/// # Errors
/// Why it cannot be used.
pub fn token(file: &Path) -> Result<Secret, LoadError> {
    let wrong = |cause: &str| LoadError { file: file.to_owned(), cause: cause.to_owned() };
    let text = certs::bytes(file)?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() || text.len() > SECRET_BYTES_MAX || !text.iter().all(u8::is_ascii_graphic) {
        return Err(wrong("a token must be one line of visible ASCII"));
    }
    Ok(Secret::new(str::from_utf8(text).expect("ASCII is UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_that_can_be_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let check = |bytes: &[u8], expected: Option<&str>| {
            std::fs::write(&file, bytes).unwrap();
            let read = token(&file).ok();
            assert_eq!(read.as_ref().map(Secret::expose), expected, "{bytes:?}");
        };
        check(b"abc.def\n", Some("abc.def"));
        check(b"abc\r\n", Some("abc"));
        check(b"", None);
        check(b"\n", None);
        check(b"a\nb", None);
        check(b"a b", None);
        check(b"\xc3\xa9", None);
        check(&[b'a'; SECRET_BYTES_MAX + 1], None);
    }
}
