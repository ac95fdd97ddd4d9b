//! How long each part of an exchange may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// How long each part of an exchange may take. What is not given is taken from the upstream, then
/// from the defaults: connect 2s, upstream 10s, whole 15s, stream_idle 10m, upgrade 10s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the connection to the upstream stands, TLS included. Then 504 `connect_timeout`.
    pub connect: Option<Duration>,
    /// The longest silence of the upstream, before its answer and within it. Then 504
    /// `upstream_timeout`, or a cut connection if the answer had begun.
    pub upstream: Option<Duration>,
    /// The whole exchange, from the last byte of the head to the last byte of the answer. Checked
    /// whenever bytes move. Does not apply to streams (WebSocket, server-sent events, gRPC).
    pub whole: Option<Duration>,
    /// The longest silence on a stream (WebSocket, server-sent events, gRPC).
    pub stream_idle: Option<Duration>,
    /// Until the upstream answers an upgrade (WebSocket) handshake. Backstage never answers some of
    /// them.
    pub upgrade: Option<Duration>,
}
