//! What an error of Pingora's means, in the words of denials.

use filters::{Denial, Label, health::Fault};
use pingora::{Error, ErrorSource, ErrorType as E};

use crate::{data_plane::request::caused_by, net::parent};

/// Pingora's private error types for a chunked body and its trailers.
const BROKEN_CHUNK: &str = "InvalidChunk";
const BROKEN_TRAILERS: &str = "InvalidTrailerEnd";
/// An HTTP/2 upstream did not acknowledge a PING.
const NO_PONG: &str = "PingTimedout";

/// The fault of a failed attempt. `None` if the error is our own.
pub(crate) fn fault_of(error: &Error) -> Option<Fault> {
    match error.etype() {
        E::ReadTimedout | E::WriteTimedout | E::Custom(NO_PONG) => Some(Fault::Timeout),
        _ if caused_by(error, std::io::ErrorKind::TimedOut) => Some(Fault::Timeout),
        E::Custom(BROKEN_CHUNK | BROKEN_TRAILERS) => Some(Fault::Reset),
        E::Custom(_) => None,
        _ => Some(Fault::Reset),
    }
}

/// The denial for an error. `None` if the client disconnected: nothing was denied.
pub(crate) fn denial_of(error: &Error, upstream: Label) -> Option<Denial> {
    if error.esource() == &ErrorSource::Downstream {
        return match error.etype() {
            E::ReadTimedout => Some(Denial::BodyTimeout),
            E::InvalidHTTPHeader
            | E::H1Error
            | E::InvalidH2
            | E::Custom(BROKEN_CHUNK | BROKEN_TRAILERS) => Some(Denial::BodyMalformed),
            // The listener found malformed chunks.
            E::ReadError if caused_by(error, std::io::ErrorKind::InvalidData) => {
                Some(Denial::BodyMalformed)
            }
            // So did h2, of trailers or of a length.
            _ if is_fault(error) => Some(Denial::BodyMalformed),
            // An HTTP/2 error can also mean that the client cancelled.
            _ => None,
        };
    }
    if let Some(fault) = error.root_cause().downcast_ref::<parent::Fault>() {
        return Some(fault.clone().denial());
    }
    Some(match error.etype() {
        E::ConnectTimedout | E::TLSHandshakeTimedout => Denial::ConnectTimeout { upstream },
        E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::SocketError => {
            Denial::UpstreamUnreachable { upstream }
        }
        E::HandshakeError | E::H2Error if broke_off(error) => Denial::UpstreamReset { upstream },
        E::TLSHandshakeFailure | E::InvalidCert | E::HandshakeError => {
            Denial::UpstreamTls { upstream }
        }
        E::ReadTimedout | E::WriteTimedout | E::Custom(NO_PONG) => {
            Denial::UpstreamTimeout { upstream }
        }
        E::ReadError | E::WriteError | E::ConnectionClosed => Denial::UpstreamReset { upstream },
        E::InvalidHTTPHeader
        | E::H1Error
        | E::H2Error
        | E::InvalidH2
        | E::H2Downgrade
        | E::Custom(BROKEN_CHUNK | BROKEN_TRAILERS) => {
            Denial::UpstreamMalformed { upstream, why: malformed(error) }
        }
        _ => {
            tracing::error!(%error, "unexpected");
            Denial::Internal
        }
    })
}

/// What is wrong with a response that Pingora or `h2` could not parse.
fn malformed(error: &Error) -> &'static str {
    let context = error.context.as_ref().map_or("", |context| context.as_str());
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    if matches!(error.etype(), E::Custom(BROKEN_CHUNK | BROKEN_TRAILERS)) {
        "its chunks are malformed"
    } else if context.starts_with("invalid Content-Length") {
        "its Content-Lengths differ or are not numbers"
    } else if cause.is_some_and(|cause| cause.reason() == Some(h2::Reason::PROTOCOL_ERROR)) {
        "its HTTP/2 is malformed, or has headers that only HTTP/1 allows"
    } else {
        "it is not HTTP"
    }
}

/// Whether the upstream closed an HTTP/2 connection, or reset the stream. Depending on the timing, Pingora
/// reports that as a read error, a protocol error, or a handshake error.
fn broke_off(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|cause| {
        cause.is_io() || (cause.is_remote() && (cause.is_reset() || cause.is_go_away()))
    })
}

/// Whether an HTTP/2 stream was ended for a protocol error, and not by its client.
fn is_fault(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|cause| cause.is_reset() && cause.is_library())
}
