//! How a connection begins: the PROXY protocol and TLS, within a time limit and a number of connections.
//!
//! Pingora would allow a handshake a minute, and any number of them.

use std::{net::IpAddr, sync::Arc};

use pingora::{
    listeners::tls::Acceptor,
    protocols::{Stream, l4::stream::Stream as Socket},
};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{HeadRefusal, Limits, connection_limits::ConnectionLimits, proxy_protocol};

/// What precedes HTTP on a listener's connections.
pub(super) struct Accept {
    tls: Option<Acceptor>,
    handshakes: Arc<ConnectionLimits>,
}

/// Why a connection never reached HTTP.
pub(super) enum NotAccepted {
    /// Refused by us, so it is recorded.
    Refused(HeadRefusal),
    /// Closed by its client, or not TLS.
    Closed,
}

impl Accept {
    /// With `tls`, if the listener serves it.
    pub(super) fn new(tls: Option<Acceptor>) -> Self {
        Self { tls, handshakes: Arc::default() }
    }

    /// Whether connections use TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Ready for HTTP, by `deadline`.
    pub(super) async fn serve(
        &self,
        stream: Stream,
        peer: IpAddr,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Stream, NotAccepted> {
        let Some(tls) = &self.tls else { return Ok(stream) };
        // Of a connection that only began. It counts among the others, too.
        let (max, per_client_max) = (limits.handshakes_max, limits.handshakes_per_client_max);
        let _place = self
            .handshakes
            .take(peer, max, per_client_max)
            .ok_or(NotAccepted::Refused(HeadRefusal::HandshakesExhausted))?;
        let socket = stream.into_any().downcast::<Socket>().map_err(|_| NotAccepted::Closed)?;
        let mut socket = *socket;
        let mut first = [0; 12];
        let count = match timeout_at(deadline, socket.read(&mut first)).await {
            Ok(Ok(count @ 1..)) => count,
            Ok(_) => return Err(NotAccepted::Closed),
            Err(_) => return Err(NotAccepted::Refused(HeadRefusal::HandshakeTimeout)),
        };
        let first = &first[..count];
        if proxy_protocol::begins(first) {
            return Err(NotAccepted::Refused(HeadRefusal::Malformed(proxy_protocol::UNEXPECTED)));
        }
        socket.rewind(first);
        match timeout_at(deadline, tls.tls_handshake(socket)).await {
            Ok(Ok(secured)) => Ok(Box::new(secured)),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "no TLS handshake");
                Err(NotAccepted::Closed)
            }
            Err(_) => Err(NotAccepted::Refused(HeadRefusal::HandshakeTimeout)),
        }
    }
}
