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

use super::{HeadRefusal, Limits, connection_limits::Places, proxy_protocol};

/// What a listener has to be told before HTTP.
pub(super) struct Begin {
    tls: Option<Acceptor>,
    handshakes: Arc<Places>,
}

/// Why a connection never came to HTTP.
pub(super) enum Ended {
    /// By us: it belongs on record.
    Refused(HeadRefusal),
    /// By its client, or by what it said instead of TLS.
    Gone,
}

impl Begin {
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
    ) -> Result<Stream, Ended> {
        let Some(tls) = &self.tls else { return Ok(stream) };
        // Of a connection that only began. It counts among the others, too.
        let (max, per_client_max) = (limits.handshakes_max, limits.handshakes_per_client_max);
        let _place = self
            .handshakes
            .take(peer, max, per_client_max)
            .ok_or(Ended::Refused(HeadRefusal::HandshakesExhausted))?;
        let socket = stream.into_any().downcast::<Socket>().map_err(|_| Ended::Gone)?;
        let mut socket = *socket;
        let mut first = [0; 12];
        let count = match timeout_at(deadline, socket.read(&mut first)).await {
            Ok(Ok(count @ 1..)) => count,
            Ok(_) => return Err(Ended::Gone),
            Err(_) => return Err(Ended::Refused(HeadRefusal::HandshakeTimeout)),
        };
        let first = &first[..count];
        if proxy_protocol::begins(first) {
            return Err(Ended::Refused(HeadRefusal::Malformed(proxy_protocol::UNEXPECTED)));
        }
        socket.rewind(first);
        match timeout_at(deadline, tls.tls_handshake(socket)).await {
            Ok(Ok(secured)) => Ok(Box::new(secured)),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "no TLS handshake");
                Err(Ended::Gone)
            }
            Err(_) => Err(Ended::Refused(HeadRefusal::HandshakeTimeout)),
        }
    }
}
