//! The host that a request names.

use smallvec::SmallVec;

use crate::{Denial, Head};

/// A host in normal form: lower case, without port and closing dot, and ASCII.
#[derive(Debug)]
pub struct Host(SmallVec<[u8; 64]>);

impl Host {
    /// As text.
    pub fn as_str(&self) -> &str {
        // It is ASCII; if it were not, no route would match it.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The host of a request.
///
/// # Errors
/// [`Denial::HostInvalid`] if there is none or it is malformed.
pub fn of(head: &Head<'_>) -> Result<Host, Denial> {
    let given = head.host.filter(|host| !host.is_empty()).ok_or(Denial::HostInvalid)?;
    let (name, port) = match given {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|b| *b == b']').ok_or(Denial::HostInvalid)?;
            (&rest[..end], &rest[end + 1..])
        }
        _ => match given.iter().position(|b| *b == b':') {
            Some(colon) => given.split_at(colon),
            None => (given, &[][..]),
        },
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let name_fits = (1..=253).contains(&name.len())
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(b));
    if !is_port(port) || !name_fits {
        return Err(Denial::HostInvalid);
    }
    Ok(Host(name.iter().map(u8::to_ascii_lowercase).collect()))
}

/// Whether the text after a host is empty, or a colon and an optional port.
pub fn is_port(text: &[u8]) -> bool {
    match text {
        [] | [b':'] => true,
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let number =
                digits.iter().fold(0, |sum: u32, digit| sum * 10 + u32::from(digit - b'0'));
            (1..=0xffff).contains(&number)
        }
        _ => false,
    }
}
