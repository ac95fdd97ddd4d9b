//! The latest configs that were applied or refused, with their changes.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

/// More are forgotten; records have them.
const ENTRIES_MAX: usize = 100;
/// Further lines of an entry are counted and not stored.
const LINES_MAX: usize = 100;

/// The latest entries.
#[derive(Default)]
pub struct History(Mutex<VecDeque<Entry>>);

/// A config that was applied, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, in seconds since 1970; the last time, if it was repeated.
    pub time: u64,
    /// How often in a row.
    pub times: u64,
    /// Why it was loaded.
    pub source: &'static str,
    /// Whether it was applied.
    pub successful: bool,
    /// The digest of the config in force after it.
    pub digest: String,
    /// The digest of the config in force before it, if there was one.
    pub previous: Option<String>,
    /// What changed in effect.
    pub changes: Vec<String>,
    /// The problems, or what needs a restart.
    pub messages: Vec<String>,
}

impl History {
    /// Adds an entry. One that equals the previous but for its time is counted there.
    pub fn add(&self, mut entry: Entry) {
        let more = entry.messages.len().saturating_sub(LINES_MAX);
        if more > 0 {
            entry.messages.truncate(LINES_MAX);
            entry.messages.push(format!("and {more} more"));
        }
        let mut kept = self.0.lock();
        if let Some(last) = kept.back_mut() {
            let again = Entry { time: entry.time, times: last.times, ..entry.clone() };
            if (Entry { time: entry.time, ..last.clone() }) == again {
                (last.time, last.times) = (entry.time, last.times + 1);
                return;
            }
        }
        if kept.len() == ENTRIES_MAX {
            kept.pop_front();
        }
        kept.push_back(entry);
    }

    /// All entries, newest first.
    pub fn all(&self) -> Vec<Entry> {
        self.0.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: u64, digest: &str) -> Entry {
        Entry {
            time,
            times: 1,
            source: "files",
            successful: true,
            digest: digest.to_owned(),
            previous: None,
            changes: Vec::new(),
            messages: Vec::new(),
        }
    }

    #[test]
    fn the_newest_is_first_and_the_oldest_is_dropped() {
        let history = History::default();
        for time in 0..ENTRIES_MAX as u64 + 10 {
            history.add(entry(time, &time.to_string()));
        }
        let all = history.all();
        assert_eq!((all.len(), all[0].time, all.last().unwrap().time), (ENTRIES_MAX, 109, 10));
    }

    #[test]
    fn the_same_again_is_counted_and_something_else_is_not() {
        let history = History::default();
        (1..=3).for_each(|time| history.add(entry(time, "a")));
        history.add(Entry { messages: vec!["wrong".to_owned()], ..entry(4, "a") });
        history.add(entry(5, "a"));
        let told: Vec<_> = history.all().iter().map(|entry| (entry.time, entry.times)).collect();
        assert_eq!(told, [(5, 1), (4, 1), (3, 3)]);
    }

    #[test]
    fn a_config_with_thousands_of_mistakes_does_not_fill_the_memory() {
        let history = History::default();
        history.add(Entry { messages: vec!["x".to_owned(); 5000], ..entry(1, "a") });
        let messages = &history.all()[0].messages;
        assert_eq!((messages.len(), &*messages[LINES_MAX]), (LINES_MAX + 1, "and 4900 more"));
    }
}
