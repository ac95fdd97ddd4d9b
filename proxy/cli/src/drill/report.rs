//! What a drill found, for people and for programs.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;
use serde_json::json;

use super::{aims::Skipped, fault::Fault, flood::Limits, measured::Measured};

/// One fault.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) fault: Fault,
    #[serde(flatten)]
    pub(super) state: State,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Drilled(Box<Drilled>),
    /// Why it cannot be with this config.
    NotApplicable(String),
    /// Why it could not be tried.
    Failed(String),
}

/// What a fault did.
#[derive(Default, Serialize)]
pub(super) struct Drilled {
    #[serde(flatten)]
    pub(super) measured: Measured,
    /// Exchanges that got a response and are not recorded.
    pub(super) records_lost: usize,
    /// Records that the log itself reports as lost.
    pub(super) records_lost_told: usize,
    /// The output of `audit verify`, unless the records are intact.
    pub(super) records_wrong: Option<String>,
    /// Actions that were sent upstream more than once.
    pub(super) actions_twice: usize,
    /// Connections that reached a forbidden address.
    pub(super) reached: usize,
    /// Seconds from the end of the fault until callers were admitted as before.
    pub(super) back_after: Option<f64>,
    /// The observations of the shared store, if that was unreachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<StoreSeen>,
    /// The promises that were broken.
    pub(super) broken: Vec<String>,
}

/// The observations of the shared store.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct StoreSeen {
    /// Tokens that it had leased before it became unreachable.
    pub(super) tokens_leased: u64,
    /// Seconds from its return until limits were counted there again.
    pub(super) found_after: Option<f64>,
}

/// All of a drill.
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) driven: usize,
    pub(super) left: Vec<Skipped>,
    pub(super) notes: Vec<String>,
    /// The results of the floods, unless a single fault was requested.
    pub(super) limits: Option<Result<Limits, String>>,
}

impl Row {
    pub(super) fn not(fault: Fault, why: &str) -> Self {
        Self { fault, state: State::NotApplicable(why.to_owned()) }
    }

    pub(super) fn failed(fault: Fault, why: String) -> Self {
        Self { fault, state: State::Failed(why) }
    }

    pub(super) fn ran(fault: Fault, drilled: Drilled) -> Self {
        Self { fault, state: State::Drilled(Box::new(drilled)) }
    }
}

impl Report {
    /// The promises that were broken, each with its fault.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut all = Vec::new();
        for row in &self.rows {
            if let State::Drilled(drilled) = &row.state {
                all.extend(drilled.broken.iter().map(|what| format!("{}: {what}", row.name())));
            }
        }
        if let Some(Ok(limits)) = &self.limits {
            all.extend(limits.broken.iter().map(|what| format!("limits: {what}")));
        }
        all
    }

    /// Whether something could not be tried that should have been.
    pub(super) fn has_failed(&self) -> bool {
        let failed = |row: &Row| matches!(row.state, State::Failed(_));
        self.driven == 0 || self.rows.iter().any(failed) || matches!(self.limits, Some(Err(_)))
    }

    pub(super) fn json(&self) -> String {
        let left: Vec<_> =
            self.left.iter().map(|left| json!({"of": left.of, "why": left.why})).collect();
        let all = json!({
            "faults": self.rows, "driven": self.driven, "not_driven": left,
            "differences": self.notes, "broken": self.broken(),
            "limits": match &self.limits {
                Some(Ok(limits)) => json!(limits.met),
                Some(Err(why)) => json!({"failed": why}),
                None => json!(null),
            },
        });
        format!("{all:#}\n")
    }

    /// For people. With `named`, targets that were not driven are named, and otherwise only counted.
    pub(super) fn text(&self, named: bool) -> String {
        let mut lines = vec![HEADER.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let mut text = table(&lines);
        match &self.limits {
            Some(Ok(limits)) => text += &limits.text(),
            Some(Err(why)) => _ = writeln!(text, "\nlimits could not be tried: {why}"),
            None => {}
        }
        let all = self.driven + self.left.len();
        let _ = writeln!(text, "\n{} of {all} routes and hosts driven", self.driven);
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for left in &self.left {
            reasons.entry(&left.why).or_default().push(&left.of);
        }
        for (why, of) in reasons {
            let _ = match named {
                true => writeln!(text, "not driven, {why}: {}", of.join(", ")),
                false => writeln!(text, "not driven, {why}: {}", of.len()),
            };
        }
        if !named && !self.left.is_empty() {
            text += "`--not-driven` names them\n";
        }
        for note in &self.notes {
            let _ = writeln!(text, "in the copy: {note}");
        }
        for broken in self.broken() {
            let _ = writeln!(text, "BROKEN {broken}");
        }
        text
    }
}

