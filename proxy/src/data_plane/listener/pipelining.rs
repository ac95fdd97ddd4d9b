//! Pipelining: a connection that passes on one request at a time.
//!
//! Pingora gets to read one request and not a byte more. Otherwise it would take the beginning of the next
//! one for an error of the first, or drop it; and it parses chunk sizes more leniently than other servers.
//! Early bytes are buffered here until their turn.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{
    chunked::Chunks,
    http10::Old,
    lingering_close::UnreadRequest,
    request_head::{Body, HeadRefusal},
    wrapped_stream::{Reading, WrappedStream, taken_away},
};
use crate::data_plane::detached;

/// How far the request that has its turn still goes.
#[derive(Debug)]
pub(super) struct Pipelining {
    /// Bytes that belong to a later request.
    pub(super) ahead: BytesMut,
    rest: RemainingBody,
    /// The response to an HTTP/1.0 client, if it is one.
    old: Option<Box<Old>>,
    unread: UnreadRequest,
}

/// The rest of a request's body.
#[derive(Debug)]
enum RemainingBody {
    Length(u64),
    Chunked(Chunks),
    /// A request to go over to another protocol: the connection is not ours to divide.
    Everything,
}

/// Anything beyond this stays in the socket until its turn.
const AHEAD_MAX: usize = 16 << 10;

impl Pipelining {
    /// A connection that is abandoned within a request is put into `unread`.
    pub(super) fn new(unread: UnreadRequest) -> Self {
        Self {
            ahead: BytesMut::with_capacity(4096),
            rest: RemainingBody::Length(0),
            old: None,
            unread,
        }
    }

    /// Whether another request may follow this one.
    fn is_at_end(&self) -> bool {
        (matches!(self.rest, RemainingBody::Everything) || self.rest.is_over())
            && !self.old.as_ref().is_some_and(|old| old.ends_connection())
    }

    fn poll_ahead(&mut self, inner: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD_MAX {
            let mut space = [0; 1024];
            let mut space = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut *inner).poll_read(cx, &mut space));
            if read.is_err() || space.filled().is_empty() {
                return if detached::lost() { Poll::Pending } else { Poll::Ready(read) };
            }
            self.ahead.extend_from_slice(space.filled());
        }
        Poll::Pending
    }
}

impl WrappedStream<Pipelining> {
    /// Reads more bytes ahead; returns how many.
    pub(super) async fn more(&mut self) -> io::Result<usize> {
        self.inner.read_buf(&mut self.reading.ahead).await
    }

    /// Skips empty lines before a request line (RFC 9112 2.2), which some clients send after a body: up to
    /// `max`, which is counted down. Returns whether there was one.
    pub(super) fn skip_empty_lines(&mut self, max: &mut u8) -> bool {
        let ahead = &mut self.reading.ahead;
        let before = *max;
        while *max > 0 && ahead.starts_with(b"\r\n") {
            ahead.advance(2);
            *max -= 1;
        }
        *max < before
    }

    /// Puts `head` in the place of the one that ends at `end`; where it ends.
    pub(super) fn replace_head(&mut self, end: usize, head: &[u8]) -> usize {
        let mut ahead = BytesMut::with_capacity(head.len() + 4096);
        ahead.extend_from_slice(head);
        ahead.extend_from_slice(&self.reading.ahead[end..]);
        self.reading.ahead = ahead;
        head.len()
    }

    /// Whether the current request was read to its end, and its response does not end with the connection.
    /// If not, the next bytes are not another request.
    pub(super) fn is_at_end(&self) -> bool {
        self.reading.is_at_end()
    }

    /// The connection, and the bytes read ahead.
    pub(super) fn into_parts(mut self) -> (Stream, BytesMut) {
        let ahead = std::mem::take(&mut self.reading.ahead);
        (std::mem::replace(&mut self.inner, taken_away()), ahead)
    }

    /// Begins the request whose head ends at `end`: returns the head, with the received part of its body.
    pub(super) fn begin(&mut self, end: usize, body: Body) -> Result<BytesMut, HeadRefusal> {
        let turns = &mut self.reading;
        turns.rest = match body {
            Body::Length(length) => RemainingBody::Length(length),
            Body::Chunked => RemainingBody::Chunked(Chunks::default()),
            Body::Upgrade | Body::Tunnel => RemainingBody::Everything,
        };
        let line = turns.ahead[..end].split(|b| *b == b'\r').next().unwrap_or_default();
        turns.old = line.ends_with(b" HTTP/1.0").then(Box::default);
        let came = turns.rest.take(&turns.ahead[end..]).map_err(HeadRefusal::BodyMalformed)?;
        let all = end + came;
        if all == turns.ahead.len() {
            let next = BytesMut::with_capacity(4096);
            return Ok(std::mem::replace(&mut turns.ahead, next));
        }
        Ok(turns.ahead.split_to(all))
    }
}

impl Reading for Pipelining {
    fn old(&mut self) -> Option<&mut Old> {
        self.old.as_deref_mut()
    }

    fn give_up(&mut self, inner: &mut Stream) {
        if !self.is_at_end() {
            self.unread.put(std::mem::replace(inner, taken_away()));
        }
    }

    fn poll_read(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_over() {
            // Pingora only checks whether the client is still connected.
            return self.poll_ahead(inner, cx);
        }
        let before = buf.filled().len();
        ready!(Pin::new(inner).poll_read(cx, buf))?;
        let came = &buf.filled()[before..];
        match self.rest.take(came) {
            Ok(ours) => {
                self.ahead.extend_from_slice(&came[ours..]);
                buf.set_filled(before + ours);
                Poll::Ready(Ok(()))
            }
            Err(why) => {
                buf.set_filled(before);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)))
            }
        }
    }
}

impl RemainingBody {
    fn is_over(&self) -> bool {
        match self {
            Self::Length(length) => *length == 0,
            Self::Chunked(chunks) => chunks.is_over(),
            Self::Everything => false,
        }
    }

    /// How many of `bytes` belong to the body.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        match self {
            Self::Length(length) => {
                let ours = bytes.len().min(usize::try_from(*length).unwrap_or(usize::MAX));
                *length -= ours as u64;
                Ok(ours)
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::Everything => Ok(bytes.len()),
        }
    }
}
