//! Responses to HTTP/1.0 clients: they do not know chunks, so a body without a length ends with the
//! connection (RFC 9112 6.1, 6.3). Pingora always responds in HTTP/1.1; here its chunks are removed again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use tokio::io::AsyncWrite;

/// The response to one request while it is sent.
#[derive(Debug, Default)]
pub(super) struct Old {
    at: At,
    /// The head or chunk size line so far.
    line: Vec<u8>,
    /// Written by Pingora, and not sent yet.
    out: BytesMut,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Head,
    /// The body is sent unchanged: the head has its length.
    Body,
    Size,
    /// Of a chunk, with the line end after it.
    Chunk(usize),
    /// After the last chunk: nothing more is sent.
    Over,
}

impl Old {
    /// Whether the response ends with the connection.
    pub(super) fn ends_connection(&self) -> bool {
        !matches!(self.at, At::Head | At::Body)
    }

    /// As `AsyncWrite::poll_write`.
    pub(super) fn poll_write(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(inner, cx))?;
        self.take(buf);
        // What does not go out now goes before the next.
        match self.poll_send(inner, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(buf.len())),
        }
    }

    /// Sends the rest.
    pub(super) fn poll_send(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut *inner).poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, mut buf: &[u8]) {
        while !buf.is_empty() {
            let used = match &mut self.at {
                At::Head => self.head(buf),
                At::Body => {
                    self.out.extend_from_slice(buf);
                    buf.len()
                }
                At::Size => self.size(buf),
                At::Chunk(left) => {
                    let used = buf.len().min(*left);
                    // The last two bytes are its line end.
                    let data = used.min(left.saturating_sub(2));
                    *left -= used;
                    self.out.extend_from_slice(&buf[..data]);
                    if *left == 0 {
                        self.at = At::Size;
                    }
                    used
                }
                At::Over => buf.len(),
            };
            buf = &buf[used..];
        }
    }

    fn head(&mut self, buf: &[u8]) -> usize {
        let before = self.line.len();
        self.line.extend_from_slice(buf);
        let from = before.saturating_sub(3);
        let Some(at) = memchr::memmem::find(&self.line[from..], b"\r\n\r\n") else {
            return buf.len();
        };
        let end = from + at + 4;
        let head = std::mem::take(&mut self.line);
        let head = &head[..end];
        if is_chunked(head) {
            self.rewrite(head);
            self.at = At::Size;
        } else {
            self.out.extend_from_slice(head);
            self.at = At::Body;
        }
        end - before
    }

    fn rewrite(&mut self, head: &[u8]) {
        for line in lines(head).filter(|line| !line.is_empty()) {
            let out = match name(line) {
                b"transfer-encoding" => continue,
                b"connection" => &b"connection: close"[..],
                _ => line,
            };
            self.out.extend_from_slice(out);
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn size(&mut self, buf: &[u8]) -> usize {
        let Some(end) = memchr::memchr(b'\n', buf) else {
            self.line.extend_from_slice(buf);
            return buf.len();
        };
        self.line.extend_from_slice(&buf[..end]);
        let line = std::mem::take(&mut self.line);
        let size = std::str::from_utf8(line.trim_ascii()).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        self.at = match size {
            Some(size @ 1..) => At::Chunk(size.saturating_add(2)),
            _ => At::Over,
        };
        end + 1
    }
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// A header's name, if it is one of the two that matter.
fn name(line: &[u8]) -> &'static [u8] {
    let name = line.split(|b| *b == b':').next().unwrap_or_default();
    let known = [&b"transfer-encoding"[..], b"connection"];
    known.into_iter().find(|known| name.eq_ignore_ascii_case(known)).unwrap_or_default()
}

fn is_chunked(head: &[u8]) -> bool {
    lines(head).any(|line| name(line) == b"transfer-encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(written: &[u8], cut: usize) -> (String, bool) {
        let mut old = Old::default();
        for part in written.chunks(cut) {
            old.take(part);
        }
        (String::from_utf8(old.out.to_vec()).unwrap(), old.ends_connection())
    }

    #[test]
    fn chunks_are_taken_apart_wherever_they_were_cut() {
        let written = b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\nC\r\n, 0\r\nwor\r\nld\r\n0\r\n\r\n";
        let wanted = "HTTP/1.1 200 OK\r\nA: b\r\nconnection: close\r\n\r\nhello, 0\r\nwor\r\nld";
        for cut in 1..written.len() {
            assert_eq!(sent(written, cut), (wanted.to_owned(), true), "{cut}");
        }
    }

    #[test]
    fn what_has_a_length_stays_as_it_is() {
        let written =
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n5\r\n\r\n";
        let text = std::str::from_utf8(written).unwrap();
        for cut in 1..written.len() {
            assert_eq!(sent(written, cut), (text.to_owned(), false), "{cut}");
        }
    }
}
