//! `stagedoor audit query`: the records that fit, the oldest first.

use std::{
    collections::VecDeque,
    io::Write,
    ops::ControlFlow::{Break, Continue},
    path::Path,
};

use clap::Args;

use super::{
    Ended, Trouble,
    filter::{Filter, Filters, Kinds},
    output::{Output, Records, stdout},
    record::Record,
    source::{Done, Found, Reading, Source, files, more_than_once},
};

/// The memory for lines to be shown in reverse. Beyond it they are read again.
const BUFFER_BYTES: usize = 16 << 20;

/// Show matching records, oldest first. Exit code 1 if there are none.
#[derive(Args)]
pub(super) struct Query {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    kinds: Kinds,
    #[command(flatten)]
    output: Output,
    /// Newest first. Reads files more than once, so it cannot read a pipe.
    #[arg(long)]
    reverse: bool,
    /// Stop after this many.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Query {
    pub(super) fn run(self) -> Result<Ended, Trouble> {
        let mut files = files(&self.source.places()?)?;
        let mut reading = Reading::default();
        reading.since(self.filters.since, &mut files);
        let mut answer = Answer {
            filter: self.filters.ready(Some(self.kinds)),
            records: Records::new(stdout(), self.output.format())?,
            left: self.limit.unwrap_or(u64::MAX),
            found: false,
        };
        if self.reverse {
            more_than_once(&files)?;
            files.reverse();
        }
        for file in &files {
            let done = match self.reverse {
                true => answer.backward(file, &mut reading)?,
                false => answer.forward(file, &mut reading)?,
            };
            if done.is_break() {
                break;
            }
        }
        answer.records.flush()?;
        reading.report();
        Ok(Ended { found: answer.found, unreadable: reading.unreadable_files > 0 })
    }
}

struct Answer<W> {
    filter: Filter,
    records: Records<W>,
    left: u64,
    found: bool,
}

impl<W: Write> Answer<W> {
    fn forward(&mut self, file: &Path, reading: &mut Reading) -> Done {
        reading.lines(file, |reading, found| match self.filter.record(reading, found.line) {
            Some(record) => self.show(found.line, &record),
            None => Ok(Continue(())),
        })
    }

    /// Buffers as many lines as allowed, and then reads earlier ones again.
    fn backward(&mut self, file: &Path, reading: &mut Reading) -> Done {
        let mut until = u64::MAX;
        loop {
            let mut held = Buffered::default();
            let mut again = Reading::default();
            // Only the first reading is counted.
            let counts = if until == u64::MAX { &mut *reading } else { &mut again };
            let _ = counts.lines(file, |reading, Found { line, begins }| {
                if begins >= until {
                    return Ok(Break(()));
                }
                if self.filter.record(reading, line).is_some() {
                    held.take(begins, line, self.left);
                }
                Ok(Continue(()))
            })?;
            for (begins, line) in held.lines.drain(..).rev() {
                until = begins;
                let record = Record::read(&line).expect("it was one when it was held");
                if self.show(&line, &record)?.is_break() {
                    return Ok(Break(()));
                }
            }
            if !held.has_left_out {
                return Ok(Continue(()));
            }
        }
    }

    fn show(&mut self, line: &[u8], record: &Record<'_>) -> Done {
        self.records.write(line, record)?;
        self.found = true;
        self.left -= 1;
        Ok(if self.left == 0 { Break(()) } else { Continue(()) })
    }
}

/// The last matching lines, with their positions.
#[derive(Default)]
struct Buffered {
    lines: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    has_left_out: bool,
}

impl Buffered {
    fn take(&mut self, begins: u64, line: &[u8], count_max: u64) {
        self.bytes += line.len();
        self.lines.push_back((begins, line.to_owned()));
        while self.lines.len() > 1
            && (self.bytes > BUFFER_BYTES || self.lines.len() as u64 > count_max)
        {
            let (_, first) = self.lines.pop_front().expect("there are two");
            self.bytes -= first.len();
            self.has_left_out = true;
        }
    }
}

impl Filter {
    /// The record of a line, if it is one that fits.
    pub(super) fn record<'a>(&self, reading: &mut Reading, line: &'a [u8]) -> Option<Record<'a>> {
        if !self.may_fit(line) {
            reading.glance(line);
            return None;
        }
        reading.record(line).filter(|record| self.fits(record))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::audit::output::Format;

    fn answer(files: &[&Path], reverse: bool, limit: u64) -> (Vec<u64>, Reading) {
        let (mut out, mut reading) = (Vec::new(), Reading::default());
        let mut answer = Answer {
            filter: Filters::default().ready(None),
            records: Records::new(&mut out, Format::Json).unwrap(),
            left: limit,
            found: false,
        };
        for file in files {
            let done = match reverse {
                true => answer.backward(file, &mut reading),
                false => answer.forward(file, &mut reading),
            };
            if done.unwrap().is_break() {
                break;
            }
        }
        answer.records.flush().unwrap();
        let number = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["status"].as_u64().unwrap()
        };
        (String::from_utf8(out).unwrap().lines().map(number).collect(), reading)
    }

    #[test]
    fn the_newest_come_first_if_requested_even_beyond_the_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit-1.jsonl.zst");
        let rest = "x".repeat(500_000);
        let all: String = (0..100)
            .map(|n| format!("{{\"time\":\"t\",\"status\":{n},\"path\":\"{rest}\"}}\n"))
            .collect();
        let all = format!("no record\n{all}{{\"time\":\"torn");
        assert!(all.len() > 2 * BUFFER_BYTES);
        fs::write(&file, zstd::encode_all(all.as_bytes(), 1).unwrap()).unwrap();
        let forward: Vec<u64> = (0..100).collect();
        let backward: Vec<u64> = (0..100).rev().collect();
        assert_eq!(answer(&[&file], false, u64::MAX).0, forward);
        assert_eq!(answer(&[&file], false, 3).0, forward[..3]);
        assert_eq!(answer(&[&file], true, 3).0, backward[..3]);
        assert_eq!(answer(&[&file], true, 60).0, backward[..60]);
        let (numbers, reading) = answer(&[&file, &file], true, 150);
        assert_eq!(numbers, [&backward[..], &backward[..50]].concat());
        assert_eq!(reading.not_records, 4);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down_and_both_orders_show_the_same(
            parts in prop::collection::vec((any::<Vec<u8>>(), any::<bool>(), any::<u16>()), 0..20),
        ) {
            let mut bytes = Vec::new();
            for (noise, is_record, status) in parts {
                if is_record {
                    bytes.extend_from_slice(format!("{{\"time\":\"t\",\"status\":{status}}}").as_bytes());
                } else {
                    bytes.extend_from_slice(&noise);
                }
                bytes.push(b'\n');
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), bytes).unwrap();
            let (forward, read) = answer(&[file.path()], false, u64::MAX);
            let (mut backward, again) = answer(&[file.path()], true, u64::MAX);
            backward.reverse();
            prop_assert_eq!((forward, read), (backward, again));
        }
    }
}
