//! A connection for large request bodies.
//!
//! While Pingora writes a part of the body, it does not read the response. If an upstream responded and then
//! stopped reading, the response would only be seen after the write's timeout. So no write waits: what the
//! upstream does not accept immediately is buffered here, and until it has been written no more is read from
//! the client.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::{
    Result,
    connectors::l4::Connect,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
    upstreams::peer::HttpPeer,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Sleep, sleep, timeout},
};

use super::Transport;
use crate::progress;

/// The maximum of buffered bytes that were read before the upstream stopped reading: a few parts of 64 KiB,
/// which would otherwise wait elsewhere.
const BEHIND_MAX: usize = 1 << 20;
/// How long an upstream that has responded may read nothing, until the connection is closed.
const GRACE: Duration = Duration::from_secs(2);

/// Makes `peer` connect in the way that uploads need. Such a connection is not used again.
pub(crate) fn decorate(peer: &mut HttpPeer, transport: Transport) {
    peer.options.custom_l4 = Some(Arc::new(Attentively(transport)));
}

#[derive(Debug)]
struct Attentively(Transport);

#[async_trait]
impl Connect for Attentively {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let connection = Attentive::new(self.0.connect(address).await?);
        Ok(VirtualSocketStream::new(Box::new(connection)).into())
    }
}

/// Accepts every write immediately.
#[derive(Debug)]
struct Attentive<C: Io> {
    /// `None` only when it is dropped.
    connection: Option<C>,
    /// The bytes still to be written.
    behind: BytesMut,
    /// Whether the backlog was reported.
    is_behind: bool,
    /// The remaining time of an upstream that has responded.
    grace: Option<Pin<Box<Sleep>>>,
    broken: bool,
}

/// The underlying connection.
trait Io: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send + Sync + 'static {}
impl<C: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send + Sync + 'static> Io for C {}

impl<C: Io> Attentive<C> {
    fn new(connection: C) -> Self {
        let (connection, behind) = (Some(connection), BytesMut::new());
        Self { connection, behind, is_behind: false, grace: None, broken: false }
    }

    fn inner(&mut self) -> Pin<&mut C> {
        Pin::new(self.connection.as_mut().expect("it is not dropped"))
    }

    /// Writes the backlog.
    fn poll_catch_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.behind.is_empty() {
            let connection = self.connection.as_mut().expect("it is not dropped");
            match ready!(Pin::new(connection).poll_write(cx, &self.behind)) {
                Ok(count @ 1..) => {
                    self.behind.advance(count);
                    self.grace = None;
                    progress::upstream_accepted();
                }
                failed => {
                    self.behind.clear();
                    self.broken = true;
                    self.says_behind(false);
                    cx.waker().wake_by_ref();
                    return Poll::Ready(Err(failed
                        .err()
                        .unwrap_or(io::ErrorKind::WriteZero.into())));
                }
            }
        }
        if self.is_behind {
            self.says_behind(false);
            // The client's side was polled before, in the same task.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn says_behind(&mut self, is: bool) {
        if self.is_behind != is {
            self.is_behind = is;
            progress::upstream_behind(is);
        }
    }

    /// Waits for an upstream that has responded, for a limited time.
    fn poll_grace(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let grace = self.grace.get_or_insert_with(|| Box::pin(sleep(GRACE)));
        grace.as_mut().poll(cx).map(|()| io::ErrorKind::BrokenPipe.into())
    }
}

impl<C: Io> AsyncWrite for Attentive<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Poll::Ready(caught_up) = this.poll_catch_up(cx) {
            caught_up?;
            let written = this.inner().poll_write(cx, buf);
            if written.is_ready() {
                this.grace = None;
                return written;
            }
        }
        if !progress::is_exchange() {
            return Poll::Pending;
        }
        if progress::has_response() {
            return this.poll_grace(cx).map(Err);
        }
        let room = BEHIND_MAX.saturating_sub(this.behind.len()).min(buf.len());
        if room == 0 {
            return Poll::Pending;
        }
        this.behind.extend_from_slice(&buf[..room]);
        this.says_behind(true);
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.poll_catch_up(cx) {
            Poll::Ready(caught_up) => {
                caught_up?;
                this.inner().poll_flush(cx)
            }
            Poll::Pending if !progress::is_exchange() => Poll::Pending,
            Poll::Pending if progress::has_response() => this.poll_grace(cx).map(Err),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().inner().poll_shutdown(cx)
    }
}

