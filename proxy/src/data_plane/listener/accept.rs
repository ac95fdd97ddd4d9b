//! How a connection begins: what comes on it before HTTP, within one time and a number.
//!
//! Pingora would give a handshake a minute, and count none.

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

/// What a listener has to be told before HTTP.
pub(super) struct Accept {
    tls: Option<Acceptor>,
    handshakes: Arc<ConnectionLimits>,
}

/// Why a connection never came to HTTP.
pub(super) enum NotAccepted {
    /// By us: it belongs on record.
    Refused(HeadRefusal),
    /// By its client, or by what it said instead of TLS.
    Gone,
}

impl Accept {
    /// With `tls`, if the listener serves it.
    pub(super) fn new(tls: Option<Acceptor>) -> Self {
        Self { tls, handshakes: Arc::default() }
    }

    /// Whether nothing is said here but in TLS.
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
        let socket = stream.into_any().downcast::<Socket>().map_err(|_| NotAccepted::Gone)?;
        let mut socket = *socket;
        let mut first = [0; 12];
        let count = match timeout_at(deadline, socket.read(&mut first)).await {
            Ok(Ok(count @ 1..)) => count,
            Ok(_) => return Err(NotAccepted::Gone),
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
                Err(NotAccepted::Gone)
            }
            Err(_) => Err(NotAccepted::Refused(HeadRefusal::HandshakeTimeout)),
        }
    }
}
