//! The counts of a group of records.

use super::histogram::Histogram;
use crate::audit::{member::Member, record::Record};

#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) denied: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Microseconds.
    pub(super) took: Histogram,
}

impl Tally {
    pub(super) fn take(&mut self, record: &Record<'_>) {
        let bytes = |member| record.number(member).unwrap_or(0);
        self.records += 1;
        self.denied += u64::from(record.text(Member::Decision).as_deref() == Some("deny"));
        self.bytes_in = self.bytes_in.saturating_add(bytes(Member::BytesIn));
        self.bytes_out = self.bytes_out.saturating_add(bytes(Member::BytesOut));
        if let Some(took) = record.number(Member::DurationUs) {
            self.took.take(took);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.denied += other.denied;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.took.add(&other.took);
    }
}
