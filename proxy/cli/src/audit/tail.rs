//! `stagedoor audit tail`: the last matching records, and new ones.

use std::{
    collections::VecDeque,
    io,
    ops::ControlFlow::Continue,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::Args;

use super::{
    Ended, Trouble,
    filter::{Filter, Filters, Kinds},
    follow::{Follower, Start},
    output::{Output, Records, stdout},
    source::{self, Reading, Source},
};

/// How often it polls for new records.
const EACH: Duration = Duration::from_millis(250);

/// Show the last matching records, and then new ones.
#[derive(Args)]
pub(super) struct Tail {
    #[command(flatten)]
    source: Source,
    /// How many records.
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    lines: u32,
    /// Follow new records, also in new segments.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    kinds: Kinds,
    #[command(flatten)]
    output: Output,
}

impl Tail {
    pub(super) fn run(self) -> Result<Ended, Trouble> {
        let places = self.source.places()?;
        let since = self.filters.since;
        let filter = self.filters.ready(Some(self.kinds));
        let mut records = Records::new(stdout(), self.output.format())?;
        let mut files = match source::files(&places) {
            // A proxy that is about to start has written nothing yet.
            Err(_) if self.follow && places.iter().all(|place| place.is_dir()) => Vec::new(),
            found => found?,
        };
        source::more_than_once(&files)?;
        let mut follower = Follower::new(&files);
        follower.reading.since(since, &mut files);
        if let Some(start) = start(&files, self.lines as usize, &filter) {
            follower.back(&files, &start);
        }
        let mut show = |files: &[PathBuf]| -> io::Result<()> {
            follower.poll(files, &mut |reading, line| match filter.record(reading, line) {
                Some(record) => records.write(line, &record),
                None => Ok(()),
            })?;
            records.flush()?;
            follower.reading.report();
            Ok(())
        };
        show(&files)?;
        if self.follow {
            loop {
                thread::sleep(EACH);
                // A folder may be missing for a moment, and so may a file that is being compressed.
                if let Ok(files) = source::files(&places) {
                    show(&files)?;
                }
            }
        }
        follower.end();
        follower.reading.report();
        Ok(Ended { found: true, unreadable: follower.reading.unreadable_files > 0 })
    }
}

/// Where the last `count` matching records begin: the file and the byte.
fn start(files: &[PathBuf], count: usize, filter: &Filter) -> Option<Start> {
    let mut left = count;
    let mut first = None;
    for file in files.iter().rev() {
        if left == 0 {
            break;
        }
        let begin = last(file, left, filter);
        left -= begin.len();
        if let Some(begin) = begin.front() {
            first = Some(Start { file: file.clone(), byte: *begin });
        }
    }
    first
}

/// Where the last matching records of a file begin, at most `count`. Errors in it are reported when they are
/// shown.
fn last(file: &Path, count: usize, filter: &Filter) -> VecDeque<u64> {
    let mut begin = VecDeque::new();
    let _ = Reading::default().lines(file, |reading, found| {
        if filter.record(reading, found.line).is_some() {
            begin.push_back(found.begins);
            if begin.len() > count {
                begin.pop_front();
            }
        }
        Ok(Continue(()))
    });
    begin
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_records_begin_where_as_many_fit() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = [
            write("audit-1.jsonl", "{\"time\":\"1\"}\n{\"time\":\"2\"}\n"),
            write("audit-2.jsonl", "no record\n"),
            write("audit-3.jsonl", "{\"time\":\"3\"}\nno record\n{\"time\":\"4\"}\n{\"time\""),
        ];
        let filter = Filters::default().ready(None);
        let check = |count: usize, expected: Option<(usize, u64)>| {
            let expected = expected.map(|(file, byte)| Start { file: files[file].clone(), byte });
            assert_eq!(start(&files, count, &filter), expected, "{count}");
        };
        check(0, None);
        check(1, Some((2, 23)));
        check(2, Some((2, 0)));
        check(3, Some((0, 13)));
        check(9, Some((0, 0)));
    }
}
