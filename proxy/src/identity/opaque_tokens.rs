//! Opaque tokens of callers, from their files. Only their digests are stored.

use std::path::Path;

use certs::LoadError;
use config::StaticToken;
use data_encoding::HEXLOWER_PERMISSIVE;
use filters::{Label, identity::TokenDigest};
use ring::digest::{SHA256, digest};

/// A shorter token could be guessed.
const LENGTH_MIN: usize = 16;
const LENGTH_MAX: usize = 1024;
/// No rotation needs more.
const LINES_MAX: usize = 100;

/// The digests of the tokens of each caller, by the name in the config.
pub type Digests = Vec<(Label, Vec<TokenDigest>)>;

/// The digests of all callers.
///
/// # Errors
/// Every file that cannot be used, and why.
pub fn all(config: &config::Config) -> Result<Digests, Vec<String>> {
    let (mut all, mut errors) = (Digests::new(), Vec::new());
    for (name, written) in &config.identity.tokens {
        match of(written) {
            Ok(digests) => all.push((Label::from(name), digests)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

/// The digests of one caller.
///
/// # Errors
/// Why its file cannot be used.
pub fn of(written: &StaticToken) -> Result<Vec<TokenDigest>, LoadError> {
    match (&written.token_file, &written.digest_file) {
        (Some(file), _) => in_file(file, of_token),
        (None, Some(file)) => in_file(file, of_hex),
        (None, None) => Ok(Vec::new()),
    }
}

fn in_file(
    file: &Path,
    read: fn(&str) -> Result<TokenDigest, String>,
) -> Result<Vec<TokenDigest>, LoadError> {
    let wrong = |cause: String| LoadError { file: file.to_owned(), cause };
    let bytes = certs::bytes(file)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text".to_owned()))?;
    let lines = text.lines().filter(|line| !line.is_empty());
    let digests: Result<Vec<_>, String> = lines.take(LINES_MAX + 1).map(read).collect();
    let digests = digests.map_err(wrong)?;
    match digests.len() {
        0 => Err(wrong("it has no token".to_owned())),
        1..=LINES_MAX => Ok(digests),
        _ => Err(wrong(format!("it has more than {LINES_MAX} lines"))),
    }
}

fn of_token(line: &str) -> Result<TokenDigest, String> {
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&line.len()) {
        let length = line.len();
        return Err(format!("a token has {length} bytes; it needs {LENGTH_MIN} to {LENGTH_MAX}"));
    }
    // Any other character could not arrive in a header.
    if !line.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
        return Err("a token must be visible ASCII without spaces and commas".to_owned());
    }
    Ok(digest(&SHA256, line.as_bytes()).as_ref().try_into().expect("a SHA-256 has 32 bytes"))
}

/// As `sha256sum` prints it: a file name may follow.
fn of_hex(line: &str) -> Result<TokenDigest, String> {
    let hex = line.split_ascii_whitespace().next().unwrap_or_default();
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
    let digest = bytes.and_then(|bytes| bytes.try_into().ok());
    digest.ok_or_else(|| "a digest is a SHA-256: 64 hex digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[track_caller]
    fn told(as_token: bool, text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        std::fs::write(&file, text).unwrap();
        let read = if as_token { of_token } else { of_hex };
        match in_file(&file, read) {
            Ok(digests) => digests.len().to_string(),
            Err(error) => error.cause,
        }
    }

    #[test]
    fn a_file_has_one_token_per_line_and_errors_print_none_of_them() {
        let check = |text: &str, expected: &str| {
            let told = told(true, text);
            assert!(told.contains(expected) && !told.contains("0123456789"), "{told}");
        };
        check("8f3ca9d1e7b24c5f9a0d", "1");
        check("8f3ca9d1e7b24c5f9a0d\n", "1");
        check("8f3ca9d1e7b24c5f9a0d\r\n\nanother-of-16-bytes\n", "2");
        check("", "no token");
        check("\n", "no token");
        check("short0123456789", "a token has 15 bytes");
        check("two words 0123456789", "visible ASCII");
        check("b\u{e4}d 0123456789 0123", "visible ASCII");
        check(&"0123456789abcdef\n".repeat(101), "more than 100 lines");
    }

    #[test]
    fn a_digest_is_that_of_the_token() {
        assert_eq!(told(false, HEX), "1");
        assert_eq!(told(false, &format!("{HEX}  -\n{}\n", HEX.to_ascii_uppercase())), "2");
        let (x, sign) = (format!("{}x", &HEX[1..]), format!("+{}", &HEX[1..]));
        for wrong in ["0123456789abcdef", &HEX[1..], &x, &sign, "\u{e4}"] {
            assert!(told(false, wrong).contains("64 hex digits"), "{wrong}");
        }
        let same = of_token("8f3ca9d1e7b24c5f9a0d").unwrap();
        let hex = filters::hex::write(&same);
        assert_eq!(of_hex(&hex).unwrap(), same);
    }
}
