//! The output formats of records.

mod csv;
mod table;

use std::{
    borrow::Cow,
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
};

use clap::{Args, ValueEnum};

pub(super) use self::{
    csv::row,
    table::{Align, Table, milliseconds},
};
use super::{member::Member, record::Record};

/// The output options.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(super) struct Output {
    /// A table, JSON or CSV. Default: a table on a terminal, else JSON.
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    /// The recorded lines, byte for byte.
    Json,
    /// All members. Values that a spreadsheet would read as a formula begin with `'`.
    Csv,
}

impl Output {
    pub(super) fn format(&self) -> Format {
        let default = if io::stdout().is_terminal() { Format::Table } else { Format::Json };
        self.output.unwrap_or(default)
    }
}

pub(super) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Records, one after the other.
pub(super) struct Records<W> {
    out: W,
    shape: Shape,
}

enum Shape {
    Table(Table),
    Json,
    Csv,
}

impl<W: Write> Records<W> {
    /// # Errors
    /// If it cannot be written.
    pub(super) fn new(mut out: W, format: Format) -> io::Result<Self> {
        let shape = match format {
            Format::Table => Shape::Table(Table::new(&table::RECORD)),
            Format::Json => Shape::Json,
            Format::Csv => {
                row(&mut out, Member::value_variants().iter().map(|member| member.name()))?;
                Shape::Csv
            }
        };
        Ok(Self { out, shape })
    }

    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&mut self, line: &[u8], record: &Record<'_>) -> io::Result<()> {
        match &mut self.shape {
            Shape::Table(table) => table.row(&mut self.out, table::record(record)),
            Shape::Json => {
                self.out.write_all(line)?;
                self.out.write_all(b"\n")
            }
            Shape::Csv => {
                let text = |member: &Member| record.text(*member).unwrap_or_default();
                row(&mut self.out, Member::value_variants().iter().map(text))
            }
        }
    }

    /// Writes out everything so far.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if let Shape::Table(table) = &mut self.shape {
            table.flush(&mut self.out)?;
        }
        self.out.flush()
    }
}

/// Text from clients, for a terminal: anything but visible ASCII is escaped like in records, so that nothing
/// can reverse other text, move the cursor, or look like another letter.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    use std::fmt::Write;
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ' '..='~') {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04x}").expect("a string takes all that is written");
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn shown(format: Format, lines: &[&str]) -> String {
        let mut out = Vec::new();
        let mut records = Records::new(&mut out, format).unwrap();
        for line in lines {
            records.write(line.as_bytes(), &Record::read(line.as_bytes()).unwrap()).unwrap();
        }
        records.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_the_line_as_it_was_recorded() {
        let odd = r#"{ "time":"t", "path":"\u202e", "new":1.0e0 }"#;
        assert_eq!(shown(Format::Json, &[odd]), format!("{odd}\n"));
    }

    #[test]
    fn csv_has_all_members_in_one_order() {
        let shown =
            shown(Format::Csv, &[r#"{"time":"t","id":"1","roles":["a","b"],"status":404}"#]);
        let (head, row) = shown.trim_end().split_once("\r\n").unwrap();
        assert!(head.starts_with("time,kind,id,trace_id,"), "{head}");
        assert!(row.starts_with("t,,1,,,,,,,,,,404,"), "{row}");
        assert!(row.contains(r#","[""a"",""b""]","#), "{row}");
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_chose_a_terminal_gets_visible_ascii(text: String) {
            prop_assert!(visible(&text).bytes().all(|b| (b' '..=b'~').contains(&b)));
            let line = serde_json::json!({"time": "t", "path": text, "caller": text}).to_string();
            for format in [Format::Table, Format::Csv] {
                let shown = shown(format, &[&line]);
                prop_assert!(shown.bytes().all(|b| (b' '..=b'~').contains(&b) || b"\r\n".contains(&b)));
            }
        }
    }
}
