//! Reads which server the first message of a TLS client is for, without a response to it.
//!
//! The gateway reads it before a single byte goes to the server (RFC 8446 4.1.2 and 5.1, RFC 6066 3). What
//! two servers could read differently is refused, so that the server sees the name that was read here. The
//! bytes are forwarded unchanged.

use std::{collections::HashSet, net::IpAddr};

/// The maximum size of a hello, with record headers. Those with post-quantum key shares have about 1,800
/// bytes.
pub const BYTES_MAX: usize = 32 << 10;

/// What the client's bytes so far are. Anything but `More` is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Not enough yet.
    More,
    /// All of a hello.
    Hello(ClientHello),
    /// The first bytes are not a TLS handshake.
    NotTls,
    /// Malformed or unsupported TLS, with the reason.
    Malformed(&'static str),
}

/// What a client sends before anything is encrypted. It is a claim and no proof: a server that does not
/// compare allows another name in a second hello (after a HelloRetryRequest), or in the requests inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The requested server, in lower case. `None` if it names none, as for an address.
    pub server_name: Option<String>,
    /// Whether another name may be hidden inside (`encrypted_client_hello`, RFC 9849): then `server_name` is
    /// the public name, and only the holder of its key sees the real one.
    ///
    /// Browsers always send the extension, filled with noise (GREASE), so that nobody can see whether a name
    /// is hidden. Neither can we. An operator can: refuse such hellos, as programs on servers have no need
    /// of them (Node.js, OpenSSL 3 and Go send none by default); or allow no name that serves as a public
    /// name for others; or serve clients no `HTTPS` records in DNS, for without the key in them they can
    /// only send noise.
    pub encrypted: bool,
}

/// Inspects all the bytes so far, however they were split.
pub fn peek(bytes: &[u8]) -> Peek {
    // As early as possible: an SSH server would send first, and its client may wait for it.
    match bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, MAJOR, ..] => {}
        _ => return Peek::NotTls,
    }
    let read =
        message(bytes).and_then(|whole| whole.map(|body| ClientHello::read(&body)).transpose());
    match read {
        Ok(None) => Peek::More,
        Ok(Some(hello)) => Peek::Hello(hello),
        Err(why) => Peek::Malformed(why),
    }
}

/// The type of a record that holds a part of a handshake.
const HANDSHAKE: u8 = 22;
/// The major version from SSL 3.0 to TLS 1.3; the byte after it is ignored (RFC 8446 5.1).
const MAJOR: u8 = 3;
const RECORD_MAX: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;

/// The body of the first handshake message, reassembled from its records; `None` if it is incomplete.
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, Why> {
    let mut records = Reader(&bytes[..bytes.len().min(BYTES_MAX)]);
    let mut message = Vec::new();
    while let Ok([kind, major, _, high, low]) = records.array() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if (kind, major) != (HANDSHAKE, MAJOR) {
            return Err("it is truncated");
        }
        if length == 0 {
            return Err("a record is empty");
        }
        if length > RECORD_MAX {
            return Err("a record is too long");
        }
        let here = length.min(records.0.len());
        let missing = length - here;
        message.extend_from_slice(records.take(here)?);
        if let Some(end) = end(&message)? {
            // The next message has other keys, so it starts a new record (RFC 8446 5.1).
            if message.len() + missing > end {
                return Err("the record has more data after it");
            }
            if message.len() == end {
                return Ok(Some(message.split_off(4)));
            }
        }
    }
    if bytes.len() >= BYTES_MAX { Err(TOO_LARGE) } else { Ok(None) }
}

/// Where a message that begins like this will end, once its header is complete.
fn end(message: &[u8]) -> Result<Option<usize>, Why> {
    match *message {
        [CLIENT_HELLO, high, middle, low, ..] => {
            let end = 4 + u32::from_be_bytes([0, high, middle, low]) as usize;
            if end > BYTES_MAX { Err(TOO_LARGE) } else { Ok(Some(end)) }
        }
        [] | [CLIENT_HELLO, ..] => Ok(None),
        _ => Err("the first message is not a ClientHello"),
    }
}

const TOO_LARGE: Why = "it is too large";

/// `server_name` (RFC 6066 3).
const SERVER_NAME: usize = 0;
/// `encrypted_client_hello` (RFC 9849 5).
const ENCRYPTED_CLIENT_HELLO: usize = 0xfe0d;

