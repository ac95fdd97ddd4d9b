//! The trailers of a chunked body, which are parsed and dropped (RFC 9110 6.5.1).
//!
//! They are parsed as strictly as headers: malformed ones are meant to be read in two ways.

/// A place in a trailer section.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    /// Bytes so far.
    length: usize,
    /// How the name of this line begins, in lower case, and how long it is.
    begins: [u8; NAME_MAX],
    name: usize,
    at: At,
}

#[derive(Debug, Default, Clone, Copy)]
enum At {
    #[default]
    Line,
    Name,
    Value,
    /// The line feed of a line, or of the last, empty one.
    LineEnd,
    End,
}

/// No known client sends any; without a limit a client could keep us reading them.
const LENGTH_MAX: usize = 8 << 10;
/// Fields about framing and routing, which are not allowed in trailers.
const FRAMING: [&[u8]; 8] = [
    b"connection",
    b"content-length",
    b"host",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"expect",
];
const NAME_MAX: usize = 17;

impl Trailers {
    /// Reads on; returns whether that was the end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.length += 1;
        if self.length > LENGTH_MAX {
            return Err("the trailers are too long");
        }
        let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        self.at = match (self.at, byte) {
            (At::Line, b'\r') => At::End,
            (At::Line, b' ' | b'\t') => return Err("a trailer is folded over two lines"),
            (At::Line, b) if super::request_head::is_token(b) => {
                self.name = 0;
                self.say(b);
                At::Name
            }
            (At::Name, b':') if self.frames() => return Err("a trailer is about framing"),
            (At::Name, b':') => At::Value,
            (At::Name, b) if super::request_head::is_token(b) => {
                self.say(b);
                At::Name
            }
            (At::Line | At::Name, _) => return Err("a trailer has no name, or no colon"),
            (At::Value, b'\r') => At::LineEnd,
            (At::Value, _) if is_text => At::Value,
            (At::Value, _) => return Err("a trailer has a control character"),
            (At::LineEnd, b'\n') => At::Line,
            (At::End, b'\n') => return Ok(true),
            (At::LineEnd | At::End, _) => return Err("a trailer does not end with CR LF"),
        };
        Ok(false)
    }

    fn say(&mut self, byte: u8) {
        if let Some(place) = self.begins.get_mut(self.name) {
            *place = byte.to_ascii_lowercase();
        }
        self.name += 1;
    }

    fn frames(&self) -> bool {
        self.begins.get(..self.name).is_some_and(|name| FRAMING.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it ends well, with its last byte.
    fn read(section: &[u8]) -> Result<(), &'static str> {
        let mut trailers = Trailers::default();
        let (last, before) = section.split_last().unwrap();
        for byte in before {
            assert!(!trailers.step(*byte)?, "{}", section.escape_ascii());
        }
        trailers.step(*last).map(|over| assert!(over))
    }

    #[test]
    fn trailers_are_lines_like_headers() {
        let sections: [&[u8]; 5] = [
            b"\r\n",
            b"A: b\r\n\r\n",
            b"Grpc-Status:0\r\nX-Empty:\r\n\r\n",
            b"Content-Length-Before: 1\r\n\r\n",
            b"X-Very-Long-Name-Of-A-Trailer: \xe4\t1\r\n\r\n",
        ];
        for section in sections {
            assert_eq!(read(section), Ok(()), "{}", section.escape_ascii());
        }
    }

    #[test]
    fn what_would_be_no_header_is_no_trailer() {
        let broken: [&[u8]; 18] = [
            b"no colon\r\n\r\n",
            b"nocolon\r\n\r\n",
            b": x\r\n\r\n",
            b":path: /x\r\n\r\n",
            b":status: 200\r\n\r\n",
            b"A : b\r\n\r\n",
            b" A: b\r\n\r\n",
            b"A: b\r\n c\r\n\r\n",
            b"A: b\r\n\tc\r\n\r\n",
            b"A: b\n\r\n",
            b"A: b\rC: d\r\n\r\n",
            b"A: \0\r\n\r\n",
            b"A(: b\r\n\r\n",
            b"\n",
            b"\rX",
            b"content-LENGTH: 5\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"Host: evil\r\n\r\n",
        ];
        for section in broken {
            assert!(read(section).is_err(), "{}", section.escape_ascii());
        }
        let long = [b"A: ".as_slice(), &[b'x'; 9000], b"\r\n\r\n"].concat();
        assert!(read(&long).is_err());
    }
}
