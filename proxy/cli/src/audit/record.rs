//! A parsed line of JSON: the raw members, decoded only when needed.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::member::Member;

/// A record. All of its text may have been chosen by a stranger.
pub(super) struct Record<'a> {
    members: [Option<&'a str>; Member::COUNT],
}

impl<'a> Record<'a> {
    /// `None` if the line is not a record: not JSON, not an object, a duplicate member, or without a time.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(line).ok()?;
        record.raw(Member::Time)?.starts_with('"').then_some(record)
    }

    /// The text of a member, or its JSON if it is not a string.
    pub(super) fn text(&self, member: Member) -> Option<Cow<'a, str>> {
        self.raw(member).map(decoded)
    }

    pub(super) fn number(&self, member: Member) -> Option<u64> {
        self.raw(member)?.parse().ok()
    }

    /// A raw member; `null` counts as none.
    pub(super) fn raw(&self, member: Member) -> Option<&'a str> {
        self.members.get(member as usize).copied().flatten().filter(|raw| *raw != "null")
    }

    /// The kind of the line: `exchange` by default.
    pub(super) fn kind(&self) -> Cow<'a, str> {
        self.text(Member::Kind).unwrap_or(Cow::Borrowed("exchange"))
    }
}

impl<'de> Deserialize<'de> for Record<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members)
    }
}

/// The text of a raw member, or its JSON if it is not a string.
pub(super) fn decoded(raw: &str) -> Cow<'_, str> {
    let Some(inner) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) else {
        return Cow::Borrowed(raw);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    // A lone surrogate is not valid text: it stays raw.
    serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned)
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Record<'de>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a record")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Record<'de>, M::Error> {
        let mut members = [None; Member::COUNT];
        while let Some(member) = map.next_key::<Member>()? {
            let Some(place) = members.get_mut(member as usize) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if place.replace(map.next_value::<&RawValue>()?.get()).is_some() {
                return Err(M::Error::custom("a member is there twice"));
            }
        }
        Ok(Record { members })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_decoded_and_what_is_not_known_is_passed_over() {
        let line = br#"{"time":"t","caller":"a\"\u202eb","status":404,"new":{"x":[1]},"roles":["a","b"],"route":null,"cut":true,"host":"\ud800"}"#;
        let record = Record::read(line).unwrap();
        let text = |member| record.text(member);
        assert_eq!(text(Member::Time).as_deref(), Some("t"));
        assert_eq!(text(Member::Caller).as_deref(), Some("a\"\u{202e}b"));
        assert_eq!(text(Member::Roles).as_deref(), Some(r#"["a","b"]"#));
        assert_eq!(text(Member::Cut).as_deref(), Some("true"));
        assert_eq!(text(Member::Host).as_deref(), Some("\\ud800"));
        assert_eq!((text(Member::Route), text(Member::Plugin)), (None, None));
        assert_eq!(record.number(Member::Status), Some(404));
        assert_eq!(record.kind(), "exchange");
    }

    #[test]
    fn a_member_is_found_under_its_old_name_too() {
        let check = |line: &[u8], expected: Option<u64>| {
            let record = Record::read(line);
            assert_eq!(record.and_then(|record| record.number(Member::PacingDelayUs)), expected);
        };
        check(br#"{"time":"t","pacing_delay_us":7}"#, Some(7));
        check(br#"{"time":"t","turn_us":7}"#, Some(7));
        check(br#"{"time":"t","turn_us":7,"pacing_delay_us":7}"#, None);
    }

    #[test]
    fn what_is_ambiguous_or_has_no_time_is_no_record() {
        let check = |line: &str, expected: bool| {
            assert_eq!(Record::read(line.as_bytes()).is_some(), expected, "{line}");
        };
        check(r#"{"time":"t"}"#, true);
        check(r#"{"time":"t","new":1,"newer":2}"#, true);
        check(r#"{"time":"t","caller":"a","caller":"b"}"#, false);
        check(r#"{"caller":"a"}"#, false);
        check(r#"{"time":17}"#, false);
        check(r#"["time"]"#, false);
        check(r#"{"time":"t"} {"time":"t"}"#, false);
        check(r#"{"time":"t""#, false);
        check("", false);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes: Vec<u8>, text: String, at in 0usize..200) {
            let _ = Record::read(&bytes);
            let mut line = br#"{"time":"2026-01-01T00:00:00.000000Z","caller":"a\u0041","path":"#.to_vec();
            line.extend_from_slice(serde_json::to_string(&text).unwrap().as_bytes());
            line.push(b'}');
            let record = Record::read(&line).unwrap();
            prop_assert_eq!(record.text(Member::Path).unwrap(), text.as_str());
            let at = at % line.len();
            line.splice(at..=at, bytes);
            if let Some(record) = Record::read(&line) {
                let _ = (record.text(Member::Path), record.text(Member::Caller), record.kind());
            }
        }
    }
}
