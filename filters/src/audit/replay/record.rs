//! A parsed record. It borrows from its line where it can.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// A text of a record; borrowed unless it was escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

/// The members of an object, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Members<'a, T>(pub Vec<(Text<'a>, T)>);

/// The record of an exchange or a call, as far as it is read back. All of it is text that a client may have
/// chosen; it proves nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/audit.md is the manual of its members")]
pub struct Record<'a> {
    #[serde(borrow)]
    pub kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub time: Text<'a>,
    pub facts: u32,
    #[serde(borrow)]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub listener: Text<'a>,
    #[serde(borrow)]
    pub client: Text<'a>,
    pub tls: bool,
    #[serde(borrow)]
    pub method: Text<'a>,
    #[serde(borrow)]
    pub host: Option<Text<'a>>,
    pub host_in_part: bool,
    #[serde(borrow)]
    pub path: Option<Text<'a>>,
    pub path_in_part: bool,
    pub upgrade: bool,
    #[serde(borrow)]
    pub asked_workspace: Option<Text<'a>>,
    pub workspace_ambiguous: bool,
    #[serde(borrow)]
    pub cookie_workspace: Option<Text<'a>>,
    pub cookie_ambiguous: bool,
    #[serde(borrow)]
    pub query: Option<Members<'a, Vec<Text<'a>>>>,
    pub query_malformed: bool,
    #[serde(borrow)]
    pub request_line: Option<Text<'a>>,
    #[serde(borrow)]
    pub target: Option<Text<'a>>,
    #[serde(borrow)]
    pub plugin: Option<Text<'a>>,
    #[serde(borrow)]
    pub egress_rule: Option<Text<'a>>,
    #[serde(borrow)]
    pub rule: Option<Text<'a>>,
    #[serde(borrow)]
    pub would_deny: Option<Text<'a>>,
    #[serde(borrow)]
    pub resolved: Vec<Text<'a>>,
    #[serde(borrow)]
    pub resolved_own: Vec<Text<'a>>,
    #[serde(borrow)]
    pub parent: Option<Text<'a>>,
    #[serde(borrow)]
    pub hello: Option<Text<'a>>,
    #[serde(borrow)]
    pub server_name: Option<Text<'a>>,
    /// `encrypted_hello` in records of the version before.
    #[serde(alias = "encrypted_hello")]
    pub encrypted_client_hello: bool,
    #[serde(borrow)]
    pub fallback_for: Option<Text<'a>>,
    #[serde(borrow)]
    pub step: Option<Text<'a>>,
    #[serde(borrow)]
    pub passed: Vec<Text<'a>>,
    #[serde(borrow)]
    pub route: Option<Text<'a>>,
    #[serde(borrow)]
    pub operation: Option<Text<'a>>,
    #[serde(borrow)]
    pub graphql: Option<RecordedOperation<'a>>,
    #[serde(borrow)]
    pub class: Option<Text<'a>>,
    #[serde(borrow)]
    pub upstream: Option<Text<'a>>,
    #[serde(borrow)]
    pub credential: Option<Text<'a>>,
    #[serde(borrow)]
    pub workspace: Option<Text<'a>>,
    #[serde(borrow)]
    pub caller: Option<Text<'a>>,
    #[serde(borrow)]
    pub on_behalf_of: Option<Text<'a>>,
    #[serde(borrow)]
    pub issuer: Option<Text<'a>>,
    #[serde(borrow)]
    pub proof: Option<Text<'a>>,
    #[serde(borrow)]
    pub roles: Vec<Text<'a>>,
    #[serde(borrow)]
    pub groups: Vec<Text<'a>>,
    #[serde(borrow)]
    pub workspaces: Vec<Text<'a>>,
    #[serde(borrow)]
    pub default_workspace: Option<Text<'a>>,
    #[serde(borrow)]
    pub left_out: Vec<Text<'a>>,
    #[serde(borrow)]
    pub caller_plugin: Option<Text<'a>>,
    #[serde(borrow)]
    pub certificate: Option<RecordedCertificate<'a>>,
    #[serde(borrow)]
    pub decision: Text<'a>,
    #[serde(borrow)]
    pub code: Text<'a>,
    pub status: u16,
    #[serde(borrow)]
    pub upstream_address: Option<Text<'a>>,
    pub attempts: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_us: Option<u64>,
    pub upstream_us: Option<u64>,
    /// `turn_us` in records of the version before.
    #[serde(alias = "turn_us")]
    pub pacing_delay_us: u64,
    #[serde(borrow)]
    pub shared: Option<Text<'a>>,
    pub upgraded: bool,
    pub intended: bool,
    pub cut: bool,
    #[serde(borrow)]
    pub control_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub config: Text<'a>,
}

/// A GraphQL operation of a record.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "as in `graphql::Operation`")]
pub struct RecordedOperation<'a> {
    #[serde(borrow)]
    pub kind: Text<'a>,
    #[serde(borrow)]
    pub fields: Vec<Field<'a>>,
}

/// One root field, with the arguments that a rule read; those that named nothing are `None`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "as in `graphql::Field`")]
pub struct Field<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub arguments: Members<'a, Option<Text<'a>>>,
}

/// The names of a client certificate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "as in `identity::ClientCertificate`")]
pub struct RecordedCertificate<'a> {
    #[serde(borrow)]
    pub common_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub uris: Vec<Text<'a>>,
    #[serde(borrow)]
    pub dns: Vec<Text<'a>>,
    #[serde(borrow)]
    pub emails: Vec<Text<'a>>,
}

impl<'a> Record<'a> {
    /// Parses a line; `None` if it is not a JSON object of this shape.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        // UTF-8 is checked once, not for each text.
        serde_json::from_str(std::str::from_utf8(line).ok()?).ok()
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Serde borrows a `Cow` only where it is a member itself, and not within an `Option` or a `Vec`.
impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Read<'a> {
            type Value = Text<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Read(PhantomData))
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de> + 'a> Deserialize<'de> for Members<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<'a, T>(PhantomData<&'a T>);
        impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for Read<'a, T> {
            type Value = Members<'a, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Read(PhantomData))
    }
}