const HEADER: [&str; 7] =
    ["fault", "admitted", "added p50/p99", "lost", "twice", "back after", "callers saw"];

impl Row {
    fn name(&self) -> String {
        json!(self.fault).as_str().unwrap_or_default().to_owned()
    }

    fn cells(&self) -> [String; 7] {
        let rest = |why: String| {
            let empty = || "-".to_owned();
            [self.name(), empty(), empty(), empty(), empty(), empty(), why]
        };
        let drilled = match &self.state {
            State::Drilled(drilled) => drilled,
            State::NotApplicable(why) => return rest(format!("n/a: {why}")),
            State::Failed(why) => return rest(format!("failed: {why}")),
        };
        let measured = &drilled.measured;
        let admitted = measured.admitted.map_or_else(|| "-".to_owned(), |p| format!("{p:.0} %"));
        let added = match (measured.added_p50, measured.added_p99) {
            (Some(p50), Some(p99)) => format!("{p50:+.0}/{p99:+.0} ms"),
            _ => "-".to_owned(),
        };
        let back = drilled.back_after.map_or_else(|| "never".to_owned(), |s| format!("{s:.1} s"));
        let lost = match drilled.records_lost {
            lost if lost > 0 && lost <= drilled.records_lost_told => format!("{lost} reported"),
            lost => lost.to_string(),
        };
        let mut saw: Vec<_> = measured.saw.iter().collect();
        saw.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let saw: Vec<String> = saw.iter().map(|(what, count)| format!("{what} x{count}")).collect();
        [
            self.name(),
            admitted,
            added,
            lost,
            drilled.actions_twice.to_string(),
            back,
            saw.join(", "),
        ]
    }
}

/// Columns as wide as their content; numbers aligned to the right.
fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                last if last == N - 1 => write!(text, "  {cell}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_line_and_broken_promises_are_reported() {
        let drilled = Drilled {
            measured: Measured {
                calls: [10, 20, 5],
                admitted: Some(3.2),
                saw: BTreeMap::from([
                    ("503 breaker_open".to_owned(), 18),
                    ("500 of the upstream".to_owned(), 2),
                ]),
                ..Measured::default()
            },
            records_lost: 1,
            records_lost_told: 0,
            records_wrong: None,
            actions_twice: 0,
            reached: 0,
            back_after: Some(26.1),
            store: None,
            broken: vec!["1 exchange answered and not on record".to_owned()],
        };
        let rows = vec![
            Row::ran(Fault::Upstream500, drilled),
            Row::not(Fault::RedisDown, "limits are not shared"),
        ];
        let left = vec![Skipped { of: "route a on edge".to_owned(), why: "closed".to_owned() }];
        let report = Report { rows, driven: 4, left, notes: Vec::new(), limits: None };
        let expected = "\
fault         admitted  added p50/p99  lost  twice  back after  callers saw
upstream-500       3 %              -     1      0      26.1 s  503 breaker_open x18, 500 of the upstream x2
redis-down           -              -     -      -           -  n/a: limits are not shared

4 of 5 routes and hosts driven
not driven, closed: 1
`--not-driven` names them
BROKEN upstream-500: 1 exchange answered and not on record
";
        assert_eq!(report.text(false), expected);
        assert!(report.text(true).contains("\nnot driven, closed: route a on edge\nBROKEN"));
        let told: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(told["faults"][0]["drilled"]["saw"]["503 breaker_open"], 18);
        assert_eq!(told["faults"][1]["not_applicable"], "limits are not shared");
    }
}
