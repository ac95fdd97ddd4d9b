//! Where audit records go.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Located, Name, Ship, Size};

/// Where the audit records go: one line of JSON for each exchange, allowed or denied, and before an
/// action is asked of an upstream, one that says so and is on disk by then. Lines are chained; see
/// docs/audit.md. A change takes effect at the next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The folder for segments (`audit-<time>-<number>.jsonl`). It must exist and be writable.
    /// Default: none, records go to standard output.
    pub folder: Option<PathBuf>,
    /// A segment that reaches this size is closed and a new one begun.
    pub segment_max: Size,
    /// Segments beyond this many are removed, the oldest first. 0 keeps all.
    pub segments_kept: u32,
    /// Memory for records that wait to be written. When it is full, records of reads are dropped
    /// and counted (`stagedoor_audit_records_lost_total`), and actions are refused with 503
    /// `audit_unavailable`.
    pub buffer_max: Size,
    /// Where records are sent, beside the folder, by a name of your choice.
    pub ship: IndexMap<Name, Located<Ship>>,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            folder: None,
            segment_max: Size::mebibytes(64),
            segments_kept: 0,
            buffer_max: Size::mebibytes(8),
            ship: IndexMap::new(),
        }
    }
}
