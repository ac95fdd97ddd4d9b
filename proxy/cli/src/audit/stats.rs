//! `stagedoor audit stats`: counts, refusals and durations, by group.

mod groups;
mod histogram;
mod intents;
mod report;
mod tally;

use std::{ops::ControlFlow::Continue, str::FromStr};

use clap::{Args, ValueEnum};

use self::{groups::Groups, intents::Intents, tally::Tally};
use super::{
    Ended, Trouble,
    filter::{EXCHANGE, Filter, Filters},
    member::Member,
    output::{Output, stdout},
    record::Record,
    source::{Reading, Source, files},
};

/// Count matching records.
#[derive(Args)]
pub(super) struct Stats {
    #[command(flatten)]
    source: Source,
    /// Members to group by, in combination: `code,workspace`. May be repeated for more tables. Default:
    /// decision, workspace, caller, plugin and route.
    #[arg(long, value_name = "MEMBERS")]
    by: Vec<By>,
    /// How many groups to show for each; the rest are added up. Default: 10 in a table, else all.
    #[arg(long, value_name = "GROUPS")]
    top: Option<usize>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    output: Output,
}

/// Members that are counted by together.
#[derive(Clone, Debug, PartialEq)]
struct By(Vec<Member>);

/// The counts.
struct Counted {
    all: Tally,
    by: Vec<Groups>,
    /// The first and the last time.
    range: Option<(String, String)>,
    lost: u64,
    intents: Intents,
    not_records: u64,
}

impl Stats {
    pub(super) fn run(self) -> Result<Ended, Trouble> {
        let mut files = files(&self.source.places()?)?;
        let mut reading = Reading::default();
        reading.since(self.filters.since, &mut files);
        let filter = self.filters.ready(None);
        let mut counted = Counted::by(if self.by.is_empty() { default() } else { self.by });
        for file in &files {
            let _ = reading.lines(file, |reading, found| {
                if let Some(record) = reading.record(found.line) {
                    counted.take(&record, &filter);
                }
                Ok(Continue(()))
            })?;
        }
        counted.not_records = reading.not_records;
        counted.write(&mut stdout(), self.output.format(), self.top)?;
        reading.report();
        Ok(Ended { found: true, unreadable: reading.unreadable_files > 0 })
    }
}

fn default() -> Vec<By> {
    let alone = [Member::Workspace, Member::Caller, Member::Plugin, Member::Route];
    let decided = By(vec![Member::Decision, Member::Code]);
    std::iter::once(decided).chain(alone.map(|member| By(vec![member]))).collect()
}

impl Counted {
    fn by(by: Vec<By>) -> Self {
        Self {
            all: Tally::default(),
            by: by.into_iter().map(|By(members)| Groups::new(members)).collect(),
            range: None,
            lost: 0,
            intents: Intents::default(),
            not_records: 0,
        }
    }

    fn take(&mut self, record: &Record<'_>, filter: &Filter) {
        match &*record.kind() {
            EXCHANGE => {
                self.intents.end(record);
                if filter.fits(record) {
                    self.widen(record);
                    self.all.take(record);
                    self.by.iter_mut().for_each(|groups| groups.take(record));
                }
            }
            "intent" if filter.fits_intent(record) => self.intents.begin(record),
            "recovery" => self.intents.recover(record),
            "gap" if filter.fits_time(record) => {
                self.lost += record.number(Member::Lost).unwrap_or(0);
            }
            _ => {}
        }
    }

