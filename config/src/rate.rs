//! `100/m`: how many per how long.

use std::{borrow::Cow, fmt, num::NonZeroU32, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// How many requests in how long, for example `50/s`, `100/m` or `1000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many in one `per`.
    pub count: NonZeroU32,
    /// The time that `count` is for: a second, a minute or an hour.
    pub per: Duration,
}

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

impl Rate {
    /// The time between two requests at exactly this rate.
    pub fn interval(self) -> Duration {
        self.per / self.count.get()
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(count, unit)| {
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
            let count: NonZeroU32 = digits.then(|| count.parse().ok())??;
            Some(Self { count, per: Duration::from_secs(*seconds) })
        });
        match parsed {
            // One nanosecond is the finest interval a limiter can keep.
            Some(rate) if rate.count.get() <= 1_000_000_000 => Ok(rate),
            _ => Err(format!(
                "`{}` is not a rate; write `50/s`, `200/m` or `1000/h`",
                text.escape_debug()
            )),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.per.as_secs();
        let unit = UNITS.iter().find(|(_, s)| *s == seconds).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.count)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[1-9][0-9]*/[smh]$", "examples": ["100/m"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_says_how_many_per_second_minute_or_hour() {
        let rate: Rate = "100/m".parse().unwrap();
        assert_eq!((rate.count.get(), rate.per), (100, Duration::from_secs(60)));
        assert_eq!(rate.interval(), Duration::from_millis(600));
        assert_eq!(rate.to_string(), "100/m");
        for wrong in ["50 per second", "0/s", "/s", "5/", "5/d", "-5/s", "+5/s", "9999999999/s"] {
            let message = wrong.parse::<Rate>().unwrap_err();
            assert!(message.contains("write `50/s`"), "{message}");
        }
    }
}
