//! Where audit records are sent, beside the folder that keeps them.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, HeaderName, HostPort, Located, Url};

/// A sink that gets every line of the audit log, from the folder, in order and at least once. Its position is
/// kept in `ship-NAME.cursor` in that folder, so nothing is missing after a restart; a few lines may arrive
/// twice. A sink that is slow or unreachable delays no request and is retried until it recovers; until then
/// its segments are kept. See docs/shipping.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ship {
    /// How records are sent, and which of the other keys it has.
    pub kind: ShipKind,
    /// For `otlp_http` and `webhook`: the URL to which batches are posted. Redirects are not followed. For
    /// `otlp_http`, a URL without a path means `/v1/logs`.
    #[serde(default)]
    pub url: Option<Located<Url>>,
    /// For `syslog_tls`: host and port, for example `logs.example.com:6514`.
    #[serde(default)]
    pub address: Option<Located<HostPort>>,
    /// The format of a record.
    #[serde(default)]
    pub format: ShipFormat,
    /// For `otlp_http` and `webhook`: headers with a secret, for example
    /// `{authorization: {value_file: /etc/stagedoor/siem-token, prefix: "Bearer "}}`.
    #[serde(default)]
    pub headers: IndexMap<HeaderName, Located<ShipHeader>>,
    /// For `webhook`: file with the secret that signs batches (Standard Webhooks). One that begins with
    /// `whsec_` is base64 after that; any other is used literally. At least 24 bytes. Default: batches are
    /// not signed.
    #[serde(default)]
    pub secret_file: Option<Located<PathBuf>>,
    /// PEM file of CAs that may sign the sink's certificate, instead of the system's.
    #[serde(default)]
    pub ca: Option<Located<PathBuf>>,
    /// Records in one batch, 1 to 10000. A batch is never over 1 MiB, unless a single record is.
    #[serde(default = "five_hundred")]
    pub batch_max: Located<u32>,
    /// How often to look for new records. While there is more than one batch, batches follow each other
    /// without a pause.
    #[serde(default = "half_a_second")]
    pub interval: Located<Duration>,
    /// For all kinds but `stdout`: how long the sink may take for a batch. After that the batch is retried.
    #[serde(default = "ten_seconds")]
    pub timeout: Located<Duration>,
}

/// A header whose value is a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShipHeader {
    /// File with the secret. A trailing newline is ignored. It is read again when it changes.
    pub value_file: PathBuf,
    /// The text before the secret, including its space, for example `"Bearer "`.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// How records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShipKind {
    /// OpenTelemetry logs, as protobuf over HTTP, for an OpenTelemetry Collector or anything that speaks its
    /// protocol.
    OtlpHttp,
    /// JSON, posted: `{"records": [...]}`, signed according to Standard Webhooks.
    Webhook,
    /// Syslog (RFC 5424) over TLS (RFC 5425). It has no acknowledgement: what a receiver accepts and then
    /// loses is lost.
    SyslogTls,
    /// One line per record on standard output, for a collector that reads it.
    Stdout,
}

/// The format of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShipFormat {
    /// As in the folder, so that the chain can be verified there too. The default.
    #[default]
    Stagedoor,
    /// An event of the Open Cybersecurity Schema Framework: API Activity, or Event Log Activity for records
    /// about the log itself. Members of the record that have no place there are in `unmapped`.
    Ocsf,
}

impl ShipKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::OtlpHttp => "otlp_http",
            Self::Webhook => "webhook",
            Self::SyslogTls => "syslog_tls",
            Self::Stdout => "stdout",
        }
    }
}

fn five_hundred() -> Located<u32> {
    Located::nowhere(500)
}

fn half_a_second() -> Located<Duration> {
    Located::nowhere("500ms".parse().expect("a default duration is one"))
}

fn ten_seconds() -> Located<Duration> {
    Located::nowhere(Duration::from_secs(10))
}
