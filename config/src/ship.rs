//! Where audit records are sent, beside the folder that keeps them.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, HeaderName, HostPort, Located, Url};

/// A place that gets every line of the audit log, from the folder, in order and at least once. What
/// it has taken is kept in `ship-NAME.cursor` in that folder, so nothing is missing after a restart;
/// a few lines may come twice. A place that is slow or away delays no request, and is tried until it
/// is back; until then its segments are needed. See docs/shipping.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ship {
    /// How it is sent, and which of the other keys it has.
    pub kind: ShipKind,
    /// For `otlp_http` and `webhook`: where batches are posted. Redirects are not followed. For
    /// `otlp_http`, an address without a path stands for `/v1/logs` there.
    #[serde(default)]
    pub url: Option<Located<Url>>,
    /// For `syslog_tls`: host and port, for example `logs.example.com:6514`.
    #[serde(default)]
    pub address: Option<Located<HostPort>>,
    /// What a record looks like there.
    #[serde(default)]
    pub format: ShipFormat,
    /// For `otlp_http` and `webhook`: headers with a secret, for example
    /// `{authorization: {value_file: /etc/stagedoor/siem-token, prefix: "Bearer "}}`.
    #[serde(default)]
    pub headers: IndexMap<HeaderName, Located<ShipHeader>>,
    /// For `webhook`: file of the secret that batches are signed with (Standard Webhooks). One that
    /// begins with `whsec_` is base64 after that; any other is taken as it stands. At least 24 bytes.
    /// Default: batches are not signed.
    #[serde(default)]
    pub secret_file: Option<Located<PathBuf>>,
    /// PEM file of CAs that vouch for the place, instead of the system's.
    #[serde(default)]
    pub ca: Option<Located<PathBuf>>,
    /// Records in one batch, 1 to 10000. A batch is never over 1 MiB, unless one record is.
    #[serde(default = "five_hundred")]
    pub batch_max: Located<u32>,
    /// How often it is looked whether there is something to send. While there is more than a batch,
    /// one follows the other.
    #[serde(default = "half_a_second")]
    pub pace: Located<Duration>,
    /// For all kinds but `stdout`: how long the place has for a batch. Then it is tried again.
    #[serde(default = "ten_seconds")]
    pub timeout: Located<Duration>,
}

/// A header whose value is a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShipHeader {
    /// File of the secret. A line end after it is not part of it. It is read anew when it changes.
    pub value_file: PathBuf,
    /// What stands before the secret, with its space, for example `"Bearer "`.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// How records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShipKind {
    /// OpenTelemetry logs, as protobuf over HTTP: an OpenTelemetry Collector, and what speaks as it
    /// does.
    OtlpHttp,
    /// JSON, posted: `{"records": [...]}`, signed as Standard Webhooks say.
    Webhook,
    /// Syslog (RFC 5424) over TLS (RFC 5425). It has no acknowledgement: what a receiver takes and
    /// loses is lost.
    SyslogTls,
    /// A line each on standard output, for a collector that reads it.
    Stdout,
}

/// What a record looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShipFormat {
    /// As it stands in the folder, so that the chain can be verified there, too. The default.
    #[default]
    Stagedoor,
    /// An event of the Open Cybersecurity Schema Framework: API Activity, or Event Log Activity for
    /// what is about the log itself. Every member of the record that has no place there is in
    /// `unmapped`.
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
