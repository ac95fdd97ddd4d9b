//! Where audit records go.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Located, Name, Ship, Size};

/// Where audit records go: one line of JSON for each exchange, allowed or denied. Before an action is sent to
/// an upstream, an intent record is written to disk. Lines are hash-chained; see docs/audit.md. A change
/// takes effect at the next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The folder for segments (`audit-<time>-<process>.jsonl`). It must exist and be writable, and no other
    /// process may write to it. Default: none, records go to standard output.
    pub directory: Option<PathBuf>,
    /// When records of reads are on disk. Records of actions always are before the request is sent to the
    /// upstream.
    pub reads: Reads,
    /// A segment is closed before the record that would make it longer than this, and a new one is begun.
    /// Only a single record longer than this makes a longer segment. At least 4KiB.
    #[serde(deserialize_with = "segment_max")]
    pub segment_max: Size,
    /// A segment that contains records is also closed at this age.
    pub segment_age_max: Duration,
    /// Whether closed segments are compressed (`.jsonl.zst`). All commands read both kinds.
    pub compress: bool,
    /// How many segments are kept; the oldest are removed first. 0 keeps all. A segment that a sink in `ship`
    /// still needs is kept until there are twice as many.
    pub segments_max: u32,
    /// How long closed segments are kept, for example `90d`; those that a sink still needs, twice as long.
    /// Default: no limit.
    pub retention: Option<Duration>,
    /// Memory for records that wait to be written. When it is full, records of reads are dropped and counted
    /// (`stagedoor_audit_records_lost_total`), and actions are refused with 503 `audit_unavailable`.
    pub buffer_max: Size,
    /// Signs the chain at intervals. Default: it is not signed.
    pub checkpoints: Option<Checkpoints>,
    /// Sinks to ship records to, in addition to the folder, by names of your choice.
    pub ship: IndexMap<Name, Located<Ship>>,
}

/// When records of reads are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// Within 50 ms of the response. If the process is killed (`kill -9`, out of memory), records from that
    /// time are lost; the next start writes a `gap` record that says so.
    #[default]
    Buffered,
    /// Before the client gets the response: no read that got a response is missing, and each waits for the
    /// disk (docs/audit.md says what that costs). If the record cannot be written, the client gets 503
    /// `audit_unavailable` instead of the response. For requests to reverse listeners; calls through forward
    /// listeners are buffered.
    BeforeResponse,
}

/// How the chain of records is signed. Write access to the folder is then not enough to rewrite what came
/// before a checkpoint, and `stagedoor audit verify --key` detects it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// The private key: Ed25519, in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it.
    pub key_file: Located<PathBuf>,
    /// Lines after which the next checkpoint is due. There is also one at the end of each segment.
    #[serde(default = "lines_max")]
    pub lines_max: std::num::NonZeroU32,
    /// Time after which new lines get a checkpoint.
    #[serde(default = "interval")]
    pub interval: Duration,
}

/// A segment has to hold its first lines and a record.
const SEGMENT_MIN: u64 = 4 << 10;

fn segment_max<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
    let size = Size::deserialize(from)?;
    match size.bytes() < SEGMENT_MIN {
        true => Err(serde::de::Error::custom("a segment has at least `4KiB`; write `64MiB`")),
        false => Ok(size),
    }
}

fn lines_max() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(10_000).expect("not zero")
}

fn interval() -> Duration {
    Duration::from_secs(60)
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            directory: None,
            reads: Reads::Buffered,
            segment_max: Size::mebibytes(64),
            segment_age_max: Duration::from_secs(86_400),
            compress: false,
            segments_max: 0,
            retention: None,
            buffer_max: Size::mebibytes(8),
            checkpoints: None,
            ship: IndexMap::new(),
        }
    }
}
