//! Moments as an operator writes them: RFC 3339, a day, or how long ago.

use std::{str::FromStr, time::Duration};

use filters::audit::rfc3339;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use proxy::clock;

/// A moment, since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct When(pub(super) Duration);

impl When {
    /// As records write it, so that the order of texts is the order of times.
    pub(super) fn text(self) -> [u8; 27] {
        rfc3339(self.0)
    }

    fn read(text: &str, now: Duration) -> Option<Self> {
        if let Some(ago) = ago(text) {
            return now.checked_sub(ago).map(Self);
        }
        let day = format!("{text}T00:00:00Z");
        let text = if text.len() == "2026-11-24".len() { &day } else { text };
        let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
        Some(Self(Duration::from_nanos(u64::try_from(nanos).ok()?)))
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, clock::now().unix).ok_or_else(|| {
            "write how long ago (`90s`, `15m`, `2h`, `7d`), a day in UTC (`2026-11-24`), or a time (`2026-11-24T12:00:00Z`)"
                .to_owned()
        })
    }
}

/// `2h`: a whole number and its unit.
fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(Duration::from_secs(count.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_795_521_599);

    #[test]
    fn a_moment_is_a_time_a_day_or_how_long_ago() {
        let check = |text: &str, expected: Option<&str>| {
            let read = When::read(text, NOW)
                .map(|when| String::from_utf8_lossy(&when.text()).into_owned());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("0s", Some("2026-11-24T11:59:59.000000Z"));
        check("90s", Some("2026-11-24T11:58:29.000000Z"));
        check("2h", Some("2026-11-24T09:59:59.000000Z"));
        check("7d", Some("2026-11-17T11:59:59.000000Z"));
        check("2026-11-24", Some("2026-11-24T00:00:00.000000Z"));
        check("2026-11-24T12:00:00Z", Some("2026-11-24T12:00:00.000000Z"));
        check("2026-11-24T12:00:00.1234567+02:00", Some("2026-11-24T10:00:00.123456Z"));
        check("yesterday", None);
        check("2", None);
        check("h", None);
        check("-2h", None);
        check("99999999999999d", None);
        check("1969-12-31", None);
        check("2026-13-01", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn no_text_brings_it_down(text: String) {
            let _ = When::read(&text, NOW);
        }
    }
}
