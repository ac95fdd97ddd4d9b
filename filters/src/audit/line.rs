//! Writes one line of JSON: members, and values that cannot break out of their quotes.

use std::{net::IpAddr, time::Duration};

use super::{mask, time::rfc3339};
use crate::{Label, request::client};

/// Whether all of a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    Yes,
    No,
}

pub(super) struct Line<'a>(pub(super) &'a mut Vec<u8>);

impl Line<'_> {
    pub(super) fn open(&mut self) {
        self.0.push(b'{');
    }

    pub(super) fn close(&mut self) {
        self.0.extend_from_slice(b"}\n");
    }

    pub(super) fn addresses(&mut self, name: &str, ips: &[IpAddr]) {
        if ips.is_empty() {
            return;
        }
        self.name(name);
        self.0.push(b'[');
        for ip in ips {
            self.comma();
            self.0.push(b'"');
            self.0.extend_from_slice(&client::text(*ip));
            self.0.push(b'"');
        }
        self.0.push(b']');
    }

    /// A member name of ours.
    pub(super) fn name(&mut self, name: &str) {
        self.comma();
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A member name chosen by someone else.
    pub(super) fn key(&mut self, name: &str) {
        self.comma();
        self.quoted(name);
        self.0.push(b':');
    }

    /// The separator of two members or values.
    pub(super) fn comma(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }

    pub(super) fn literal(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(super) fn number(&mut self, name: &str, value: impl itoa::Integer) {
        self.literal(name, itoa::Buffer::new().format(value));
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.quoted(value);
    }

    pub(super) fn maybe(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A value chosen by a client.
    pub(super) fn foreign(&mut self, name: &str, value: &str) -> Whole {
        self.name(name);
        self.foreign_value(value)
    }

    /// Truncated, and with anything that looks like a token masked.
    pub(super) fn foreign_value(&mut self, value: &str) -> Whole {
        const BYTES_MAX: usize = 2048;
        let masked = mask::masked(value);
        let shown = masked.as_deref().unwrap_or(value);
        self.quoted(&shown[..shown.floor_char_boundary(BYTES_MAX)]);
        if masked.is_some() || shown.len() > BYTES_MAX { Whole::No } else { Whole::Yes }
    }

    /// An address, and a port as sockets are written.
    pub(super) fn address(&mut self, name: &str, ip: IpAddr, port: Option<u16>) {
        self.name(name);
        self.0.push(b'"');
        let brackets = port.is_some() && ip.is_ipv6();
        if brackets {
            self.0.push(b'[');
        }
        self.0.extend_from_slice(&client::text(ip));
        if brackets {
            self.0.push(b']');
        }
        if let Some(port) = port {
            self.0.push(b':');
            self.0.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        self.0.push(b'"');
    }

    pub(super) fn list(&mut self, name: &str, values: &[Label]) {
        if values.is_empty() {
            return;
        }
        self.name(name);
        self.0.push(b'[');
        for value in values {
            self.comma();
            self.quoted(value);
        }
        self.0.push(b']');
    }

    pub(super) fn quoted(&mut self, value: &str) {
        self.0.push(b'"');
        // No early exit: so the compiler compares many bytes at a time.
        let odd = |b: u8| !(b' '..=b'~').contains(&b) || b == b'"' || b == b'\\';
        if !value.bytes().fold(false, |found, b| found | odd(b)) {
            self.0.extend_from_slice(value.as_bytes());
        } else {
            self.escaped(value);
        }
        self.0.push(b'"');
    }

    /// Everything that is not visible ASCII is escaped, so no name can turn a terminal's or a log
    /// viewer's text around.
    fn escaped(&mut self, value: &str) {
        use std::io::Write;
        for c in value.chars() {
            match c {
                '"' => self.0.extend_from_slice(b"\\\""),
                '\\' => self.0.extend_from_slice(b"\\\\"),
                ' '..='~' => self.0.push(c as u8),
                _ => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        write!(self.0, "\\u{unit:04x}").expect("memory takes all that is written");
                    }
                }
            }
        }
    }

    /// RFC 3339 in UTC, with microseconds.
    pub(super) fn time(&mut self, name: &str, unix: Duration) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(&rfc3339(unix));
        self.0.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_break_out_of_its_quotes() {
        let mut out = b"{".to_vec();
        Line(&mut out).foreign("path", "a\"b\\c\n\u{202e}\u{1f600}");
        out.push(b'}');
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read["path"], "a\"b\\c\n\u{202e}\u{1f600}");
        assert!(out.is_ascii());
    }
}
