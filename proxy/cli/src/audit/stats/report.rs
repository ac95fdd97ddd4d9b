//! The report of the counts.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Counted, groups::Groups, tally::Tally};
use crate::audit::{
    member::Member,
    output::{Align, Format, Table, milliseconds, row, visible},
    record,
};

impl Counted {
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(
        &self,
        out: &mut impl Write,
        format: Format,
        top: Option<usize>,
    ) -> io::Result<()> {
        match format {
            Format::Table => self.table(out, top.unwrap_or(10)),
            Format::Json => self.json(out, top.unwrap_or(usize::MAX)),
            Format::Csv => self.csv(out, top.unwrap_or(usize::MAX)),
        }?;
        out.flush()
    }

    fn table(&self, out: &mut impl Write, top: usize) -> io::Result<()> {
        let all = &self.all;
        write!(out, "records   {}", all.records)?;
        if let Some((first, last)) = &self.range {
            write!(out, ", from {} to {}", visible(first), visible(last))?;
        }
        writeln!(out, "\ndenied    {} ({}%)", all.denied, percent(all))?;
        if let [Some(half), Some(most), Some(nearly), Some(max)] =
            took(all).map(|(_, us)| us.map(milliseconds))
        {
            writeln!(
                out,
                "took      {half} ms or less for half, {most} for 95%, {nearly} for 99%, {max} at most"
            )?;
        }
        writeln!(out, "bytes     {} in, {} out", size(all.bytes_in), size(all.bytes_out))?;
        writeln!(out, "lost      {}", crate::counted(self.lost, "record"))?;
        let (begun, unknown) = (self.intents.begun, self.intents.unknown());
        writeln!(
            out,
            "unknown   {unknown} of {begun} intents have no outcome{}",
            if unknown > 0 { ": still in flight, or cut off by a kill" } else { "" }
        )?;
        self.by.iter().try_for_each(|groups| groups.table(out, top))
    }

    fn json(&self, out: &mut impl Write, top: usize) -> io::Result<()> {
        let mut all = Map::new();
        let (first, last) = self.range.clone().unzip();
        all.insert("from".to_owned(), json!(first));
        all.insert("to".to_owned(), json!(last));
        numbers(&self.all, &mut all);
        all.insert("lost".to_owned(), self.lost.into());
        all.insert("intents".to_owned(), self.intents.begun.into());
        all.insert("unknown".to_owned(), self.intents.unknown().into());
        all.insert("not_records".to_owned(), self.not_records.into());
        all.insert("by".to_owned(), self.by.iter().map(|groups| groups.json(top)).collect());
        // Non-ASCII text is only in strings, where JSON has the same escapes.
        writeln!(out, "{}", visible(&Value::Object(all).to_string()))
    }

    fn csv(&self, out: &mut impl Write, top: usize) -> io::Result<()> {
        let mut columns: Vec<Member> = Vec::new();
        for member in self.by.iter().flat_map(|groups| &groups.members) {
            if !columns.contains(member) {
                columns.push(*member);
            }
        }
        let names = columns.iter().map(|member| member.name());
        let head = ["by".to_owned(), "row".to_owned()].into_iter().chain(names);
        row(out, head.chain(values(&self.all).map(|(name, _)| name.to_owned())))?;
        let mut line = |by: &str, what: &str, texts: Vec<String>, tally: &Tally| {
            let values = values(tally).map(|(_, n)| n.map(|n| n.to_string()).unwrap_or_default());
            row(out, [by.to_owned(), what.to_owned()].into_iter().chain(texts).chain(values))
        };
        let none = || vec![String::new(); columns.len()];
        line("", "all", none(), &self.all)?;
        for groups in &self.by {
            let (largest, other) = groups.largest(top);
            let by = groups.name(",");
            for (raw, tally) in largest {
                let text = |column: &Member| {
                    let at = groups.members.iter().position(|member| member == column);
                    at.map(|at| record::decoded(raw[at]).into_owned()).unwrap_or_default()
                };
                line(&by, "group", columns.iter().map(text).collect(), tally)?;
            }
            if other.records > 0 {
                line(&by, "other", none(), &other)?;
            }
        }
        Ok(())
    }
}

