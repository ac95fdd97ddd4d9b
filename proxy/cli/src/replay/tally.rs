//! The counts of a replay. Bounded: groups beyond the maximum are one number.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    path::Path,
};

use filters::{
    Label,
    replay::{Change, Decided, Why, record::Record},
};
use serde::Serialize;
use serde_json::json;

use crate::counted;

/// The maximum of groups, which bounds the memory.
const GROUPS_MAX: usize = 10_000;
/// Groups of a kind that a table shows.
const ROWS_MAX: usize = 100;

/// The counts of a replay.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) same: u64,
    pub(super) new_denies: Groups<Flip>,
    pub(super) new_allows: Groups<Flip>,
    pub(super) moved: Groups<Move>,
    pub(super) left_out: BTreeMap<Why, u64>,
    pub(super) unreadable: u64,
    pub(super) made_by: Groups<Label>,
}

/// Alike things, counted.
pub(super) struct Groups<K> {
    pub(super) total: u64,
    by: BTreeMap<K, u64>,
    other: u64,
}

/// A decision that turns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Flip {
    /// The code on record, or `ok`.
    was: Label,
    /// The code now, or `ok`.
    is: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The route, or what was called.
    what: Label,
    /// The rule that allowed it, then or now, and its place in the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<Label>,
    /// What is not recorded, and so was not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    unjudged: Option<&'static str>,
}

/// A decision with the same result, but another route, upstream or rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Move {
    what: &'static str,
    from: Label,
    to: Label,
}

impl Tally {
    pub(super) fn take(&mut self, record: &Record<'_>, decided: Result<Decided, Why>) {
        self.records += 1;
        let decided = match decided {
            Ok(decided) => decided,
            Err(why) => {
                *self.left_out.entry(why).or_default() += 1;
                return;
            }
        };
        if !record.config.is_empty() {
            self.made_by.add_text(&record.config);
        }
        match decided.change(record) {
            None => self.same += 1,
            Some(Change::NewDenial) => self.new_denies.add(flip(record, &decided)),
            Some(Change::NewAllow) => self.new_allows.add(flip(record, &decided)),
            Some(change) => self.moved.add(moved(record, &decided, change)),
        }
    }

    pub(super) fn json(&self, digest: &str, files: u64) -> String {
        let left_out: Vec<_> = self
            .left_out
            .iter()
            .map(|(why, count)| json!({"count": count, "why": why.sentence()}))
            .collect();
        let told = json!({
            "candidate": digest,
            "made_by": self.made_by.json("config"),
            "files": files,
            "records": self.records,
            "same": self.same,
            "new_denies": self.new_denies.json("of"),
            "new_allows": self.new_allows.json("of"),
            "moved": self.moved.json("of"),
            "not_replayed": {"total": self.not_replayed(), "groups": left_out},
            "unreadable_lines": self.unreadable,
            "not_judged": ["rate limits", "breakers", "paces", "idempotency keys", "tokens"],
        });
        format!("{told:#}\n")
    }

    pub(super) fn table(&self, candidate: &Path, digest: &str, files: u64) -> String {
        let mut out = String::new();
        let records = counted(self.records, "record");
        let _ = writeln!(
            out,
            "{records} in {}, replayed with {} (config {digest})",
            counted(files, "file"),
            candidate.display()
        );
        let made_by: Vec<&str> = self.made_by.by.keys().map(|config| &**config).collect();
        if !made_by.is_empty() && made_by != [digest] {
            let more = if made_by.len() > 3 { " and others" } else { "" };
            let shown = made_by[..made_by.len().min(3)].join(", ");
            let _ = writeln!(out, "they were decided by config {shown}{more}");
        }
        let _ = writeln!(out);
        for (name, count) in [
            ("same", self.same),
            ("allow -> deny", self.new_denies.total),
            ("deny -> allow", self.new_allows.total),
            ("moved", self.moved.total),
            ("not replayed", self.not_replayed()),
        ] {
            let _ = writeln!(out, "{name:<14} {count:>9}");
        }
        if self.unreadable > 0 {
            let _ = writeln!(out, "{:<14} {:>9}", "no records", self.unreadable);
        }
        for (title, flips) in
            [("allow -> deny", &self.new_denies), ("deny -> allow", &self.new_allows)]
        {
            flips.table(
                &mut out,
                title,
                &["was -> is", "what", "rule", "workspace", "caller"],
                |flip| {
                    let or = |text: &Option<Label>| text.as_deref().unwrap_or("-").to_owned();
                    let status = flip.status.map(|status| format!("{status} ")).unwrap_or_default();
                    let note = flip.unjudged.map(|what| format!(" ({what} not recorded)"));
                    vec![
                        format!("{} -> {status}{}{}", flip.was, flip.is, note.unwrap_or_default()),
                        flip.what.to_string(),
                        or(&flip.rule),
                        or(&flip.workspace),
                        or(&flip.caller),
                    ]
                },
            );
        }
        self.moved.table(&mut out, "moved", &["what", "from", "to"], |moved| {
            vec![moved.what.to_owned(), moved.from.to_string(), moved.to.to_string()]
        });
        if !self.left_out.is_empty() {
            let _ = writeln!(out, "\nnot replayed");
            for (why, count) in &self.left_out {
                let _ = writeln!(out, "{count:>9}  {}", why.sentence());
            }
        }
        let _ = writeln!(
            out,
            "\nRate limits, breakers, paces and idempotency keys were left out, and tokens were not verified again."
        );
        out
    }

