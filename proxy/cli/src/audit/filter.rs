//! Which records are meant: values of one kind are alternatives, and all kinds must fit.

use std::str::FromStr;

use clap::{Args, builder::PossibleValuesParser};
use memchr::memmem::Finder;

use super::{member::Member, record::Record, when::When};

/// Which records. Each may be given more than once: one of the values of a flag is enough, and all
/// flags must fit. A value may end with `*`.
#[derive(Args, Default)]
#[command(next_help_heading = "Which records (a value may end with `*`; flags may be repeated)")]
pub(super) struct Filters {
    /// Who called.
    #[arg(long)]
    caller: Vec<Pattern>,
    /// The workspace that it was for.
    #[arg(long)]
    workspace: Vec<Pattern>,
    /// The plugin.
    #[arg(long)]
    plugin: Vec<Pattern>,
    /// The route's name.
    #[arg(long)]
    route: Vec<Pattern>,
    /// The upstream's name.
    #[arg(long)]
    upstream: Vec<Pattern>,
    /// What was decided.
    #[arg(long, value_parser = PossibleValuesParser::new(["allow", "deny"]))]
    decision: Vec<String>,
    /// The code of a denial, or `ok`.
    #[arg(long)]
    code: Vec<Pattern>,
    /// The status that the client saw: `200`, or `4xx`.
    #[arg(long)]
    status: Vec<Status>,
    /// What kind of request it is.
    #[arg(long, value_parser = PossibleValuesParser::new(["read", "action", "admin"]))]
    class: Vec<String>,
    /// The method.
    #[arg(long)]
    method: Vec<Pattern>,
    /// The host, as received.
    #[arg(long)]
    host: Vec<Pattern>,
    /// The path.
    #[arg(long)]
    path: Vec<Pattern>,
    /// The destination of a call through a forward listener, as `host:port`.
    #[arg(long)]
    target: Vec<Pattern>,
    /// The listener.
    #[arg(long)]
    listener: Vec<Pattern>,
    /// The client's address.
    #[arg(long)]
    client: Vec<Pattern>,
    /// The request id.
    #[arg(long)]
    id: Vec<Pattern>,
    /// The trace id.
    #[arg(long)]
    trace: Vec<Pattern>,
    /// The digest of the config that was in force.
    #[arg(long)]
    config_digest: Vec<Pattern>,
    /// Begun at or after this time: `2h` ago, `2026-11-24`, or `2026-11-24T12:00:00Z`.
    #[arg(long, value_name = "WHEN")]
    pub(super) since: Option<When>,
    /// Begun before this time.
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
}

/// Which kinds of lines.
#[derive(Args)]
pub(super) struct Kinds {
    /// `exchange`, `intent`, `gap`, `recovery`, `segment`, or `all`.
    #[arg(long, default_value = EXCHANGE)]
    kind: Vec<Pattern>,
}

pub(super) const EXCHANGE: &str = "exchange";

/// What a value must be, or begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

/// A status, or a class of them.
#[derive(Clone, Debug)]
struct Status(Pattern);

/// Filters made ready.
pub(super) struct Filter {
    wanted: Vec<Wanted>,
    kinds: Option<Vec<Pattern>>,
    since: Option<[u8; 27]>,
    until: Option<[u8; 27]>,
}

/// What one member must be.
struct Wanted {
    member: Member,
    patterns: Vec<Pattern>,
    /// Byte strings of which every matching line contains one; empty if there is no such set.
    needles: Vec<Finder<'static>>,
}

impl Filters {
    /// Without `kinds`, all of them.
    pub(super) fn ready(self, kinds: Option<Kinds>) -> Filter {
        let exact = |values: Vec<String>| values.into_iter().map(Pattern::Exact).collect();
        let method = self.method.into_iter().map(Pattern::upper).collect();
        let all = [
            (Member::Id, self.id),
            (Member::TraceId, self.trace),
            (Member::Caller, self.caller),
            (Member::Path, self.path),
            (Member::Target, self.target),
            (Member::Host, self.host),
            (Member::Client, self.client),
            (Member::Workspace, self.workspace),
            (Member::Plugin, self.plugin),
            (Member::Route, self.route),
            (Member::Code, self.code),
            (Member::Status, self.status.into_iter().map(|status| status.0).collect()),
            (Member::Decision, exact(self.decision)),
            (Member::Upstream, self.upstream),
            (Member::Class, exact(self.class)),
            (Member::Method, method),
            (Member::Listener, self.listener),
            (Member::Config, self.config_digest),
        ];
        let given = all.into_iter().filter(|(_, patterns)| !patterns.is_empty());
        let every = Pattern::Exact("all".to_owned());
        Filter {
            wanted: given.map(|(member, patterns)| Wanted::new(member, patterns)).collect(),
            kinds: kinds.map(|kinds| kinds.kind).filter(|kinds| !kinds.contains(&every)),
            since: self.since.map(When::text),
            until: self.until.map(When::text),
        }
    }
}

