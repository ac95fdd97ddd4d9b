//! The lines that a writer adds about the log itself.

use super::{chain, line::Line};
use crate::{Label, Now};

/// Appends the first line of a segment to `out`. `run` is the process that writes it, `previous` the digest
/// that its chain continues.
pub fn write_segment(out: &mut Vec<u8>, at: Now, run: &str, previous: &chain::Link) {
    housekeeping(out, "segment", at, |line| {
        line.text("run", run);
        line.text("previous", &previous.to_string());
    });
}

/// Appends what a process found of a killed one: actions without an outcome, and how many bytes of an
/// incomplete line.
pub fn write_recovery(out: &mut Vec<u8>, at: Now, unknown: &[String], torn_bytes: u64) {
    housekeeping(out, "recovery", at, |line| {
        let ids: Vec<Label> = unknown.iter().map(|id| Label::lossy(id)).collect();
        line.list("unknown", &ids);
        line.number("torn_bytes", torn_bytes);
    });
}

/// Appends to `out`, as one line, how many records were lost.
pub fn write_gap(out: &mut Vec<u8>, at: Now, lost: u64) {
    housekeeping(out, "gap", at, |line| line.number("lost", lost));
}

/// Appends that a process was killed, so that its unwritten records are lost. Their number is unknown.
pub fn write_killed(out: &mut Vec<u8>, at: Now, run: &str) {
    housekeeping(out, "gap", at, |line| {
        line.text("run", run);
        line.text("cause", "killed");
    });
}

/// Appends that segments are removed because they are too many or too old. `oldest` is the oldest remaining
/// one.
pub fn write_pruned(out: &mut Vec<u8>, at: Now, removed: &[String], oldest: &str) {
    housekeeping(out, "pruned", at, |line| {
        let removed: Vec<Label> = removed.iter().map(|name| Label::lossy(name)).collect();
        line.list("removed", &removed);
        line.text("oldest", oldest);
    });
}

/// Appends the last line of a process: it wrote every record.
pub fn write_end(out: &mut Vec<u8>, at: Now) {
    housekeeping(out, "end", at, |_| {});
}

fn housekeeping(out: &mut Vec<u8>, kind: &str, at: Now, rest: impl FnOnce(&mut Line<'_>)) {
    let mut line = Line(out);
    line.open();
    line.text("kind", kind);
    if kind == "segment" {
        line.number("version", 1);
    }
    line.time("time", at.unix);
    rest(&mut line);
    line.close();
}
