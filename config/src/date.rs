//! `2026-12-01` or `2026-12-01T09:00:00Z`: until when something holds.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use time::{
    Date as Day, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339,
    macros::format_description,
};

/// A moment, for example `2026-12-01T09:00:00Z`; a day alone is its beginning in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(OffsetDateTime);

impl Date {
    /// Seconds since 1970; 0 if it was before.
    pub fn unix_seconds(self) -> u64 {
        u64::try_from(self.0.unix_timestamp()).unwrap_or(0)
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = format_description!("[year]-[month]-[day]");
        let moment = match Day::parse(text, day) {
            Ok(day) => Ok(day.midnight().assume_utc()),
            Err(_) => OffsetDateTime::parse(text, &Rfc3339),
        };
        moment.map(|moment| Self(moment.to_offset(UtcOffset::UTC))).map_err(|_| {
            format!(
                "`{}` is not a date; write `2026-12-01` or `2026-12-01T09:00:00Z`",
                text.escape_debug()
            )
        })
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Date {
    fn schema_name() -> Cow<'static, str> {
        "Date".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}(T.+)?$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_utc() {
        let seconds = |text: &str| text.parse::<Date>().map(Date::unix_seconds);
        assert_eq!(seconds("2026-12-01"), Ok(1_796_083_200));
        assert_eq!(seconds("2026-12-01T00:00:00Z"), Ok(1_796_083_200));
        assert_eq!(seconds("2026-12-01T02:00:00+02:00"), Ok(1_796_083_200));
        for wrong in ["", "tomorrow", "2026-13-01", "2026-02-30", "01.12.2026", "2026-12-01T09:00"]
        {
            assert!(seconds(wrong).unwrap_err().contains("is not a date"), "{wrong}");
        }
    }
}
