//! Upgraded connections (WebSocket).
//!
//! Pingora closes such a connection if the upstream's 101 is read before it has seen the end of the (empty)
//! request body. A connection that first returns "pending" to every read lets it see that in time.
//!
//! It also ends a handshake without a response: Backstage never responds to some.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use filters::{head::offers_websocket, progress::Timeouts};
use http::{HeaderValue, Version, header};
use pingora::{
    Result,
    connectors::l4::Connect,
    http::RequestHeader,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
    upstreams::peer::HttpPeer,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{head_edit, net::parent::Connection, upstream::Transport};

/// Whether the upstream has responded to an upgrade. From then on the connection may be silent for as long
/// as a stream may.
#[derive(Clone, Debug, Default)]
pub struct UpgradeAnswered(Arc<AtomicBool>);

impl UpgradeAnswered {
    /// Records that it has.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Removes every offered upgrade but WebSocket. Others are offers that a server may ignore (RFC 9110 7.8):
/// `h2c` of Java's client and curl, `TLS/1.2` of Apache's. Pingora would treat any as an upgrade.
pub fn note_offer(request: &mut RequestHeader) {
    if !request.headers.contains_key(header::UPGRADE) {
        return;
    }
    let websocket = request.version == Version::HTTP_11 && offers_websocket(&request.headers);
    head_edit::edit_request(request, |parts| {
        parts.headers.remove(header::UPGRADE);
        parts.headers.remove("http2-settings");
        if websocket {
            parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
    });
}

/// Makes `peer` connect in the way that upgrades need.
pub fn decorate(peer: &mut HttpPeer, timeouts: &Timeouts, answered: &UpgradeAnswered) {
    let transport = Transport { patience: timeouts.connect, through: None };
    decorate_by(peer, timeouts, answered, transport);
}

/// The same for an upstream with its own transport.
pub(crate) fn decorate_by(
    peer: &mut HttpPeer,
    timeouts: &Timeouts,
    answered: &UpgradeAnswered,
    transport: Transport,
) {
    peer.options.custom_l4 = Some(Arc::new(Patiently {
        transport,
        answer_timeout: timeouts.upgrade,
        answered: answered.clone(),
    }));
}

#[derive(Debug)]
struct Patiently {
    transport: Transport,
    answer_timeout: Duration,
    answered: UpgradeAnswered,
}

#[async_trait]
impl Connect for Patiently {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let patient = Patient {
            tcp: self.transport.connect(address).await?,
            asked: false,
            answered: self.answered.clone(),
            patience: Some(Box::pin(sleep(self.answer_timeout))),
        };
        Ok(VirtualSocketStream::new(Box::new(patient)).into())
    }
}

/// Returns "pending" once before every real read.
#[derive(Debug)]
struct Patient {
    tcp: Connection,
    asked: bool,
    answered: UpgradeAnswered,
    patience: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// Whether the upstream's time to respond is over.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if self.answered.is_noted() {
            self.patience = None;
        }
        self.patience.as_mut().is_some_and(|patience| patience.as_mut().poll(cx).is_ready())
    }
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
        if polled.is_pending() && this.is_overdue(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
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
