//! Audit records, read back a line at a time.

use std::path::PathBuf;

use serde::Deserialize;

use crate::{counted, lines};
use proxy::observability::audit::read::Line;

/// The parts of a call's record that are used here. All of it is text that a client may have chosen.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) time: String,
    pub(super) method: String,
    pub(super) target: Option<String>,
    pub(super) plugin: Option<String>,
    pub(super) workspace: Option<String>,
    pub(super) caller: Option<String>,
    pub(super) identity_strength: Option<String>,
    pub(super) decision: String,
    pub(super) code: String,
    pub(super) would_deny: Option<String>,
    pub(super) upstream_address: Option<String>,
    pub(super) hello: Option<String>,
    pub(super) server_name: Option<String>,
    /// `encrypted_client_hello` in records of the version before.
    #[serde(alias = "encrypted_hello")]
    pub(super) encrypted_client_hello: bool,
}

/// The counts of what was read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reading {
    files: u64,
    records: u64,
    unreadable: u64,
}

/// Reads all records of these files, and of the files in these folders.
///
/// # Errors
/// If one cannot be read.
pub(super) fn read(paths: &[PathBuf], mut take: impl FnMut(Record)) -> Result<Reading, String> {
    let mut read = Reading::default();
    read.files = lines::each(paths, |line| read.line(line, &mut take))?;
    Ok(read)
}

impl Reading {
    fn line(&mut self, line: Line<'_>, take: &mut impl FnMut(Record)) {
        // A line without an end is torn, even if it happens to be whole.
        let record = match line {
            Line::Whole(line) => serde_json::from_slice(line).ok(),
            Line::TooLong | Line::Torn(_) => None,
        };
        match record {
            Some(record) => {
                self.records += 1;
                take(record);
            }
            None => self.unreadable += 1,
        }
    }

    /// Reports on standard error what was read, and what could not be.
    pub(super) fn report(&self) {
        let (records, files) = (counted(self.records, "record"), counted(self.files, "file"));
        crate::say::err(format_args!("{records} in {files}"));
        if self.unreadable > 0 {
            let lines = counted(self.unreadable, "line");
            crate::say::err(format_args!("left out, not records (torn, or not JSON): {lines}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_counted_and_never_guessed() {
        let long = format!("{{\"target\":\"{}\"}}\n", "x".repeat(3 << 20));
        let text = [
            "{\"target\":\"a.example:443\"}\n",
            "{\"target\":\"torn.exa\n",
            "not JSON\n",
            "\"text\"\n",
            "{\"target\":17}\n",
            &long,
            "{\"target\":\"b.example:443\"}\n",
            "{\"target\":\"c.example:443\"}",
        ]
        .concat();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let mut targets = Vec::new();
        let read = read(&[file.path().to_owned()], |record| targets.extend(record.target)).unwrap();
        assert_eq!(targets, ["a.example:443", "b.example:443"]);
        assert_eq!((read.records, read.unreadable), (2, 6));
    }

    #[test]
    fn a_folder_means_its_segments_and_a_missing_file_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("audit-2.jsonl"), "{\"target\":\"b:1\"}\n").unwrap();
        std::fs::write(folder.path().join("audit-1.jsonl"), "{\"target\":\"a:1\"}\n").unwrap();
        let mut targets = Vec::new();
        read(&[folder.path().to_owned()], |record| targets.extend(record.target)).unwrap();
        assert_eq!(targets, ["a:1", "b:1"]);
        let missing = read(&[folder.path().join("3")], |_| {}).unwrap_err();
        assert!(missing.contains("3`: No such file"), "{missing}");
    }
}