impl Filter {
    /// Whether a line may match and must be parsed. Only searches its bytes.
    pub(super) fn may_fit(&self, line: &[u8]) -> bool {
        early(line).is_none_or(|time| self.is_in_time(time))
            && self.wanted.iter().all(|wanted| wanted.may_fit(line))
    }

    pub(super) fn fits(&self, record: &Record<'_>) -> bool {
        self.fits_kind(record)
            && self.fits_time(record)
            && self.wanted.iter().all(|w| w.fits(record))
    }

    /// The same for an intent, whose outcome is not known yet.
    pub(super) fn fits_intent(&self, intent: &Record<'_>) -> bool {
        let outcome = [Member::Decision, Member::Code, Member::Status];
        let mut known = self.wanted.iter().filter(|wanted| !outcome.contains(&wanted.member));
        self.fits_time(intent) && known.all(|wanted| wanted.fits(intent))
    }

    pub(super) fn fits_time(&self, record: &Record<'_>) -> bool {
        record.text(Member::Time).is_some_and(|time| self.is_in_time(time.as_bytes()))
    }

    fn fits_kind(&self, record: &Record<'_>) -> bool {
        let kind = record.kind();
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|pattern| pattern.fits(&kind)))
    }

    fn is_in_time(&self, time: &[u8]) -> bool {
        self.since.is_none_or(|since| time >= &since[..])
            && self.until.is_none_or(|until| time < &until[..])
    }
}

/// The time of a line that begins with it, as ours do.
fn early(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"{\"time\":\"")?;
    (rest.get(27) == Some(&b'"')).then(|| &rest[..27])
}

impl Wanted {
    fn new(member: Member, patterns: Vec<Pattern>) -> Self {
        let is_text = member != Member::Status;
        let needles: Option<Vec<_>> =
            patterns.iter().map(|pattern| pattern.needle(is_text)).collect();
        Self { member, patterns, needles: needles.unwrap_or_default() }
    }

    fn may_fit(&self, line: &[u8]) -> bool {
        self.needles.is_empty() || self.needles.iter().any(|needle| needle.find(line).is_some())
    }

    fn fits(&self, record: &Record<'_>) -> bool {
        let text = record.text(self.member);
        text.is_some_and(|text| self.patterns.iter().any(|pattern| pattern.fits(&text)))
    }
}

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(value) => text == value,
            Self::Prefix(value) => text.starts_with(&**value),
        }
    }

    /// Bytes that every line with such a value contains. `None` for values that JSON can spell in more than
    /// one way.
    fn needle(&self, is_text: bool) -> Option<Finder<'static>> {
        let (Self::Exact(value) | Self::Prefix(value)) = self;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b" -_.:@*,;()[]=~$#!".contains(&b);
        if value.is_empty() || !value.bytes().all(plain) {
            return None;
        }
        let quote = if is_text { "\"" } else { "" };
        let end = if matches!(self, Self::Exact(_)) { quote } else { "" };
        Some(Finder::new(&format!("{quote}{value}{end}")).into_owned())
    }

    fn upper(self) -> Self {
        match self {
            Self::Exact(value) => Self::Exact(value.to_ascii_uppercase()),
            Self::Prefix(value) => Self::Prefix(value.to_ascii_uppercase()),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (value, ends) = text.strip_suffix('*').map_or((text, false), |value| (value, true));
        if text.is_empty() {
            return Err("it is empty; write `*` for any value".to_owned());
        }
        if value.contains('*') {
            let head = value.split('*').next().filter(|head| !head.is_empty());
            return Err(format!("`*` may only be at the end; write `{}*`", head.unwrap_or("abc")));
        }
        Ok(if ends { Self::Prefix(value.to_owned()) } else { Self::Exact(value.to_owned()) })
    }
}

