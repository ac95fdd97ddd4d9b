//! The time of a record, as text and back.

use std::time::Duration;

use time::{
    OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem,
    macros::format_description,
};

/// `2026-11-24T12:00:00.000000Z`.
pub fn rfc3339(unix: Duration) -> [u8; 27] {
    let seconds = unix.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |at: usize, width: usize, mut value: u64| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + u8::try_from(value % 10).expect("a digit");
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, seconds / 3600 % 24);
    put(14, 2, seconds / 60 % 60);
    put(17, 2, seconds % 60);
    put(20, 6, unix.subsec_micros().into());
    text
}

/// The time since 1970 that a record's text says.
pub fn unix_of(text: &str) -> Option<Duration> {
    let moment = PrimitiveDateTime::parse(text, WRITTEN).ok()?.assume_utc();
    Duration::try_from(moment - OffsetDateTime::UNIX_EPOCH).ok()
}

/// As `rfc3339` writes it.
const WRITTEN: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar: eras of 400 years
/// that begin in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_rfc_3339() {
        let check = |unix: u64, expected: &str| {
            assert_eq!(rfc3339(Duration::from_secs(unix)), expected.as_bytes());
            assert_eq!(unix_of(expected), Some(Duration::from_secs(unix)));
        };
        check(0, "1970-01-01T00:00:00.000000Z");
        check(951_782_400, "2000-02-29T00:00:00.000000Z");
        check(1_795_521_599, "2026-11-24T11:59:59.000000Z");
        check(4_107_542_399, "2100-02-28T23:59:59.000000Z");
        check(4_107_542_400, "2100-03-01T00:00:00.000000Z");
        assert_eq!(unix_of("1970-01-01T00:00:00.000017Z"), Some(Duration::from_micros(17)));
        for text in [
            "",
            "2026-11-24T12:00:00Z",
            "1969-12-31T23:59:59.000000Z",
            "2026-00-24T12:00:00.000000Z",
            "2026-02-31T00:00:00.000000Z",
            "2026-02-29T00:00:00.000000Z",
            "2026-11-24T24:00:00.000000Z",
            "2026-11-24T12:60:00.000000Z",
            "2026-11-24T12:00:60.000000Z",
            "2026-11-24 12:00:00.000000Z",
            "2026-02-31T99:99:99.000000Z",
        ] {
            assert_eq!(unix_of(text), None, "{text}");
        }
    }
}
