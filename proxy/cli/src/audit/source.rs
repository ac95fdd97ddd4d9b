//! Where records are: segments of folders, and files, read a line at a time.

use std::{
    fs::Metadata,
    io::{self, Write},
    mem,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Args;

use super::{record::Record, when::When};
use crate::counted;
use proxy::{
    lifecycle::reload,
    observability::audit::read::{Line, Lines, segments},
};

/// Clocks may be set back: a segment that was last written this long before a time may still have records
/// with that time.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

/// Where records are.
#[derive(Args)]
pub(super) struct Source {
    /// Folders of segments, or files of records, compressed or not. Default: the config's `audit.directory`.
    paths: Vec<PathBuf>,
    /// The config that names the folder.
    #[arg(short, long, env = "STAGEDOOR_CONFIG")]
    config: Option<PathBuf>,
}

/// The counts of what was read, and of what could not be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) not_records: u64,
    passed_over: u64,
    pub(super) unreadable_files: u64,
    problems: Vec<String>,
}

/// A line, and where it begins.
pub(super) struct Found<'a> {
    pub(super) line: &'a [u8],
    pub(super) begins: u64,
}

/// The result for a line. An error is one of the output, and ends everything.
pub(super) type Done = io::Result<ControlFlow<()>>;

impl Source {
    /// The folders and files that are meant.
    ///
    /// # Errors
    /// What to write instead.
    pub(super) fn places(&self) -> Result<Vec<PathBuf>, String> {
        if !self.paths.is_empty() {
            return Ok(self.paths.clone());
        }
        let Some(config) = &self.config else {
            return Err(
                "name a folder of segments, or a config that names one (`-c stagedoor.yaml`)"
                    .to_owned(),
            );
        };
        let loaded = reload::load(config).map_err(|problems| problems.to_string())?;
        let folder = loaded.config.audit.directory.ok_or_else(|| {
            let config = config.display();
            format!("`{config}` has no `audit.directory`: its records go to standard output; name a file that contains them")
        })?;
        Ok(vec![folder])
    }
}

/// The files in these places, the oldest of a folder first.
///
/// # Errors
/// If one does not exist, or a folder has no segments.
pub(super) fn files(places: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut all = Vec::new();
    for place in places {
        if !place.is_dir() {
            place.metadata().map_err(|error| cannot(place, &error))?;
            all.push(place.clone());
            continue;
        }
        let found = segments(place).map_err(|error| cannot(place, &error))?;
        if found.is_empty() {
            return Err(format!("`{}` has no segments (`audit-*.jsonl`)", place.display()));
        }
        all.extend(found);
    }
    Ok(all)
}

/// Makes sure that files can be read more than once.
///
/// # Errors
/// If one is a pipe.
pub(super) fn more_than_once(files: &[PathBuf]) -> Result<(), String> {
    let is_pipe = |file: &&PathBuf| file.metadata().is_ok_and(|data| !data.is_file());
    files.iter().find(is_pipe).map_or(Ok(()), |pipe| {
        let pipe = pipe.display();
        Err(format!(
            "`{pipe}` can be read only once: use `query`, which prints the oldest first, and `tail` after it"
        ))
    })
}

impl Reading {
    /// Leaves out files that were last written well before a time: a record is written when its exchange
    /// ends, so its time is never later. There is no such rule for the other bound: an exchange may have
    /// begun days before it was recorded.
    pub(super) fn since(&mut self, since: Option<When>, files: &mut Vec<PathBuf>) {
        let Some(since) = since.and_then(|When(unix)| unix.checked_sub(CLOCK_SLACK)) else {
            return;
        };
        let before = files.len();
        files.retain(|file| written(file).is_none_or(|written| written >= since));
        self.passed_over += (before - files.len()) as u64;
    }

