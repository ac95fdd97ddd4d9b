//! Connections that go over to another protocol (WebSocket).
//!
//! Pingora tears such a connection down if the upstream's 101 is read before it has noted the end
//! of the (empty) request body. A connection that first says "not yet" to every read lets it note
//! that in time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, Result,
    connectors::l4::Connect,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
    upstreams::peer::HttpPeer,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

/// Makes `peer` connect in the way that upgrades need.
pub fn decorate(peer: &mut HttpPeer, connect_timeout: Duration) {
    peer.options.custom_l4 = Some(Arc::new(Patiently { connect_timeout }));
}

#[derive(Debug)]
struct Patiently {
    connect_timeout: Duration,
}

#[async_trait]
impl Connect for Patiently {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectNoRoute, "not an internet address");
        };
        #[expect(clippy::disallowed_methods, reason = "the address was resolved in `dial`")]
        let connected = timeout(self.connect_timeout, TcpStream::connect(address)).await;
        let tcp = match connected {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Error::e_because(ErrorType::ConnectRefused, "upgrade", error);
            }
            Ok(Err(error)) => return Error::e_because(ErrorType::ConnectError, "upgrade", error),
            Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, "upgrade"),
        };
        // Small frames must not wait for each other.
        let _ = tcp.set_nodelay(true);
        Ok(VirtualSocketStream::new(Box::new(Patient { tcp, asked: false })).into())
    }
}

/// Says "not yet" once before every real read.
#[derive(Debug)]
struct Patient {
    tcp: TcpStream,
    asked: bool,
}

impl VirtualSocket for Patient {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.asked {
            this.asked = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.tcp).poll_read(cx, buf);
        this.asked = polled.is_pending();
        polled
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
