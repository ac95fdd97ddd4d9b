//! Removes fields from JSON and leaves every other byte unchanged.

pub mod answer;

use std::borrow::Cow;

/// The body is not valid JSON, so it could not be redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

/// `json` without the members of these names, at any depth; borrowed if it has none.
///
/// # Errors
/// [`NotJson`] if it cannot be parsed to the end: the unparsed rest could hold the fields.
pub fn redact<'a>(json: &'a [u8], names: &[String]) -> Result<Cow<'a, [u8]>, NotJson> {
    let mut reader =
        Reader { json, at: 0, names, kept: Vec::with_capacity(json.len()), cut: false };
    reader.value(0)?;
    reader.space();
    if reader.at != json.len() {
        return Err(NotJson);
    }
    Ok(if reader.cut { Cow::Owned(reader.kept) } else { Cow::Borrowed(json) })
}

const DEPTH_MAX: usize = 128;

struct Reader<'a> {
    json: &'a [u8],
    at: usize,
    names: &'a [String],
    kept: Vec<u8>,
    cut: bool,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<(), NotJson> {
        if depth > DEPTH_MAX {
            return Err(NotJson);
        }
        self.space();
        match self.json.get(self.at).ok_or(NotJson)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(drop),
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), NotJson> {
        self.byte(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            return self.byte(b'}');
        }
        let mut any_kept = false;
        loop {
            let before = self.kept.len();
            if any_kept {
                self.kept.push(b',');
            }
            self.space();
            let name = self.string()?;
            self.space();
            self.byte(b':')?;
            self.value(depth + 1)?;
            if self.names.contains(&name) {
                self.kept.truncate(before);
                self.cut = true;
            } else {
                any_kept = true;
            }
            self.space();
            match self.peek().ok_or(NotJson)? {
                // Written before the next member, if that is kept.
                b',' => self.at += 1,
                b'}' => return self.byte(b'}'),
                _ => return Err(NotJson),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), NotJson> {
        self.byte(b'[')?;
        self.space();
        if self.peek() == Some(b']') {
            return self.byte(b']');
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek().ok_or(NotJson)? {
                b',' => self.byte(b',')?,
                b']' => return self.byte(b']'),
                _ => return Err(NotJson),
            }
        }
    }

    /// Reads a string and returns it unescaped: to a JSON parser `engine\u0049d` is `engineId`.
    fn string(&mut self) -> Result<String, NotJson> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(NotJson);
        }
        let mut end = start + 1;
        loop {
            match self.json.get(end).ok_or(NotJson)? {
                b'"' => break,
                b'\\' => end += 2,
                0..=0x1f => return Err(NotJson),
                _ => end += 1,
            }
        }
        let text = self.json.get(start..=end).ok_or(NotJson)?;
        self.kept.extend_from_slice(text);
        self.at = end + 1;
        serde_json::from_slice(text).map_err(|_| NotJson)
    }

    fn scalar(&mut self) -> Result<(), NotJson> {
        let rest = &self.json[self.at..];
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
        let length = rest.iter().position(|b| !is_part(b)).unwrap_or(rest.len());
        let text = &rest[..length];
        serde_json::from_slice::<serde_json::Value>(text).map_err(|_| NotJson)?;
        self.kept.extend_from_slice(text);
        self.at += length;
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.kept.push(self.json[self.at]);
            self.at += 1;
        }
    }

    fn byte(&mut self, wanted: u8) -> Result<(), NotJson> {
        if self.peek() != Some(wanted) {
            return Err(NotJson);
        }
        self.kept.push(wanted);
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(json: &str) -> Result<String, NotJson> {
        redact(json.as_bytes(), &["secret".to_owned()])
            .map(|kept| String::from_utf8(kept.into_owned()).unwrap())
    }

    #[test]
    fn a_named_member_is_cut_and_every_other_byte_stays() {
        let check = |json: &str, expected: &str| assert_eq!(cut(json).unwrap(), expected);
        check(r#"{ "a" : 1.50 ,"b":[ ] }"#, r#"{ "a" : 1.50 ,"b":[ ] }"#);
        check(r#"{"secret":1}"#, "{}");
        check(r#"{"secret":{"x":[1,2]},"a":1}"#, r#"{"a":1}"#);
        check(r#"{"a":1,"secret":"x"}"#, r#"{"a":1}"#);
        check(r#"{"a":1,"secret":"x","b":2}"#, r#"{"a":1,"b":2}"#);
        check(r#"[{"x":{"secret":null}},"secret"]"#, r#"[{"x":{}},"secret"]"#);
        check(r#"{"s\u0065cret":1,"a":"s\u0065cret"}"#, r#"{"a":"s\u0065cret"}"#);
        check(r#"{"secret":1,"secret":2,"a":{"secret":3}}"#, r#"{"a":{}}"#);
        check(r#""text""#, r#""text""#);
    }

    #[test]
    fn what_cannot_be_read_is_not_passed_on() {
        for broken in [
            "",
            "{",
            "{\"a\":1",
            "{\"a\":1}x",
            "[1,]",
            "{,}",
            "nul",
            "{\"a\" 1}",
            "{\"a\":01}",
            "\"\n\"",
        ] {
            assert_eq!(cut(broken), Err(NotJson), "{broken}");
        }
        assert_eq!(cut(&"[".repeat(500)), Err(NotJson));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,6}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::vec(("secret|a|b|.{0,3}", inner), 0..4)
                    .prop_map(|m| m.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    fn without(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(members) => members
                .iter()
                .filter(|(name, _)| *name != "secret")
                .map(|(name, value)| (name.clone(), without(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            serde_json::Value::Array(items) => items.iter().map(without).collect::<Vec<_>>().into(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn it_cuts_what_a_json_library_would_cut(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let kept: serde_json::Value = serde_json::from_str(&cut(&text).unwrap()).unwrap();
            prop_assert_eq!(kept, without(&value));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = redact(&bytes, &["a".to_owned()]);
        }
    }
}