    /// The complete lines of a file. A read error is reported, and reading continues with the next file.
    ///
    /// # Errors
    /// If the output is at its end.
    pub(super) fn lines(
        &mut self,
        file: &Path,
        mut each: impl FnMut(&mut Self, Found<'_>) -> Done,
    ) -> Done {
        match Lines::open(file) {
            Ok(mut lines) => self.rest(file, &mut lines, &mut each),
            Err(error) => {
                self.unreadable(file, &error);
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn rest(
        &mut self,
        file: &Path,
        lines: &mut Lines,
        each: &mut impl FnMut(&mut Self, Found<'_>) -> Done,
    ) -> Done {
        loop {
            let begins = lines.byte;
            match lines.next_line() {
                Ok(None) => return Ok(ControlFlow::Continue(())),
                // A line without an end is torn, even if it happens to be whole.
                Ok(Some(Line::Torn(_))) => {
                    self.not_records += 1;
                    return Ok(ControlFlow::Continue(()));
                }
                Ok(Some(Line::TooLong)) => self.not_records += 1,
                Ok(Some(Line::Whole(line))) => {
                    if each(self, Found { line, begins })?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(error) => {
                    self.unreadable(file, &error);
                    return Ok(ControlFlow::Continue(()));
                }
            }
        }
    }

    /// A parsed line; counted if it is not a record.
    pub(super) fn record<'a>(&mut self, line: &'a [u8]) -> Option<Record<'a>> {
        let record = Record::read(line);
        self.not_records += u64::from(record.is_none());
        record
    }

    /// For a line that is not parsed: counts it if it cannot be a record.
    pub(super) fn glance(&mut self, line: &[u8]) {
        let looks_whole = line.first() == Some(&b'{') && line.last() == Some(&b'}');
        self.not_records += u64::from(!looks_whole);
    }

    pub(super) fn unreadable(&mut self, file: &Path, error: &io::Error) {
        self.unreadable_files += 1;
        self.problem(cannot(file, error));
    }

    pub(super) fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    /// Reports on standard error what was left out since the last report.
    pub(super) fn report(&mut self) {
        mem::take(&mut self.problems).iter().for_each(|problem| report(problem));
        let (lines, files) = (mem::take(&mut self.not_records), mem::take(&mut self.passed_over));
        if lines > 0 {
            let lines = counted(lines, "line");
            report(&format!("left out, not records (torn, or not JSON): {lines}"));
        }
        if files > 0 {
            let files = counted(files, "file");
            report(&format!(
                "not opened, last written more than an hour before `--since`: {files}"
            ));
        }
    }
}

/// Prints to standard error, if it is open.
pub(super) fn report(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

fn cannot(path: &Path, error: &io::Error) -> String {
    format!("cannot read `{}`: {error}", path.display())
}

/// When a file was last written; `None` for a pipe. Copying and compressing make that later, never earlier.
fn written(file: &Path) -> Option<Duration> {
    let data = file.metadata().ok().filter(Metadata::is_file)?;
    data.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn incomplete_lines_are_counted_and_line_starts_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit-1.jsonl");
        fs::write(&file, "{\"time\":\"a\"}\nnot JSON\n{\"time\":\"b\"}\n{\"time\":\"torn\"}")
            .unwrap();
        let (mut reading, mut found) = (Reading::default(), Vec::new());
        let _ = reading
            .lines(&file, |reading, Found { line, begins }| {
                if reading.record(line).is_some() {
                    found.push(begins);
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert_eq!(found, [0, 22]);
        assert_eq!(reading.not_records, 2);
        reading.glance(b"{\"time\"");
        reading.glance(b"{}");
        reading.glance(b"");
        assert_eq!(reading.not_records, 4);
    }

    #[test]
    fn an_unreadable_file_is_reported_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit-1.jsonl.zst");
        fs::write(&file, "not compressed").unwrap();
        let mut reading = Reading::default();
        assert!(reading.lines(&file, |_, _| unreachable!()).unwrap().is_continue());
        assert!(
            reading.lines(&folder.path().join("2"), |_, _| unreachable!()).unwrap().is_continue()
        );
        assert_eq!(reading.unreadable_files, 2);
    }

    #[test]
    fn only_files_that_were_last_written_long_before_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let since = When(Duration::from_secs(1_795_521_599));
        let at = |name: &str, ago: u64| {
            let path = folder.path().join(name);
            let file = fs::File::create(&path).unwrap();
            let when = SystemTime::UNIX_EPOCH + since.0 - Duration::from_secs(ago);
            file.set_modified(when).unwrap();
            path
        };
        let all = vec![at("1", 9000), at("2", 3601), at("3", 3599), folder.path().join("none")];
        let (mut reading, mut files) = (Reading::default(), all.clone());
        reading.since(Some(since), &mut files);
        assert_eq!((files, reading.passed_over), (all[2..].to_vec(), 2));
        let mut files = all.clone();
        reading.since(None, &mut files);
        assert_eq!(files, all);
    }

    #[test]
    fn a_folder_means_its_segments_and_missing_ones_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let told = |places: &[PathBuf]| files(places).unwrap_err();
        assert!(told(std::slice::from_ref(&path)).contains("has no segments"));
        assert!(told(&[path.join("3")]).contains("3`: No such file"));
        fs::write(path.join("audit-2.jsonl"), "").unwrap();
        fs::write(path.join("audit-1.jsonl.zst"), "").unwrap();
        fs::write(path.join("other"), "").unwrap();
        let names = ["audit-1.jsonl.zst", "audit-2.jsonl", "other"].map(|name| path.join(name));
        assert_eq!(files(&[path.clone(), path.join("other")]).unwrap(), names);
        let source = Source { paths: Vec::new(), config: None };
        assert!(source.places().unwrap_err().contains("-c stagedoor.yaml"));
    }
}
