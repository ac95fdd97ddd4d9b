//! How long each part of an exchange may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Size};

/// How long each part of an exchange may take. A value that is not given comes from the upstream, then from
/// the defaults: connect 2s, upstream 10s, total 15s, stream_idle 10m, upgrade 10s, rate_min 256B.
///
/// Waiting is bounded, transfer is not: an upload or a download of any length passes as long as client and
/// upstream stay above their minimum rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Time to connect to the upstream, including TLS. Then 504 `connect_timeout`.
    pub connect: Option<Duration>,
    /// How long the upstream may be silent, before its response and within it. Then 504 `upstream_timeout`,
    /// or a cut connection if the response had begun.
    pub upstream: Option<Duration>,
    /// The whole wait, from the last byte of the request to the head of the response, including all attempts,
    /// token fetches and waiting for the pace. Then 504 `whole_timeout`. Does not apply to streams.
    pub total: Option<Duration>,
    /// How long a stream may be silent. These are streams: WebSockets; gRPC, gRPC-Web and Connect streams;
    /// server-sent events, JSON lines (NDJSON), watches (`;stream=watch`), `multipart/x-mixed-replace` and
    /// text without a length, such as logs; and whatever a route declares as one (`stream`, `stream_if`).
    pub stream_idle: Option<Duration>,
    /// Time for the upstream to respond to an upgrade (WebSocket) handshake. Backstage never responds to some
    /// of them.
    pub upgrade: Option<Duration>,
    /// The minimum average rate, in bytes a second, at which the upstream must send a response of known
    /// length, after its first 10s. If it is slower, the response is cut and recorded as `upstream_slow`, a
    /// failure of the upstream. Time in which the client did not read does not count. `0` means no minimum. A
    /// response without a length has no minimum rate, but must not be silent for longer than `upstream`.
    pub rate_min: Option<Size>,
}

/// The least rate of a body, in a second, where nobody says another.
pub const RATE_MIN: Size = Size::of_bytes(256);