impl Groups {
    fn name(&self, between: &str) -> String {
        self.members.iter().map(|member| member.name()).collect::<Vec<_>>().join(between)
    }

    fn table(&self, out: &mut impl Write, top: usize) -> io::Result<()> {
        use Align::{Left, Right};
        let names: Vec<_> =
            self.members.iter().map(|member| member.name().to_uppercase()).collect();
        let texts = names.iter().map(|name| (&**name, Left));
        let numbers = ["RECORDS", "DENIED", "DENIED %", "P50 MS", "P95 MS", "P99 MS", "IN", "OUT"];
        let columns: Vec<_> = texts.chain(numbers.map(|name| (name, Right))).collect();
        let mut table = Table::new(&columns);
        let (largest, other) = self.largest(top);
        writeln!(out)?;
        for (raw, tally) in largest {
            let texts = raw.into_iter().map(|raw| record::decoded(raw).into_owned());
            table.row(out, texts.chain(cells(tally)).collect())?;
        }
        if other.records > 0 {
            let mut texts = vec![String::new(); self.members.len()];
            "(all others)".clone_into(&mut texts[0]);
            table.row(out, texts.into_iter().chain(cells(&other)).collect())?;
        }
        table.flush(out)
    }

    fn json(&self, top: usize) -> Value {
        let (largest, other) = self.largest(top);
        let group = |(raw, tally): (Vec<&str>, &Tally)| {
            let mut group = Map::new();
            for (member, raw) in self.members.iter().zip(raw) {
                let text = || Value::String(record::decoded(raw).into_owned());
                let value = if raw.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_str(raw).unwrap_or_else(|_| text())
                };
                group.insert(member.name(), value);
            }
            numbers(tally, &mut group);
            Value::Object(group)
        };
        let groups: Vec<Value> = largest.into_iter().map(group).collect();
        let members: Vec<_> = self.members.iter().map(|member| member.name()).collect();
        let mut others = Map::new();
        numbers(&other, &mut others);
        let others = if other.records > 0 { Value::Object(others) } else { Value::Null };
        json!({"members": members, "groups": groups, "other": others})
    }
}

/// What programs get of a tally.
fn values(tally: &Tally) -> impl Iterator<Item = (&'static str, Option<u64>)> {
    let counts = [("records", Some(tally.records)), ("denied", Some(tally.denied))];
    let bytes = [("bytes_in", Some(tally.bytes_in)), ("bytes_out", Some(tally.bytes_out))];
    counts.into_iter().chain(took(tally)).chain(bytes)
}

fn numbers(tally: &Tally, into: &mut Map<String, Value>) {
    into.extend(values(tally).map(|(name, number)| (name.to_owned(), json!(number))));
}

fn took(tally: &Tally) -> [(&'static str, Option<u64>); 4] {
    let percentile = |percent| tally.took.percentile(percent);
    [
        ("p50_us", percentile(50)),
        ("p95_us", percentile(95)),
        ("p99_us", percentile(99)),
        ("max_us", tally.took.max),
    ]
}

/// What people get of a tally.
fn cells(tally: &Tally) -> impl Iterator<Item = String> {
    let counts = [tally.records.to_string(), tally.denied.to_string(), percent(tally)];
    let times =
        took(tally).into_iter().take(3).map(|(_, us)| us.map(milliseconds).unwrap_or_default());
    let bytes = [size(tally.bytes_in), size(tally.bytes_out)];
    counts.into_iter().chain(times).chain(bytes)
}

/// How many of a hundred are denied.
fn percent(tally: &Tally) -> String {
    let thousandths = u128::from(tally.denied) * 1000 / u128::from(tally.records.max(1));
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = (bytes.max(1).ilog2() / 10).checked_sub(1) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> (10 * (power + 1));
    format!("{}.{} {}", tenths / 10, tenths % 10, units[power as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(1_572_864, "1.5 MiB");
        check(u64::MAX, "15.9 EiB");
    }
}
