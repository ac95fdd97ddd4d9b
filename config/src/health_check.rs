//! Asks each address of an upstream how it is.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Duration, size::Written};

/// Sends a GET to each address, over a new connection, with the upstream's TLS, its host as `Host` and server
/// name, and no credential, token or identity header. For an `external` upstream, only addresses that
/// requests may go to are checked.
///
/// An address that fails is not used, unless no other is left: if all are out, all are used. A new address is
/// used immediately. A successful check also ends an ejection early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// The path to request, for example `/healthz`. The path of `url` is put before it.
    pub path: String,
    /// Time between two checks of an address, plus up to a tenth. At least `100ms`.
    #[serde(default = "ten_seconds")]
    pub interval: Duration,
    /// Time for connection and response together. At most `interval`.
    #[serde(default = "two_seconds")]
    pub timeout: Duration,
    /// Consecutive checks that must succeed before an unhealthy address is used again.
    #[serde(default = "two")]
    pub healthy_threshold: u32,
    /// Consecutive checks that must fail before an address is taken out.
    #[serde(default = "three")]
    pub unhealthy_threshold: u32,
    /// Healthy statuses: one, or a range. Redirects are not followed.
    #[serde(default)]
    pub status: Statuses,
}

/// Statuses, from the first to the last, for example `200-299` or `204`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Statuses {
    /// Whether a status is one of them.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self { first: 200, last: 299 }
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let status = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
            let status: u16 = digits.then(|| text.parse().ok())??;
            (200..=599).contains(&status).then_some(status)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "`{}` is not a status from 200 to 599; write `200`, or `200-399`",
                text.escape_debug()
            )),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written::<Self>::default())
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$",
            "minimum": 200,
            "maximum": 599,
            "examples": ["200-299"]
        })
    }
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

fn two() -> u32 {
    2
}

fn three() -> u32 {
    3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_or_from_one_to_another() {
        let read = |text: &str| text.parse::<Statuses>();
        assert_eq!(read("200-399"), Ok(Statuses { first: 200, last: 399 }));
        assert_eq!(read("204").map(|one| one.to_string()), Ok("204".to_owned()));
        assert!(read("204").unwrap().contains(204) && !read("204").unwrap().contains(200));
        for wrong in ["", "2xx", "299-200", "100", "600", "200-", "-200", "+20", "200 - 299"] {
            assert!(read(wrong).unwrap_err().contains("write `200`"), "{wrong}");
        }
    }
}
