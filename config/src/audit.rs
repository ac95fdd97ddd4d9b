//! Where audit records go.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Located, Name, Ship, Size};

/// Where the audit records go: one line of JSON for each exchange, allowed or denied, and before an
/// action is asked of an upstream, one that says so and is on disk by then. Lines are chained; see
/// docs/audit.md. A change takes effect at the next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The folder for segments (`audit-<time>-<process>.jsonl`). It must exist and be writable, and
    /// no other process may write to it. Default: none, records go to standard output.
    pub folder: Option<PathBuf>,
    /// When records of reads are on disk. Those of actions always are before the upstream is asked.
    pub reads: Reads,
    /// A segment is closed before the record that would make it longer than this, and a new one begun.
    /// Only a record that is longer by itself makes a longer segment. At least 4KiB.
    #[serde(deserialize_with = "segment_max")]
    pub segment_max: Size,
    /// A segment that holds records is closed at this age, too.
    pub segment_age_max: Duration,
    /// Whether closed segments are compressed (`.jsonl.zst`). All commands read both kinds.
    pub compress: bool,
    /// Segments beyond this many are removed, the oldest first. 0 keeps all. What a sink of `ship` has
    /// not got yet is kept until there are twice as many.
    pub segments_kept: u32,
    /// Segments that were closed longer ago are removed, for example `90d`; what a sink has not got
    /// yet, after twice that. Default: none is.
    pub kept_for: Option<Duration>,
    /// Memory for records that wait to be written. When it is full, records of reads are dropped
    /// and counted (`stagedoor_audit_records_lost_total`), and actions are refused with 503
    /// `audit_unavailable`.
    pub buffer_max: Size,
    /// Signs the chain now and then. Default: it is not signed.
    pub checkpoints: Option<Checkpoints>,
    /// Where records are sent, beside the folder, by a name of your choice.
    pub ship: IndexMap<Name, Located<Ship>>,
}

/// When records of reads are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// Within 50 ms of the answer. Whoever kills the process (`kill -9`, out of memory) loses the
    /// records of that time; the next start puts a `gap` on record that says so.
    #[default]
    Buffered,
    /// Before the client gets the answer: no read that was answered is missing, and each waits for
    /// the disk (docs/audit.md has what that costs). If the disk cannot take it, the client gets 503
    /// `audit_unavailable` and no answer. For requests to reverse listeners; calls through forward
    /// listeners are buffered.
    BeforeAnswer,
}

/// How the chain of records is signed: whoever can write the folder cannot write anew what came
/// before a checkpoint, and `stagedoor audit verify --key` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// The private key: Ed25519, in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it.
    pub key_file: Located<PathBuf>,
    /// Lines after which the next checkpoint is due. There is one at the end of each segment, too.
    #[serde(default = "lines_max")]
    pub lines_max: std::num::NonZeroU32,
    /// Time after which lines that came since the last one get a checkpoint.
    #[serde(default = "every")]
    pub every: Duration,
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

fn every() -> Duration {
    Duration::from_secs(60)
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            folder: None,
            reads: Reads::Buffered,
            segment_max: Size::mebibytes(64),
            segment_age_max: Duration::from_secs(86_400),
            compress: false,
            segments_kept: 0,
            kept_for: None,
            buffer_max: Size::mebibytes(8),
            checkpoints: None,
            ship: IndexMap::new(),
        }
    }
}
