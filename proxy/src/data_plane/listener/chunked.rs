//! Finds the end of a chunked body, strictly as in RFC 9112 7.1.

use super::trailers::Trailers;

/// A place in a chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of this chunk's extensions.
    extra: usize,
    trailers: Trailers,
}

#[derive(Debug)]
enum At {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd,
    DataEndLf,
    Trailers,
    Over,
}

impl Default for At {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

/// No known client sends any; without a limit a client could keep us reading them.
const EXTENSION_MAX: usize = 256;

impl Chunks {
    /// Whether the body has been read to its end.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.at, At::Over)
    }

    /// Reads on; returns how many of `bytes` belong to the body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_over() {
            if let At::Data { left } = &mut self.at {
                let here = bytes.len() - taken;
                let ours = here.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= ours as u64;
                taken += ours;
                if *left == 0 {
                    self.at = At::DataEnd;
                }
                continue;
            }
            self.step(bytes[taken])?;
            taken += 1;
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        self.at = match (&self.at, byte) {
            (&At::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // No client sends fifteen digits, and they cannot overflow.
                if digits == 15 {
                    return Err("a chunk's size has too many digits");
                }
                let digit = char::from(byte).to_digit(16).expect("a hexadecimal digit");
                At::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (&At::Size { size, digits: 1.. }, b'\r') => At::SizeEnd { size },
            (&At::Size { size, digits: 1.. }, b';') => {
                self.extra = 0;
                At::Extension { size }
            }
            (At::Size { .. }, _) => return Err("a chunk's size is not a plain number"),
            (&At::Extension { size }, b'\r') => At::SizeEnd { size },
            (&At::Extension { size }, _) if is_text => {
                self.extra += 1;
                if self.extra > EXTENSION_MAX {
                    return Err("a chunk's extension is too long");
                }
                At::Extension { size }
            }
            (At::Extension { .. }, _) => return Err("a chunk's extension is not text"),
            (At::SizeEnd { size: 0 }, b'\n') => At::Trailers,
            (&At::SizeEnd { size }, b'\n') => At::Data { left: size },
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => At::default(),
            (At::Trailers, byte) => match self.trailers.step(byte)? {
                true => At::Over,
                false => At::Trailers,
            },
            (At::Data { .. } | At::Over, _) => unreachable!("`take` goes past both"),
            _ => return Err("a chunk does not end with CR LF"),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the body at the beginning; `None` if it is malformed.
    fn length(body: &[u8]) -> Option<usize> {
        let mut chunks = Chunks::default();
        let taken = chunks.take(body).ok()?;
        assert!(chunks.is_over(), "{} is not whole", body.escape_ascii());
        Some(taken)
    }

    const GOOD: [&[u8]; 6] = [
        b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"00A\r\n0123456789\r\n000\r\n\r\n",
        b"1;name=value;other=\"a b\"\r\nx\r\n0;last\r\n\r\n",
        b"2\r\n\r\n\r\n0\r\n\r\n",
        b"0\r\nX-Sum: 1\r\nOther: 2\r\n\r\n",
    ];

    #[test]
    fn a_body_ends_after_its_last_chunk() {
        for body in GOOD {
            let followed = [body, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(length(&followed), Some(body.len()), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn it_does_not_matter_where_the_bytes_were_cut() {
        for body in GOOD {
            for cut in 0..body.len() {
                let mut chunks = Chunks::default();
                assert_eq!(chunks.take(&body[..cut]), Ok(cut));
                assert!(!chunks.is_over());
                assert_eq!(chunks.take(&body[cut..]), Ok(body.len() - cut));
                assert!(chunks.is_over());
            }
        }
    }

    #[test]
    fn what_others_might_read_differently_is_refused() {
        let long = [b"1;".as_slice(), &[b'x'; 300], b"\r\nx\r\n0\r\n\r\n"].concat();
        let broken: [&[u8]; 23] = [
            b"\r\n\r\n",
            b";a\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5 ;a\r\nhello\r\n0\r\n\r\n",
            b"5\t\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\rXhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\0\r\nhello\r\n0\r\n\r\n",
            b"g\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\n\n",
            b"0\r\nA: b\nC: d\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nA: b\r\n folded\r\n\r\n",
            b"0\r\n:path: /x\r\n\r\n",
            &long,
        ];
        for body in broken {
            assert_eq!(length(body), None, "{}", body.escape_ascii());
        }
    }
}
