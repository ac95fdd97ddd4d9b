//! What is wrong with a client's first bytes in a tunnel that must carry TLS. Each kind has one sentence,
//! used in responses, in `explain`, and in proposals from records.

use crate::egress::target::{Host, Target};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HelloFault {
    /// It is not TLS.
    NotTls,
    /// It is malformed or unsupported TLS, for this reason.
    Malformed(&'static str),
    /// The server's name is encrypted.
    Encrypted,
    /// It has no `server_name` (RFC 6066 3), though the call names a host.
    NoName,
    /// Its `server_name` is not the requested host.
    OtherName,
}

impl HelloFault {
    /// What is wrong with a hello for this server in a tunnel to `target`.
    pub fn of_name(server_name: Option<&str>, target: &Target) -> Option<Self> {
        match (server_name, &target.host) {
            // A client that calls an address names no server (RFC 6066 3).
            (None, Host::Address(_)) => None,
            (None, Host::Name(_)) => Some(Self::NoName),
            (Some(name), host) if Host::of(name).as_ref() == Ok(host) => None,
            (Some(_), _) => Some(Self::OtherName),
        }
    }

    /// What was wrong with a refused call, by these members of its record: `hello`, `server_name`,
    /// `encrypted_client_hello`.
    pub fn of_record(
        hello: Option<&str>,
        server_name: Option<&str>,
        encrypted: bool,
        target: &str,
    ) -> Self {
        let target = Target::of_connect(target.as_bytes()).ok();
        let of_name = target.and_then(|target| Self::of_name(server_name, &target));
        match hello {
            Some("not_tls") => Self::NotTls,
            Some("tls") if encrypted => Self::Encrypted,
            Some("tls") => of_name.unwrap_or(Self::OtherName),
            _ => Self::Malformed("it is not a readable TLS ClientHello"),
        }
    }

    /// As the end of a sentence about the message.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NotTls => "it is not TLS",
            Self::Malformed(why) => why,
            Self::Encrypted => "the server name is encrypted",
            Self::NoName => "it has no server name",
            Self::OtherName => "its server name is not the requested host",
        }
    }
}
