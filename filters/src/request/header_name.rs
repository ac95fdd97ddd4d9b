//! Names of headers, as the config and as servers understand them.

use http::HeaderName;
use smallvec::SmallVec;

/// A header name that the config has checked.
pub(crate) fn of_config(written: &config::HeaderName) -> HeaderName {
    HeaderName::from_bytes(written.as_bytes()).expect("a config's header name is valid")
}

/// A header name as a server reads it that normalizes names like CGI does, or that collapses repeated `-`.
pub(crate) fn folded(name: &[u8]) -> SmallVec<[u8; 64]> {
    let mut folded: SmallVec<[u8; 64]> = SmallVec::new();
    for b in name {
        match b.is_ascii_alphanumeric() {
            true => folded.push(b.to_ascii_lowercase()),
            false if folded.last().is_some_and(|last| *last != b'-') => folded.push(b'-'),
            false => {}
        }
    }
    if folded.last() == Some(&b'-') {
        folded.pop();
    }
    folded
}