impl<C: Io> AsyncRead for Attentive<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Nothing else writes while a response is awaited. An upstream that cannot be written to may already
        // have responded.
        let _ = this.poll_catch_up(cx);
        this.inner().poll_read(cx, buf)
    }
}

impl<C: Io> Drop for Attentive<C> {
    /// The rest of a complete request that has a response is still written to the upstream.
    fn drop(&mut self) {
        self.says_behind(false);
        let (Some(mut connection), Ok(runtime)) =
            (self.connection.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        if self.behind.is_empty() || self.broken || self.grace.is_some() {
            return;
        }
        if !(progress::has_response() && progress::request_ended_at().is_some()) {
            return;
        }
        let behind = std::mem::take(&mut self.behind);
        runtime.spawn(async move {
            let _ = timeout(GRACE, connection.write_all(&behind)).await;
        });
    }
}

impl<C: Io> VirtualSocket for Attentive<C> {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    const SMALL: usize = 1000;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8).collect()
    }

    #[tokio::test]
    async fn a_write_never_waits_and_nothing_is_lost() {
        let (upstream, mut there) = duplex(SMALL);
        let body = bytes(300_000);
        let exchange = progress::exchange(async {
            let mut connection = Attentive::new(upstream);
            connection.write_all(&body).await.unwrap();
            connection.flush().await.unwrap();
            assert!(connection.is_behind);
            // It is written while a response is awaited, which may arrive in between.
            let answer = async {
                let mut answer = vec![0; 2];
                connection.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, b"ok");
                assert!(!connection.is_behind);
            };
            let other = async {
                let mut got = vec![0; body.len()];
                there.read_exact(&mut got).await.unwrap();
                assert!(got == body);
                there.write_all(b"ok").await.unwrap();
            };
            tokio::join!(answer, other);
        });
        exchange.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_stored_is_bounded() {
        let (upstream, _there) = duplex(SMALL);
        let written = progress::exchange(async {
            let mut connection = Attentive::new(upstream);
            let write = async {
                let mut written = 0;
                while let Ok(count) = connection.write(&[0; 5000]).await {
                    written += count;
                    assert!(written <= SMALL + BEHIND_MAX);
                }
            };
            assert!(timeout(Duration::from_millis(100), write).await.is_err());
            connection.behind.len()
        });
        assert_eq!(written.await, Some(BEHIND_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_responded_and_reads_nothing_is_closed() {
        let (upstream, _there) = duplex(SMALL);
        let exchange = progress::exchange(async {
            let mut connection = Attentive::new(upstream);
            connection.write_all(&bytes(5000)).await.unwrap();
            progress::response_ended();
            let began = tokio::time::Instant::now();
            let error = connection.write_all(b"more").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert!(began.elapsed() >= GRACE);
        });
        exchange.await.unwrap();
    }

    #[tokio::test]
    async fn the_rest_of_a_body_is_still_sent_after_the_response() {
        let (upstream, mut there) = duplex(SMALL);
        let body = bytes(50_000);
        let exchange = progress::exchange(async {
            progress::begin(filters::progress::ClientRules {
                body_timeout: GRACE,
                write_timeout: GRACE,
                rate_min: 0,
            });
            let mut connection = Attentive::new(upstream);
            connection.write_all(&body).await.unwrap();
            progress::request_ended();
            progress::response_ended();
        });
        exchange.await.unwrap();
        let mut got = Vec::new();
        there.read_to_end(&mut got).await.unwrap();
        assert!(got == body);
    }

    #[tokio::test]
    async fn a_connection_of_many_exchanges_waits_as_any() {
        let (upstream, _there) = duplex(SMALL);
        let mut connection = Attentive::new(upstream);
        let written = timeout(Duration::from_millis(50), connection.write_all(&bytes(5000))).await;
        assert!(written.is_err() && connection.behind.is_empty());
    }
}