impl FromStr for Status {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "write a status such as `404`, a class such as `4xx`, or 0 for no status";
        match text.as_bytes() {
            [b'1'..=b'5', b'x', b'x'] => Ok(Self(Pattern::Prefix(text[..1].to_owned()))),
            b"0" => Ok(Self(Pattern::Exact(text.to_owned()))),
            [b'1'..=b'9', rest @ ..] if rest.len() == 2 && rest.iter().all(u8::is_ascii_digit) => {
                Ok(Self(Pattern::Exact(text.to_owned())))
            }
            _ => Err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    #[derive(Parser)]
    struct Case {
        #[command(flatten)]
        filters: Filters,
        #[command(flatten)]
        kinds: Kinds,
    }

    fn filter(flags: &str) -> Result<Filter, String> {
        let flags = std::iter::once("x").chain(flags.split_whitespace());
        let asked = Case::try_parse_from(flags).map_err(|error| error.to_string())?;
        Ok(asked.filters.ready(Some(asked.kinds)))
    }

    const LINE: &str = r#"{"time":"2026-11-24T12:00:00.500000Z","id":"r-1","trace_id":"0af7","listener":"edge","client":"10.0.0.1","method":"GET","host":"h.example","path":"/v1/a","route":"r","class":"read","plugin":"dxcp","upstream":"up","workspace":"payments","caller":"ada","decision":"deny","code":"rate_limited","status":429}"#;

    #[test]
    fn flags_are_all_needed_and_values_of_one_are_alternatives() {
        let check = |flags: &str, expected: bool| {
            let filter = filter(flags).unwrap();
            let record = Record::read(LINE.as_bytes()).unwrap();
            assert_eq!(filter.fits(&record), expected, "{flags}");
            assert!(!expected || filter.may_fit(LINE.as_bytes()), "{flags}");
        };
        check("", true);
        check("--caller ada --workspace payments --plugin dxcp --route r --upstream up", true);
        check("--caller ada --workspace other", false);
        check("--caller eve --caller ada", true);
        check("--caller ad", false);
        check("--caller ad*", true);
        check("--caller *", true);
        check("--caller payments", false); // the bytes are there, in another member
        check("--target *", false);
        check("--status 429", true);
        check("--status 4xx", true);
        check("--status 404 --status 5xx", false);
        check("--method get", true);
        check("--decision deny --class read --listener edge --client 10.0.0.*", true);
        check("--decision allow", false);
        check("--id r-1 --trace 0af7 --host h.* --path /v1/*", true);
        check("--kind intent", false);
        check("--kind intent --kind exchange", true);
        check("--kind all", true);
        check("--since 2026-11-24T12:00:00.500000Z", true);
        check("--since 2026-11-24T12:00:00.500001Z", false);
        check("--until 2026-11-24T12:00:00.500000Z", false);
        check("--until 2026-11-24T12:00:00.500001Z", true);
        check("--since 2026-11-24T13:30:00+02:00", true);
        check("--since 2026-11-24 --until 2026-11-25", true);
    }

    #[test]
    fn a_look_at_the_bytes_leaves_out_most_of_what_does_not_fit() {
        let check = |flags: &str, line: &str, expected: bool| {
            assert_eq!(filter(flags).unwrap().may_fit(line.as_bytes()), expected, "{flags} {line}");
        };
        check("--caller ad", LINE, false);
        check("--caller eve*", LINE, false);
        check("--status 404", LINE, false);
        check("--since 2026-11-25", LINE, false);
        // Values with more than one spelling are left to the parser.
        check("--path /v1", r#"{ "path" : "\/v1" }"#, true);
        check("--path /v1 --caller eve", LINE, false);
        check("--caller ada", r#"{ "caller" : "ada" }"#, true);
    }

    #[test]
    fn an_intent_does_not_match_by_its_outcome() {
        let line = r#"{"kind":"intent","time":"2026-11-24T12:00:00.500000Z","caller":"ada"}"#;
        let intent = Record::read(line.as_bytes()).unwrap();
        assert!(filter("--caller ada --code ok --status 200").unwrap().fits_intent(&intent));
        assert!(!filter("--caller eve").unwrap().fits_intent(&intent));
        assert!(!filter("--since 2026-11-25").unwrap().fits_intent(&intent));
    }

    #[test]
    fn misuse_is_reported_with_what_to_write() {
        let check = |flags: &str, expected: &str| {
            let told = filter(flags).err().unwrap();
            assert!(told.contains(expected), "{flags}: {told}");
        };
        check("--status 40", "a class such as `4xx`");
        check("--caller *a*", "write `abc*`");
        check("--caller a*b", "write `a*`");
        check("--caller=", "write `*` for any value");
        check("--decision denied", "[possible values: allow, deny]");
        check("--since yesterday", "`2h`");
    }

    proptest! {
        /// Whatever the value, and however it is escaped, the byte search misses nothing.
        #[test]
        fn what_fits_is_never_left_out_by_its_bytes(value in "[ -~é]{1,12}", cut in 0usize..12) {
            let line = serde_json::json!({"time": "2026", "caller": value}).to_string();
            let go = line.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
            let slashed = line.replace('/', "\\/");
            let mut cut = cut.min(value.len());
            while !value.is_char_boundary(cut) { cut -= 1; }
            for pattern in [Pattern::Exact(value.clone()), Pattern::Prefix(value[..cut].to_owned())] {
                let wanted = Wanted::new(Member::Caller, vec![pattern]);
                for line in [&line, &go, &slashed] {
                    prop_assert!(wanted.fits(&Record::read(line.as_bytes()).unwrap()), "{}", line);
                    prop_assert!(wanted.may_fit(line.as_bytes()), "{}", line);
                }
            }
        }
    }
}