impl ClientHello {
    fn read(body: &[u8]) -> Result<Self, Why> {
        let mut body = Reader(body);
        // TLS 1.3 calls itself 1.2 here.
        if !(0x0301..=0x0303).contains(&body.number::<2>()?) {
            return Err("its version is not TLS 1.0 to 1.3");
        }
        let _random = body.take(32)?;
        if body.vector::<1>()?.len() > 32 {
            return Err("the session id is too long");
        }
        let suites = body.vector::<2>()?;
        if suites.is_empty() || suites.len() % 2 != 0 {
            return Err("the cipher suites are not pairs of bytes");
        }
        if body.vector::<1>()?.is_empty() {
            return Err("it has no compression method");
        }
        let mut hello = Self { server_name: None, encrypted: false };
        if body.0.is_empty() {
            return Ok(hello);
        }
        let mut extensions = Reader(body.vector::<2>()?);
        body.end()?;
        let mut seen = HashSet::new();
        while !extensions.0.is_empty() {
            let kind = extensions.number::<2>()?;
            let data = Reader(extensions.vector::<2>()?);
            if !seen.insert(kind) {
                return Err("an extension is repeated");
            }
            match kind {
                SERVER_NAME => hello.server_name = Some(server_name(data)?),
                ENCRYPTED_CLIENT_HELLO => {
                    encrypted_client_hello(data)?;
                    hello.encrypted = true;
                }
                _ => {}
            }
        }
        Ok(hello)
    }
}

fn server_name(mut data: Reader<'_>) -> Result<String, Why> {
    let mut names = Reader(data.vector::<2>()?);
    data.end()?;
    if names.0.is_empty() {
        return Err("the list of server names is empty");
    }
    if names.number::<1>()? != 0 {
        return Err("a server name is not a host name");
    }
    let name = names.vector::<2>()?;
    if !names.0.is_empty() {
        return Err("it has more than one server name");
    }
    host_name(name)
}

fn host_name(name: &[u8]) -> Result<String, Why> {
    if name.is_empty() {
        return Err("the server name is empty");
    }
    if name.len() > 253 {
        return Err("the server name is too long");
    }
    let text = str::from_utf8(name).ok().filter(|text| text.is_ascii());
    let text = text.ok_or("the server name is not ASCII")?.to_ascii_lowercase();
    if text.ends_with('.') {
        return Err("the server name ends with a dot");
    }
    // This includes old spellings such as `127.1` and `0x7f000001`: no top-level domain is a number.
    let last = text.rsplit('.').next().unwrap_or_default();
    let decimal = last.bytes().all(|b| b.is_ascii_digit());
    let hexadecimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    if decimal
        || last.strip_prefix("0x").is_some_and(hexadecimal)
        || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    {
        return Err("the server name is an address");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !text.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(plain)) {
        return Err("the server name is invalid");
    }
    Ok(text)
}

fn encrypted_client_hello(mut data: Reader<'_>) -> Result<(), Why> {
    const BROKEN: Why = "the Encrypted Client Hello is malformed";
    match data.number::<1>()? {
        0 => {}
        1 => return Err("an inner ClientHello was sent unencrypted"),
        _ => return Err(BROKEN),
    }
    let _cipher_suite_and_config_id = data.take(5)?;
    let _key = data.vector::<2>()?;
    if data.vector::<2>()?.is_empty() {
        return Err(BROKEN);
    }
    data.end()
}

type Why = &'static str;

/// Bytes yet to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Why> {
        self.0.split_off(..count).ok_or("a length in it is wrong")
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Why> {
        let (array, rest) = self.0.split_first_chunk().ok_or("a length in it is wrong")?;
        self.0 = rest;
        Ok(*array)
    }

    /// A number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<usize, Why> {
        Ok(self.array::<N>()?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// Bytes with a length prefix of `N` bytes.
    fn vector<const N: usize>(&mut self) -> Result<&'a [u8], Why> {
        let length = self.number::<N>()?;
        self.take(length)
    }

    /// Checks that nothing is left.
    fn end(self) -> Result<(), Why> {
        if self.0.is_empty() { Ok(()) } else { Err("a length in it is wrong") }
    }
}

#[cfg(test)]
mod tests;
