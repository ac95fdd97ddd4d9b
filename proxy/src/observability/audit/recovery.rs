//! What previous processes left: the end of their chain, actions without an outcome, and which of them were
//! killed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use filters::{
    Now,
    audit::{
        self,
        chain::{Link, Sealed},
    },
};

use super::read::{self, Lines, segments};

/// What was found in a folder.
pub(super) struct Found {
    /// The digest of the last line.
    pub(super) link: Link,
    /// The ids of actions without an outcome.
    unknown: Vec<String>,
    /// Bytes of an incomplete last line.
    torn_bytes: u64,
    /// Processes that were killed, and of which that is not on record yet.
    killed: Vec<String>,
}

/// At least this many segments with records are read,
const SEGMENTS_MIN: usize = 2;
/// and those that are not older than this, because an action may take longer than it takes to fill a small
/// segment,
const AGE_MAX: Duration = Duration::from_secs(3600);
/// as far as they are not too large together to be read at a start.
const BYTES_MAX: u64 = 128 << 20;
/// The maximum number of ids that are listed.
const UNKNOWN_MAX: usize = 10_000;

#[derive(serde::Deserialize)]
struct Line {
    kind: Option<String>,
    id: Option<String>,
    run: Option<String>,
    #[serde(default)]
    intended: bool,
    #[serde(default)]
    unknown: Vec<String>,
}

impl Line {
    /// Whether it is about an exchange, and not about the log itself.
    fn is_record(&self) -> bool {
        !matches!(
            self.kind.as_deref(),
            Some("segment" | "recovery" | "gap" | "pruned" | "checkpoint" | "end")
        )
    }
}

/// The state of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Begun,
    /// It ended, or it is on record that it was killed.
    Settled,
}

impl Found {
    /// Reads a folder.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn scan(folder: &Path) -> io::Result<Self> {
        let (mut begun, mut link, mut torn_bytes) = (BTreeMap::new(), Link::START, 0);
        let mut runs = BTreeMap::new();
        for path in recent(segments(folder)?)? {
            torn_bytes = 0;
            let mut run = String::new();
            let mut lines = Lines::open(&path)?;
            while let Some(line) = lines.next_line()? {
                let whole = match line {
                    read::Line::Whole(whole) => whole,
                    read::Line::TooLong => continue,
                    read::Line::Torn(part) => {
                        torn_bytes = part.len() as u64;
                        break;
                    }
                };
                if let Some(sealed) = Sealed::of(whole) {
                    link = sealed.link;
                }
                let Ok(read) = serde_json::from_slice::<Line>(whole) else { continue };
                match (read.kind.as_deref(), read.id) {
                    // Clients choose ids, and may choose one twice.
                    (Some("intent"), Some(id)) if begun.len() < UNKNOWN_MAX => {
                        *begun.entry(id).or_insert(0_usize) += 1;
                    }
                    (None, Some(id)) if read.intended => end(&mut begun, &id),
                    (Some("recovery"), _) => read.unknown.iter().for_each(|id| end(&mut begun, id)),
                    (Some("segment"), _) => {
                        run = read.run.unwrap_or_default();
                        runs.entry(run.clone()).or_insert(Run::Begun);
                    }
                    (Some("end"), _) => _ = runs.insert(run.clone(), Run::Settled),
                    (Some("gap"), _) => {
                        read.run.map(|killed| runs.insert(killed, Run::Settled));
                    }
                    _ => {}
                }
            }
        }
        let unknown = begun.into_iter().flat_map(|(id, times)| std::iter::repeat_n(id, times));
        let killed = runs.into_iter().filter(|(_, run)| *run == Run::Begun).map(|(name, _)| name);
        Ok(Self { link, unknown: unknown.collect(), torn_bytes, killed: killed.collect() })
    }

    /// The lines for the log; empty if there is nothing to report.
    pub(super) fn lines(&self, now: Now) -> Vec<u8> {
        let mut lines = Vec::new();
        if self.torn_bytes > 0 || !self.unknown.is_empty() {
            audit::write_recovery(&mut lines, now, &self.unknown, self.torn_bytes);
        }
        self.killed.iter().for_each(|run| audit::write_killed(&mut lines, now, run));
        if !lines.is_empty() {
            tracing::warn!(
                unknown = self.unknown.len(),
                "the previous process was killed: records that it had not written are lost"
            );
        }
        lines
    }
}

