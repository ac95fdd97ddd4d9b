//! Intents, and which of them have no outcome.

use std::collections::HashMap;

use crate::audit::{member::Member, record::Record};

/// The maximum of open intents that are tracked.
const OPEN_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct Intents {
    pub(super) begun: u64,
    /// By id. Clients choose ids, and may choose one twice.
    open: HashMap<String, u64>,
    /// Open intents that a process found after a killed one.
    recovered: u64,
}

impl Intents {
    pub(super) fn begin(&mut self, intent: &Record<'_>) {
        let Some(id) = intent.text(Member::Id) else { return };
        self.begun += 1;
        if self.open.len() < OPEN_MAX || self.open.contains_key(&*id) {
            *self.open.entry(id.into_owned()).or_default() += 1;
        }
    }

    pub(super) fn end(&mut self, record: &Record<'_>) {
        if record.raw(Member::Intended) == Some("true")
            && let Some(id) = record.text(Member::Id)
        {
            self.close(&id);
        }
    }

    pub(super) fn recover(&mut self, recovery: &Record<'_>) {
        let ids = recovery.raw(Member::Unknown).unwrap_or("[]");
        for id in serde_json::from_str::<Vec<String>>(ids).unwrap_or_default() {
            self.recovered += u64::from(self.close(&id));
        }
    }

    /// How many have no outcome.
    pub(super) fn unknown(&self) -> u64 {
        self.recovered + self.open.values().sum::<u64>()
    }

    /// Whether there was one.
    fn close(&mut self, id: &str) -> bool {
        let Some(times) = self.open.get_mut(id) else { return false };
        *times -= 1;
        if *times == 0 {
            self.open.remove(id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_is_unknown_until_its_outcome_also_if_ids_are_there_twice() {
        let mut intents = Intents::default();
        let read = |line: &'static str| Record::read(line.as_bytes()).unwrap();
        let (a, b) = (read(r#"{"time":"t","id":"a"}"#), read(r#"{"time":"t","id":"b"}"#));
        [&a, &a, &b].into_iter().for_each(|intent| intents.begin(intent));
        assert_eq!((intents.begun, intents.unknown()), (3, 3));
        intents.end(&a); // a read with the same id
        intents.end(&read(r#"{"time":"t","id":"a","intended":true}"#));
        assert_eq!(intents.unknown(), 2);
        intents.recover(&read(r#"{"time":"t","unknown":["a","elsewhere"]}"#));
        assert_eq!(intents.unknown(), 2);
        intents.end(&read(r#"{"time":"t","id":"b","intended":true}"#));
        assert_eq!((intents.begun, intents.unknown()), (3, 1));
    }
}
