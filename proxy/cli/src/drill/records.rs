//! Compares the records with the responses.

use std::{collections::HashSet, path::Path, process::Command};

use serde_json::Value;

use super::ask::Answered;
use proxy::observability::audit::read::{Line, Lines, segments};

/// Exchanges that got a response and are not recorded; and how many records the log itself reports as lost,
/// as after a full disk.
pub(super) fn lost(
    folder: &Path,
    answered: &Answered,
    forward: &[String],
) -> Result<(usize, usize), String> {
    let told = |error: std::io::Error| format!("cannot read `{}`: {error}", folder.display());
    let (mut ids, mut out, mut told_lost) = (HashSet::new(), 0, 0);
    for segment in segments(folder).map_err(told)? {
        let mut lines = Lines::open(&segment).map_err(told)?;
        while let Some(line) = lines.next_line().map_err(told)? {
            let Line::Whole(line) = line else { continue };
            let Ok(record) = serde_json::from_slice::<Value>(line) else { continue };
            // Those with a kind are about something else.
            if let Some(kind) = record.get("kind") {
                if kind == "gap" {
                    told_lost += record["lost"].as_u64().unwrap_or(0);
                }
                continue;
            }
            out += usize::from(forward.iter().any(|name| record["listener"] == **name));
            ids.extend(record["id"].as_str().map(str::to_owned));
        }
    }
    let missing = answered.ids.iter().filter(|id| !ids.contains(*id)).count();
    let told_lost = usize::try_from(told_lost).unwrap_or(usize::MAX);
    Ok((missing + answered.out.saturating_sub(out), told_lost))
}

/// Runs `audit verify`; returns its output if the records are not intact.
pub(super) fn verify(folder: &Path) -> Result<(), String> {
    let told = |error: std::io::Error| format!("cannot run `audit verify`: {error}");
    let program = std::env::current_exe().map_err(told)?;
    let told =
        Command::new(program).args(["audit", "verify"]).arg(folder).output().map_err(told)?;
    if told.status.success() {
        return Ok(());
    }
    let said = [told.stdout, told.stderr].concat();
    Err(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
}