    fn not_replayed(&self) -> u64 {
        self.left_out.values().sum()
    }
}

fn label(text: impl Display) -> Label {
    Label::lossy(&text.to_string())
}

fn flip(record: &Record<'_>, decided: &Decided) -> Flip {
    let exchange = &decided.exchange;
    let route = exchange.route.as_deref();
    let called = exchange.call.as_ref();
    let what = match (called, route, &record.route) {
        (Some(called), _, _) => label(&called.target),
        (_, _, Some(route)) if decided.denial.is_some() => label(route),
        (_, Some(route), _) => route.name.clone(),
        _ => label(&record.listener),
    };
    // For then, the record names the rule that allowed it; for now, the config.
    let rule = if decided.denial.is_some() {
        let name = record.egress_rule.as_ref().or(record.route.as_ref());
        record.rule.as_ref().map(|place| match name {
            Some(name) => label(format_args!("{name} ({place})")),
            None => label(place),
        })
    } else if let Some(called) = called {
        called.rule.as_ref().map(|rule| label(format_args!("{} ({})", rule.name, rule.place)))
    } else {
        route.map(|route| label(format_args!("{} ({})", route.name, route.place)))
    };
    let workspace = exchange.workspace.as_ref().map(|workspace| workspace.name.clone());
    let recorded = record.workspace.as_ref().or(record.asked_workspace.as_ref());
    let caller = exchange.caller.as_ref().map(|caller| caller.subject.clone());
    Flip {
        was: label(if record.was() == filters::replay::Was::Allowed { "ok" } else { &record.code }),
        is: decided.code(),
        status: decided.denial.as_ref().map(|denial| denial.status().as_u16()),
        what,
        rule,
        workspace: workspace.or_else(|| recorded.map(label)),
        caller: caller.or_else(|| record.caller.as_ref().map(label)),
        unjudged: decided.unjudged,
    }
}

fn moved(record: &Record<'_>, decided: &Decided, change: Change) -> Move {
    let exchange = &decided.exchange;
    let route = exchange.route.as_deref();
    let rule = exchange.call.as_ref().and_then(|called| called.rule.as_ref());
    let recorded =
        |text: &Option<filters::replay::record::Text<'_>>| label(text.as_deref().unwrap_or("-"));
    let now = |name: Option<&Label>| name.cloned().unwrap_or_else(|| Label::lossy("-"));
    let (what, from, to) = match change {
        Change::Route => ("route", recorded(&record.route), now(route.map(|route| &route.name))),
        Change::Upstream => {
            ("upstream", recorded(&record.upstream), now(route.map(|route| &route.upstream)))
        }
        Change::Rule => ("rule", recorded(&record.egress_rule), now(rule.map(|rule| &rule.name))),
        _ => ("code", label(&record.code), label(decided.code())),
    };
    Move { what, from, to }
}

impl<K: Ord> Groups<K> {
    fn add(&mut self, key: K) {
        self.total += 1;
        if self.by.len() >= GROUPS_MAX && !self.by.contains_key(&key) {
            self.other += 1;
            return;
        }
        *self.by.entry(key).or_default() += 1;
    }

    /// The largest first.
    fn sorted(&self) -> Vec<(&K, u64)> {
        let mut all: Vec<(&K, u64)> = self.by.iter().map(|(key, count)| (key, *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }

    fn table(
        &self,
        out: &mut String,
        title: &str,
        columns: &[&str],
        row: impl Fn(&K) -> Vec<String>,
    ) {
        if self.total == 0 {
            return;
        }
        let sorted = self.sorted();
        let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|c| (*c).to_owned()).collect()];
        rows.extend(sorted.iter().take(ROWS_MAX).map(|(key, _)| row(key)));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let _ = writeln!(out, "\n{title}");
        let counts = std::iter::once("count".to_owned())
            .chain(sorted.iter().map(|(_, count)| count.to_string()));
        for (count, row) in counts.zip(&rows) {
            let cells = row.iter().zip(&widths);
            let line = cells.fold(format!("{count:>9}"), |mut line, (cell, width)| {
                let _ = write!(line, "  {cell:<width$}");
                line
            });
            let _ = writeln!(out, "{}", line.trim_end());
        }
        let rest: u64 = sorted.iter().skip(ROWS_MAX).map(|(_, count)| count).sum();
        if rest + self.other > 0 {
            let _ = writeln!(out, "{:>9}  others", rest + self.other);
        }
    }
}

impl Groups<Label> {
    fn add_text(&mut self, text: &str) {
        match self.by.get_mut(text) {
            Some(count) => {
                *count += 1;
                self.total += 1;
            }
            None => self.add(Label::lossy(text)),
        }
    }
}

impl<K: Ord + Serialize> Groups<K> {
    fn json(&self, name: &str) -> serde_json::Value {
        let groups = self.sorted().into_iter();
        let groups: Vec<_> =
            groups.map(|(key, count)| json!({"count": count, name: key})).collect();
        json!({"total": self.total, "groups": groups, "other": self.other})
    }
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self { total: 0, by: BTreeMap::new(), other: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_flood_are_bounded_and_the_rest_is_counted() {
        let mut groups = Groups::default();
        for n in 0..GROUPS_MAX + 7 {
            groups.add(n);
        }
        groups.add(3);
        assert_eq!((groups.by.len(), groups.other, groups.total), (GROUPS_MAX, 7, 10_008));
        assert_eq!(groups.sorted()[0], (&3, 2));
    }
}
