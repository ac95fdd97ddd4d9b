//! Where a syntax mistake was made: often above the place where the parser stumbles over it.

use std::sync::Arc;

use granit_parser::ErrorKind;

use crate::Place;

/// A mistake, and the correction.
pub(crate) struct Blame {
    pub(crate) place: Place,
    pub(crate) sentence: String,
}

/// The likely cause of what the parser found at a place.
pub(crate) fn blame(text: &str, at: &Place, kind: &ErrorKind) -> Option<Blame> {
    let scanned = Scanned::of(text);
    let before = |place: &(u32, u32)| place.0 < at.line;
    let found = |(line, column): (u32, u32), sentence: String| {
        Some(Blame { place: Place { file: Arc::clone(&at.file), line, column }, sentence })
    };
    if let Some(quote) = scanned.quote.filter(before) {
        return found(
            quote,
            "this quote is not closed on its line; add the closing one".to_owned(),
        );
    }
    if let Some((open, place)) = scanned.open.first().copied().filter(|(_, place)| before(place)) {
        let close = if open == '[' { ']' } else { '}' };
        return found(place, format!("`{open}` is never closed; add `{close}`"));
    }
    let indentation = Indentation::of(text, at)?;
    let place = (at.line, indentation.own + 1);
    match kind {
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry
            if !indentation.levels.contains(&indentation.own) =>
        {
            found(place, indentation.between())
        }
        ErrorKind::MappingValueNotAllowed
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey
            if indentation.is_below_a_value() =>
        {
            let Indentation { above, above_key, own, .. } = indentation;
            found(
                place,
                format!(
                    "this line is indented by {own} spaces, as if it belonged to `{above_key}`, which already has a value; indent it by {above}"
                ),
            )
        }
        _ => None,
    }
}

/// What is left open in a text, as far as one can tell without understanding it.
#[derive(Default)]
struct Scanned {
    /// The first quote that is not closed on its line.
    quote: Option<(u32, u32)>,
    /// Brackets that nothing closes, outermost first.
    open: Vec<(char, (u32, u32))>,
}

impl Scanned {
    fn of(text: &str) -> Self {
        let mut scanned = Self::default();
        for (line, text) in text.lines().enumerate() {
            scanned.line(u32::try_from(line + 1).unwrap_or(u32::MAX), text);
        }
        scanned
    }

    fn line(&mut self, line: u32, text: &str) {
        let mut quoted: Option<(char, u32)> = None;
        let (mut before, mut begins) = (' ', true);
        let mut chars = text.chars().enumerate().peekable();
        while let Some((index, c)) = chars.next() {
            let place = (line, u32::try_from(index + 1).unwrap_or(u32::MAX));
            if let Some((quote, _)) = quoted {
                match c {
                    '\\' if quote == '"' => _ = chars.next(),
                    '\'' if quote == '\'' && chars.peek().is_some_and(|(_, c)| *c == '\'') => {
                        _ = chars.next();
                    }
                    c if c == quote => quoted = None,
                    _ => {}
                }
                (before, begins) = (c, false);
                continue;
            }
            match c {
                '#' if before.is_whitespace() => return,
                '"' | '\'' if begins => quoted = Some((c, place.1)),
                '{' | '[' if begins || !self.open.is_empty() && before != '$' => {
                    self.open.push((c, place));
                }
                '}' | ']' if !self.open.is_empty() => _ = self.open.pop(),
                _ => {}
            }
            // A value begins after these, and whatever is no space ends that.
            begins = matches!(c, '{' | '[' | ',')
                || c.is_whitespace() && (begins || matches!(before, ':' | '-'));
            before = c;
        }
        if let Some((_, column)) = quoted {
            self.quote = self.quote.or(Some((line, column)));
        }
    }
}

/// How a line is indented, among those above it.
struct Indentation {
    own: u32,
    /// That of the last line above with something on it.
    above: u32,
    above_key: String,
    above_has_value: bool,
    /// Those at which a line could begin here.
    levels: Vec<u32>,
}

