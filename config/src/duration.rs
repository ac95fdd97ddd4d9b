//! `500ms`, `2s`, `5m`: how long.

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How long, for example `500ms`, `2s`, `5m`, `1h` or `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(time::Duration);

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Ten years: longer is a mistake.
const MS_MAX: u64 = 3650 * 86_400_000;

impl Duration {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }
}

impl std::ops::Deref for Duration {
    type Target = time::Duration;
    fn deref(&self) -> &time::Duration {
        &self.0
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        milliseconds(text).map(|ms| Self(time::Duration::from_millis(ms))).ok_or_else(|| {
            let shown = text.escape_debug();
            let digits =
                !text.is_empty() && text.len() < 9 && text.bytes().all(|b| b.is_ascii_digit());
            let hint = if digits { format!("{text}s") } else { "10s".to_owned() };
            format!("`{shown}` is not a duration; write `{hint}`, `500ms` or `2m`")
        })
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..letters])?;
        total = total.checked_add(count.checked_mul(*unit)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty() && total <= MS_MAX).then_some(total)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS.iter().rev() {
            if rest >= *unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(crate::size::Written::<Self>::default())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|d))+$",
            "examples": ["10s", "500ms", "2m"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        let check = |text: &str, ms: u64, shown: &str| {
            let duration: Duration = text.parse().unwrap();
            assert_eq!((duration.as_millis(), duration.to_string()), (ms.into(), shown.to_owned()));
        };
        check("500ms", 500, "500ms");
        check("90s", 90_000, "1m30s");
        check("1m30s", 90_000, "1m30s");
        check("1d", 86_400_000, "1d");
        check("0s", 0, "0s");
        for wrong in ["", "10", "s", "-1s", "1.5s", "1 s", "1w", "99999999999d", "1s1"] {
            assert!(
                wrong.parse::<Duration>().unwrap_err().contains("is not a duration"),
                "{wrong}"
            );
        }
        assert!("10".parse::<Duration>().unwrap_err().contains("`10s`"));
    }
}
