//! Records counted by what some of their members say.

use std::collections::HashMap;

use super::tally::Tally;
use crate::audit::{member::Member, record::Record};

/// Strangers choose names: beyond this many groups, all are one.
const GROUPS_MAX: usize = 10_000;

pub(super) struct Groups {
    pub(super) members: Vec<Member>,
    /// By the raw members, each followed by a NUL, which JSON cannot contain.
    groups: HashMap<String, Tally>,
    other: Tally,
    key: String,
}

/// A group, with its members as they are written.
pub(super) type Group<'a> = (Vec<&'a str>, &'a Tally);

impl Groups {
    pub(super) fn new(members: Vec<Member>) -> Self {
        Self { members, groups: HashMap::new(), other: Tally::default(), key: String::new() }
    }

    pub(super) fn take(&mut self, record: &Record<'_>) {
        self.key.clear();
        for member in &self.members {
            self.key.push_str(record.raw(*member).unwrap_or_default());
            self.key.push('\0');
        }
        let has_room = self.groups.len() < GROUPS_MAX;
        let tally = match self.groups.get_mut(&self.key) {
            Some(tally) => tally,
            None if has_room => self.groups.entry(self.key.clone()).or_default(),
            None => &mut self.other,
        };
        tally.take(record);
    }

    /// The largest first, and all beyond `top` together.
    pub(super) fn largest<'a>(&'a self, top: usize) -> (Vec<Group<'a>>, Tally) {
        let mut all: Vec<_> = self.groups.iter().collect();
        all.sort_unstable_by(|(a, x), (b, y)| y.records.cmp(&x.records).then(a.cmp(b)));
        let mut other = self.other.clone();
        all.iter().skip(top).for_each(|(_, tally)| other.add(tally));
        all.truncate(top);
        let apart =
            |(key, tally): (&'a String, &'a Tally)| (key.split_terminator('\0').collect(), tally);
        (all.into_iter().map(apart).collect(), other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_and_nothing_is_left_uncounted() {
        let mut groups = Groups::new(vec![Member::Caller, Member::Plugin]);
        for n in 0..GROUPS_MAX + 10 {
            let line = format!(r#"{{"time":"t","caller":"{n}"}}"#);
            groups.take(&Record::read(line.as_bytes()).unwrap());
        }
        groups.take(&Record::read(br#"{"time":"t","caller":"7"}"#).unwrap());
        let (largest, other) = groups.largest(usize::MAX);
        assert_eq!((largest.len(), other.records), (GROUPS_MAX, 10));
        assert_eq!((&largest[0].0[..], largest[0].1.records), (&["\"7\"", ""][..], 2));
        let (largest, other) = groups.largest(3);
        assert_eq!((largest.len(), other.records), (3, GROUPS_MAX as u64 + 7));
    }
}
