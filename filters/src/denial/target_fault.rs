//! Why a target is not a host and port.

use std::fmt;

/// What is wrong with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// It cannot be parsed, or has a character that a target cannot have.
    Malformed { why: &'static str },
    /// A user before an `@`, which makes the host look like another.
    UserInfo,
    /// Not an `http` URL.
    NotHttp,
    /// An `https` URL, whose content we would read although it should be encrypted for the host alone.
    HttpsWithoutConnect,
    /// No host.
    HostEmpty,
    /// The name is longer than 253 bytes.
    NameTooLong,
    /// A label is empty, too long, has a character that a name cannot have, or is a fake `xn--`.
    LabelBad,
    /// An IPv4 address in hex, octal, with parts left out, or anything that ends in a number.
    AddressOdd,
    /// The text in brackets is not an IPv6 address, or has a zone.
    AddressMalformed,
    /// No port, where one is needed.
    PortMissing,
    /// The port is 0, too large, or not a plain number.
    PortInvalid,
}

impl fmt::Display for TargetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { why } => write!(f, "the target is malformed: {why}"),
            Self::UserInfo => write!(f, "the target has a user before an `@`"),
            Self::NotHttp => write!(f, "the target is not an `http` URL"),
            Self::HttpsWithoutConnect => {
                write!(f, "the target is an `https` URL; use a CONNECT tunnel")
            }
            Self::HostEmpty => write!(f, "the target has no host"),
            Self::NameTooLong => write!(f, "the target's host has over 253 characters"),
            Self::LabelBad => write!(f, "the target's host has an invalid label"),
            Self::AddressOdd => write!(
                f,
                "the target's host ends in a number but is not a plain address; write `192.0.2.1`"
            ),
            Self::AddressMalformed => {
                write!(
                    f,
                    "the target's address is malformed; write `[2001:db8::1]`, without a zone"
                )
            }
            Self::PortMissing => write!(f, "the target has no port"),
            Self::PortInvalid => write!(f, "the target's port is not 1 to 65535 in plain digits"),
        }
    }
}
