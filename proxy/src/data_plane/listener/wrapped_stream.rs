//! A connection with our own way of reading, and otherwise the client's stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http10::Old;
use crate::{data_plane::detached, progress};

/// How a connection is read.
pub(super) trait Reading: std::fmt::Debug + Unpin + Send + Sync + 'static {
    /// As `AsyncRead::poll_read`, on the client's connection.
    fn poll_read(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// The writer of responses, if they must be rewritten.
    fn old(&mut self) -> Option<&mut Old> {
        None
    }

    /// Takes the connection if it is abandoned before the client's request has ended.
    fn give_up(&mut self, _inner: &mut Stream) {}
}

/// The client's connection, read in the way of `R`.
#[derive(Debug)]
pub(super) struct WrappedStream<R: Reading> {
    pub(super) inner: Stream,
    pub(super) reading: R,
}

impl<R: Reading> Drop for WrappedStream<R> {
    fn drop(&mut self) {
        self.reading.give_up(&mut self.inner);
    }
}

/// The replacement of a connection that was taken.
pub(super) fn taken_away() -> Stream {
    Box::new(io::Cursor::new(Vec::new()))
}

impl<R: Reading> AsyncRead for WrappedStream<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(over) = progress::timeout_error() {
            return Poll::Ready(Err(over));
        }
        let this = self.get_mut();
        progress::poll_reading(|| this.reading.poll_read(&mut this.inner, cx, buf))
    }
}

/// Records how much the client read, unless its time is up.
fn written(write: impl FnOnce() -> Poll<io::Result<usize>>, all: usize) -> Poll<io::Result<usize>> {
    if let Some(over) = progress::timeout_error() {
        return Poll::Ready(Err(over));
    }
    let written = taken(write(), all);
    match &written {
        Poll::Pending => progress::written(None),
        Poll::Ready(Ok(bytes)) => progress::written(Some(*bytes)),
        Poll::Ready(Err(_)) => {}
    }
    written
}

/// A disconnected client accepts everything, if the exchange continues without it.
fn taken<T>(written: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
    match written {
        Poll::Ready(Err(_)) if detached::lost() => Poll::Ready(Ok(instead)),
        written => written,
    }
}

impl<R: Reading> AsyncWrite for WrappedStream<R> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, reading } = self.get_mut();
        written(
            || match reading.old() {
                Some(old) => old.poll_write(inner, cx, buf),
                None => Pin::new(inner).poll_write(cx, buf),
            },
            buf.len(),
        )
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, reading } = self.get_mut();
        let sent = match reading.old() {
            Some(old) => old.poll_send(inner, cx),
            None => Poll::Ready(Ok(())),
        };
        let flushed = match sent {
            Poll::Ready(Ok(())) => Pin::new(inner).poll_flush(cx),
            unsent => unsent,
        };
        taken(flushed, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, reading } = self.get_mut();
        if let Some(old) = reading.old() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return taken(old.poll_write(inner, cx, first), first.len());
        }
        let all = bufs.iter().map(|buf| buf.len()).sum();
        written(|| Pin::new(inner).poll_write_vectored(cx, bufs), all)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<R: Reading> Shutdown for WrappedStream<R> {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl<R: Reading> UniqueID for WrappedStream<R> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<R: Reading> Ssl for WrappedStream<R> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<R: Reading> GetTimingDigest for WrappedStream<R> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl<R: Reading> GetProxyDigest for WrappedStream<R> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl<R: Reading> GetSocketDigest for WrappedStream<R> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl<R: Reading> Peek for WrappedStream<R> {}
