//! Columns for people.

use std::{
    borrow::Cow,
    io::{self, Write},
    mem,
};

use super::visible;
use crate::audit::{member::Member, record::Record};

/// Rows that are laid out together, so that columns fit their content.
const TOGETHER: usize = 200;
/// One long name does not push all other rows aside.
const WIDTH_MAX: usize = 48;

/// A column, and whether it is of numbers, which end below each other.
pub(in super::super) type Column<'a> = (&'a str, Align);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Align {
    Left,
    Right,
}
use Align::{Left, Right};

/// A table of any length.
pub(in super::super) struct Table {
    columns: Vec<(String, Align)>,
    widths: Vec<usize>,
    waiting: Vec<Vec<String>>,
}

impl Table {
    pub(in super::super) fn new(columns: &[Column<'_>]) -> Self {
        let columns: Vec<_> =
            columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect();
        Self {
            widths: vec![0; columns.len()],
            waiting: vec![columns.iter().map(|(name, _)| name.clone()).collect()],
            columns,
        }
    }

    /// Adds a row. It is printed together with the next ones.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(in super::super) fn row(
        &mut self,
        out: &mut impl Write,
        row: Vec<String>,
    ) -> io::Result<()> {
        self.waiting.push(row);
        if self.waiting.len() < TOGETHER { Ok(()) } else { self.flush(out) }
    }

    /// # Errors
    /// If it cannot be written.
    pub(in super::super) fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> = mem::take(&mut self.waiting)
            .into_iter()
            .map(|row| row.iter().map(|cell| shown(cell)).collect())
            .collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.len().min(WIDTH_MAX).max(*width);
            }
        }
        for row in rows {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&self.widths).zip(&self.columns) {
                line.push_str(&match align {
                    Left => format!("{cell:<width$}  "),
                    Right => format!("{cell:>width$}  "),
                });
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn shown(cell: &str) -> String {
    if cell.is_empty() { "-".to_owned() } else { visible(cell).into_owned() }
}

/// The columns of a record.
pub(super) const RECORD: [Column<'static>; 12] = [
    ("TIME", Left),
    ("DECISION", Left),
    ("CODE", Left),
    ("STATUS", Right),
    ("MS", Right),
    ("CALLER", Left),
    ("WORKSPACE", Left),
    ("PLUGIN", Left),
    ("ROUTE", Left),
    ("METHOD", Left),
    ("WHERE", Left),
    ("ID", Left),
];

/// The cells of a record.
pub(super) fn record(record: &Record<'_>) -> Vec<String> {
    let text = |member| record.text(member).unwrap_or_default().into_owned();
    // Anything but an exchange has no decision: its kind is shown instead.
    let decision = record.text(Member::Decision).unwrap_or_else(|| record.kind());
    let took = record.number(Member::DurationUs);
    vec![
        text(Member::Time),
        decision.into_owned(),
        text(Member::Code),
        text(Member::Status),
        took.map(milliseconds).unwrap_or_default(),
        text(Member::Caller),
        text(Member::Workspace),
        text(Member::Plugin),
        text(Member::Route),
        text(Member::Method),
        place(record),
        text(Member::Id),
    ]
}

/// The column WHERE: a target and a path, or the main fact of another line.
fn place(record: &Record<'_>) -> String {
    let of = |member| record.text(member).unwrap_or(Cow::Borrowed(""));
    let place = format!("{}{}", of(Member::Target), of(Member::Path));
    if !place.is_empty() {
        return place;
    }
    let others =
        [Member::RequestLine, Member::Lost, Member::Unknown, Member::TornBytes, Member::Run];
    let told = others.iter().filter_map(|member| {
        let text = record.text(*member)?;
        let is_said = *member == Member::RequestLine;
        Some(if is_said { text.into_owned() } else { format!("{}={text}", member.name()) })
    });
    told.collect::<Vec<_>>().join(" ")
}

/// Microseconds as milliseconds.
pub(in super::super) fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::super::{Format, tests::shown};

    #[test]
    fn rows_are_below_each_other_and_what_a_stranger_chose_is_harmless() {
        let lines = [
            r#"{"time":"2026-11-24T12:00:00.500000Z","id":"r-1","method":"GET","path":"/v1\u001b[2J\u202e","route":"services","workspace":"payments","caller":"ada","decision":"deny","code":"rate_limited","status":429,"duration_us":1234}"#,
            r#"{"time":"2026-11-24T12:00:01.500000Z","id":"r-2","method":"CONNECT","target":"a.example:443","decision":"allow","code":"ok","status":200,"duration_us":1234567}"#,
            r#"{"kind":"gap","time":"2026-11-24T12:00:02.500000Z","lost":3}"#,
        ];
        let expected = "\
TIME                         DECISION  CODE          STATUS        MS  CALLER  WORKSPACE  PLUGIN  ROUTE     METHOD   WHERE               ID
2026-11-24T12:00:00.500000Z  deny      rate_limited     429     1.234  ada     payments   -       services  GET      /v1\\u001b[2J\\u202e  r-1
2026-11-24T12:00:01.500000Z  allow     ok               200  1234.567  -       -          -       -         CONNECT  a.example:443       r-2
2026-11-24T12:00:02.500000Z  gap       -                  -         -  -       -          -       -         -        lost=3              -
";
        assert_eq!(shown(Format::Table, &lines), expected);
    }
}