impl Indentation {
    fn of(text: &str, at: &Place) -> Option<Self> {
        let line = at.line as usize;
        let is_blank = |text: &&str| text.trim().is_empty() || text.trim_start().starts_with('#');
        let own = indent(text.lines().nth(line.checked_sub(1)?)?);
        let mut above: Vec<&str> =
            text.lines().take(line - 1).filter(|text| !is_blank(text)).collect();
        let last = above.pop()?;
        let (key, value) = last.trim().trim_start_matches("- ").split_once(':')?;
        let is_key = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let mut levels = vec![indent(last)];
        // Keys of an entry of a list stand behind its dash.
        if last.trim_start().starts_with("- ") {
            levels.push(indent(last) + 2);
        }
        for text in above.into_iter().rev() {
            let least = *levels.iter().min()?;
            if indent(text) < least {
                levels.push(indent(text));
            }
            if text.trim_start().starts_with("- ") && indent(text) + 2 == least {
                levels.push(indent(text));
            }
        }
        levels.sort_unstable();
        levels.dedup();
        Some(Self {
            own,
            above: if last.trim_start().starts_with("- ") {
                indent(last) + 2
            } else {
                indent(last)
            },
            above_key: if is_key { key.to_owned() } else { "the line above".to_owned() },
            above_has_value: is_key && !value.trim().is_empty(),
            levels,
        })
    }

    fn is_below_a_value(&self) -> bool {
        self.own > self.above && self.above_has_value
    }

    fn between(&self) -> String {
        let levels: Vec<String> = self.levels.iter().map(ToString::to_string).collect();
        let levels = match &*levels {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            all => all.concat(),
        };
        format!(
            "this line is indented by {}, and no line above is at the level that it would belong to; indent it by {levels} spaces",
            self.own
        )
    }
}

fn indent(line: &str) -> u32 {
    u32::try_from(line.len() - line.trim_start_matches(' ').len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    fn told(text: &str) -> String {
        crate::parse("t", text).err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_quote_or_bracket_is_blamed_where_it_was_opened() {
        let check = |text: &str, place: &str, why: &str| {
            let told = told(text);
            assert!(told.starts_with(place) && told.contains(why), "{text}\n{told}");
        };
        let listeners = "version: stagedoor/v1\nlisteners:\n";
        check(
            &format!(
                "{listeners}  a: {{kind: reverse, address: \"127.0.0.1:1}}\n  b: {{kind: admin, address: \"127.0.0.1:2\"}}\n"
            ),
            "t:3:31: ",
            "this quote is not closed",
        );
        check(
            &format!(
                "{listeners}  a: {{kind: reverse, address: 'x}}\nupstreams: {{api: {{url: 'y'}}}}\n"
            ),
            "t:3:31: ",
            "this quote is not closed",
        );
        check(
            &format!("{listeners}  a: {{kind: reverse, address: 127.0.0.1:1\nupstreams: {{}}\n"),
            "t:3:6: ",
            "`{` is never closed; add `}`",
        );
        check("version: stagedoor/v1\nroutes: [a,\nupstreams: {}\n", "t:2:9: ", "add `]`");
    }

    #[test]
    fn a_line_that_is_indented_wrongly_is_blamed_itself() {
        let check = |lines: &[&str], place: &str, why: &str| {
            let text = format!("version: stagedoor/v1\n{}\n", lines.join("\n"));
            let told = told(&text);
            assert!(told.starts_with(place) && told.contains(why), "{text}\n{told}");
        };
        check(
            &["listeners:", "  edge:", "    kind: reverse", "      address: 127.0.0.1:1"],
            "t:5:7: ",
            "as if it belonged to `kind`, which already has a value; indent it by 4",
        );
        check(
            &["listeners:", "  edge:", "    kind: reverse", "   address: 127.0.0.1:1"],
            "t:5:4: ",
            "indented by 3, and no line above is at the level that it would belong to; indent it by 0, 2 or 4 spaces",
        );
        check(
            &["routes:", "  - name: q", "    class: read", "   path: /x"],
            "t:5:4: ",
            "indent it by 0, 2 or 4 spaces",
        );
    }

    #[test]
    fn a_variable_may_stand_between_braces() {
        let variable = |name: &str| (name == "FOLDER").then(|| "/audit".to_owned());
        let load = |text: &str| {
            let text = format!(
                "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n{text}\n"
            );
            crate::load::parse_with("t", &text, &variable).map(|loaded| loaded.config.audit)
        };
        let audit = load("audit: {directory: ${FOLDER}, segments_max: ${KEPT:-3}}").unwrap();
        assert_eq!((audit.directory.unwrap().to_str(), audit.segments_max), (Some("/audit"), 3));
        let audit = load("audit: {directory: \"${FOLDER}/a{b}\"}").unwrap();
        assert_eq!(audit.directory.unwrap().to_str(), Some("/audit/a{b}"));
        let audit = load("audit: {directory: '${X:-/a,b[1]}'}").unwrap();
        assert_eq!(audit.directory.unwrap().to_str(), Some("/a,b[1]"));
        let told = load("audit: {directory: ${NONE}}").unwrap_err().to_string();
        assert!(told.starts_with("t:3:20: `${NONE}` is not set"), "{told}");
    }
}