/// The segments that may have open actions, oldest first. Those without a record do not count: every process
/// that was killed right after its start leaves one.
fn recent(mut all: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let (mut with_records, mut bytes, mut newest) = (0, 0, None);
    let mut first = all.len();
    for (index, path) in all.iter().enumerate().rev() {
        let data = fs::metadata(path)?;
        let changed = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let newest = *newest.get_or_insert(changed);
        bytes += data.len();
        let is_old = newest.duration_since(changed).is_ok_and(|age| age > AGE_MAX);
        if with_records >= SEGMENTS_MIN && (is_old || bytes > BYTES_MAX) {
            break;
        }
        with_records += usize::from(has_records(path)?);
        first = index;
    }
    Ok(all.split_off(first))
}

fn has_records(path: &Path) -> io::Result<bool> {
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next_line()? {
        let read::Line::Whole(whole) = line else { continue };
        if serde_json::from_slice::<Line>(whole).is_ok_and(|line| line.is_record()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn end(begun: &mut BTreeMap<String, usize>, id: &str) {
    match begun.get_mut(id) {
        Some(1) => _ = begun.remove(id),
        Some(times) => *times -= 1,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_and_not_ended_is_found_and_so_is_where_the_chain_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (mut out, mut link) = (Vec::new(), Link::START);
        for line in [
            r#"{"kind":"segment","version":1}"#,
            r#"{"kind":"intent","id":"a"}"#,
            r#"{"kind":"intent","id":"b"}"#,
            r#"{"id":"a","code":"ok","intended":true}"#,
            r#"{"id":"b","code":"ok"}"#,
            r#"{"kind":"intent","id":"c"}"#,
            r#"{"kind":"recovery","unknown":["c"]}"#,
        ] {
            link = link.seal(format!("{line}\n").as_bytes(), &mut out);
        }
        out.extend_from_slice(b"{\"kind\":\"int");
        std::fs::write(folder.path().join("audit-1-1.jsonl"), &out).unwrap();
        let found = Found::scan(folder.path()).unwrap();
        assert_eq!((found.unknown, found.torn_bytes), (vec!["b".to_owned()], 12));
        assert_eq!(found.link, link);
        let empty = Found::scan(tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!((empty.link, empty.unknown.len()), (Link::START, 0));
        assert!(empty.lines(Now::default()).is_empty());
    }

    #[test]
    fn an_open_intent_is_found_behind_all_that_was_begun_and_killed_since() {
        let folder = tempfile::tempdir().unwrap();
        let put = |n: u32, lines: &[&str]| {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(folder.path().join(format!("audit-{n}-1.jsonl")), text).unwrap();
        };
        put(1, &[r#"{"kind":"segment","run":"a"}"#, r#"{"kind":"intent","id":"x"}"#]);
        for n in 2..9 {
            put(n, &[&format!(r#"{{"kind":"segment","run":"r{n}"}}"#), r#"{"kind":"checkpoint"}"#]);
        }
        assert_eq!(Found::scan(folder.path()).unwrap().unknown, ["x"]);
    }

    #[test]
    fn who_was_killed_is_found_once() {
        let folder = tempfile::tempdir().unwrap();
        let put = |n: u32, lines: &[&str]| {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(folder.path().join(format!("audit-{n}-1.jsonl")), text).unwrap();
        };
        put(1, &[r#"{"kind":"segment","run":"a"}"#, r#"{"id":"x"}"#, r#"{"kind":"end"}"#]);
        put(2, &[r#"{"kind":"segment","run":"b"}"#, r#"{"id":"y"}"#]);
        let found = Found::scan(folder.path()).unwrap();
        assert_eq!(found.killed, ["b"]);
        let lines = String::from_utf8(found.lines(Now::default())).unwrap();
        assert!(lines.contains(r#""run":"b","cause":"killed"}"#), "{lines}");
        put(3, &[r#"{"kind":"segment","run":"c"}"#, lines.trim_end(), r#"{"kind":"end"}"#]);
        assert!(Found::scan(folder.path()).unwrap().killed.is_empty());
    }
}