    fn widen(&mut self, record: &Record<'_>) {
        let time = record.text(Member::Time).unwrap_or_default();
        let (first, last) = self
            .range
            .get_or_insert_with(|| (time.clone().into_owned(), time.clone().into_owned()));
        if *time < **first {
            *first = time.into_owned();
        } else if *time > **last {
            *last = time.into_owned();
        }
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let member = |name: &str| {
            Member::from_str(name.trim(), false).map_err(|_| {
                let all: Vec<_> = Member::value_variants().iter().map(|m| m.name()).collect();
                format!("`{name}` is not a member of a record; choose from {}", all.join(", "))
            })
        };
        let members: Vec<Member> = text.split(',').map(member).collect::<Result<_, _>>()?;
        if let Some(twice) = members.iter().enumerate().find(|(at, m)| members[..*at].contains(m)) {
            return Err(format!("`{}` is repeated; write it once", twice.1.name()));
        }
        Ok(Self(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::output::Format;

    pub(super) fn counted(by: &[&str], lines: &[String]) -> Counted {
        let mut counted = Counted::by(by.iter().map(|by| by.parse().unwrap()).collect());
        let filter = Filters::default().ready(None);
        for line in lines {
            counted.take(&Record::read(line.as_bytes()).unwrap(), &filter);
        }
        counted
    }

    fn written(counted: &Counted, format: Format, top: Option<usize>) -> String {
        let mut out = Vec::new();
        counted.write(&mut out, format, top).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn some() -> Vec<String> {
        let exchange = |second: u64, caller: &str, decision: &str, us: u64| {
            format!(
                r#"{{"time":"2026-11-24T12:00:{second:02}.000000Z","id":"{second}","decision":"{decision}","code":"c","caller":"{caller}","bytes_in":10,"bytes_out":2048,"duration_us":{us}}}"#
            )
        };
        let time = "\"time\":\"2026-11-24T12:00:30.000000Z\"";
        vec![
            exchange(9, "ada", "allow", 1000),
            exchange(3, "ada", "deny", 2000),
            exchange(5, "\\u202eeve", "allow", 3000),
            exchange(7, "=1+1", "allow", 4000),
            format!(
                r#"{{"time":"2026-11-24T12:00:08.000000Z","decision":"deny","code":"bad_request"}}"#
            ),
            format!(r#"{{"kind":"gap",{time},"lost":3}}"#),
            format!(r#"{{"kind":"segment",{time},"run":"r"}}"#),
            format!(r#"{{"kind":"intent",{time},"id":"a"}}"#),
            format!(r#"{{"kind":"intent",{time},"id":"b"}}"#),
            format!(r#"{{"kind":"recovery",{time},"unknown":["a"]}}"#),
        ]
    }

    #[test]
    fn a_table_has_counts_refusals_and_durations() {
        let expected = "\
records   5, from 2026-11-24T12:00:03.000000Z to 2026-11-24T12:00:09.000000Z
denied    2 (40.0%)
took      2.015 ms or less for half, 4.000 for 95%, 4.000 for 99%, 4.000 at most
bytes     40 B in, 8.0 KiB out
lost      3 records
unknown   2 of 2 intents have no outcome: still in flight, or cut off by a kill

CALLER     RECORDS  DENIED  DENIED %  P50 MS  P95 MS  P99 MS    IN      OUT
ada              2       1      50.0   1.007   2.000   2.000  20 B  4.0 KiB
-                1       1     100.0       -       -       -   0 B      0 B
=1+1             1       0       0.0   4.000   4.000   4.000  10 B  2.0 KiB
\\u202eeve        1       0       0.0   3.000   3.000   3.000  10 B  2.0 KiB
";
        assert_eq!(written(&counted(&["caller"], &some()), Format::Table, None), expected);
    }

    #[test]
    fn beyond_the_top_all_are_one() {
        let counted = counted(&["caller,decision"], &some());
        let shown = written(&counted, Format::Csv, Some(1));
        let rows: Vec<_> = shown.lines().collect();
        assert_eq!(
            rows[0],
            "by,row,caller,decision,records,denied,p50_us,p95_us,p99_us,max_us,bytes_in,bytes_out"
        );
        assert_eq!(rows[1], ",all,,,5,2,2015,4000,4000,4000,40,8192");
        assert!(rows[3].starts_with("\"caller,decision\",other,,,4,"), "{shown}");
        assert_eq!(rows.len(), 4);
        let shown = written(&counted, Format::Csv, None);
        assert!(shown.contains("group,\"'=1+1\",allow,1,"), "{shown}");
        assert!(shown.contains("group,\\u202eeve,allow,1,"), "{shown}");
    }

    #[test]
    fn json_has_all_that_was_counted_in_visible_ascii() {
        let shown = written(&counted(&["caller", "code"], &some()), Format::Json, None);
        assert!(shown.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(
            (&read["records"], &read["lost"], &read["unknown"]),
            (&5.into(), &3.into(), &2.into())
        );
        assert_eq!(read["by"][0]["members"][0], "caller");
        let groups = read["by"][0]["groups"].as_array().unwrap();
        assert!(groups.iter().any(|group| group["caller"] == "\u{202e}eve"), "{shown}");
        assert!(groups.iter().any(|group| group["caller"].is_null()), "{shown}");
    }

    #[test]
    fn nothing_is_counted_as_nothing() {
        for format in [Format::Table, Format::Json, Format::Csv] {
            let shown = written(&Counted::by(default()), format, None);
            assert!(shown.contains('0') && !shown.contains("NaN"), "{shown}");
        }
    }

    #[test]
    fn an_unknown_member_is_reported_with_all_known_ones() {
        let told = "code,tenant".parse::<By>().unwrap_err();
        assert!(
            told.starts_with("`tenant` is not a member of a record; choose from time, kind, id,"),
            "{told}"
        );
        assert!("code,code".parse::<By>().unwrap_err().contains("is repeated"));
        assert_eq!("code, workspace".parse(), Ok(By(vec![Member::Code, Member::Workspace])));
    }
}
