//! How long each part of an exchange may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Size};

/// How long each part of an exchange may take. What is not given is taken from the upstream, then
/// from the defaults: connect 2s, upstream 10s, whole 15s, stream_idle 10m, upgrade 10s, rate_min 256B.
///
/// What is waited for is bounded, what moves is not: an upload or a download of any length passes, for as
/// long as client and upstream do not fall below their least rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the connection to the upstream stands, TLS included. Then 504 `connect_timeout`.
    pub connect: Option<Duration>,
    /// The longest silence of the upstream, before its answer and within it. Then 504
    /// `upstream_timeout`, or a cut connection if the answer had begun.
    pub upstream: Option<Duration>,
    /// The whole wait, from the last byte of the request to the head of the answer, with all attempts,
    /// credentials and turns. Then 504 `whole_timeout`. Does not apply to streams.
    pub whole: Option<Duration>,
    /// The longest silence on a stream. A stream is a WebSocket; gRPC, gRPC-Web and Connect's streams;
    /// server-sent events, JSON lines (NDJSON), watches (`;stream=watch`), `multipart/x-mixed-replace`
    /// and text without a length, as logs are; and what a route says is one (`stream`, `stream_if`).
    pub stream_idle: Option<Duration>,
    /// Until the upstream answers an upgrade (WebSocket) handshake. Backstage never answers some of
    /// them.
    pub upgrade: Option<Duration>,
    /// Bytes a second at which the upstream must send an answer of known length, on average after its
    /// first 10s. Slower is its failure: the answer is cut, on record as `upstream_slow`. Time in which
    /// the client did not take what there was does not count. `0` is no least rate. An answer without a
    /// length may take its time, for as long as it is never silent for longer than `upstream`.
    pub rate_min: Option<Size>,
}

/// The least rate of a body, in a second, where nobody says another.
pub const RATE_MIN: Size = Size::of_bytes(256);
