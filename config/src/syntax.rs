//! What is wrong with a text that is not YAML, in words for the one who wrote it.
//!
//! No sentence quotes the text beyond a key: the lines around a mistake could hold anything.

use serde_saphyr::{Error, ExternalMessageSource, budget::BudgetBreach, granit_parser::ErrorKind};

/// Levels of lists and maps, one in the other. The config needs eight; every level costs stack.
pub(crate) const DEPTH_MAX: usize = 24;

/// What is wrong, and the correction.
pub(crate) fn sentence(error: &Error) -> String {
    let sentence = match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => {
            return sentence(error);
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("`{}` stands twice in the same map; keep one", key.escape_debug());
        }
        Error::NonFiniteFloat { .. } => {
            "this is no number one can count with; quote it if it is a text"
        }
        Error::UnsupportedTag { .. } => "tags such as `!name` mean nothing here; remove it",
        Error::MultipleDocuments { .. } => {
            "a second document begins here; a config is one, and others come by `include`"
        }
        Error::NullIntoString { .. } => "a key is empty; write a name before the `:`",
        Error::Unexpected { expected: "string scalar", .. } => {
            "a key is a word, no list and no map"
        }
        Error::UnknownAnchor { .. } => "no anchor above has this name; write `&name` there first",
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "this alias stands within its own anchor; write the value out"
        }
        Error::MergeValueNotMapOrSeqOfMaps { .. } => "`<<` takes a map; write `<<: *name`",
        Error::InvalidScalar { .. } => "the value is not what its tag says; remove the tag",
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => TOO_DEEP,
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "this file holds more values than any config needs, or its aliases do; split it with `include`"
        }
        Error::ExternalMessage { source, .. } => {
            if let ExternalMessageSource::Parser(error) = &**source {
                return of_the_parser(error.kind());
            }
            return plain(error);
        }
        _ => return plain(error),
    };
    sentence.to_owned()
}

const TOO_DEEP: &str = "lists and maps are nested deeper than any config needs (24 levels)";

fn of_the_parser(kind: &ErrorKind) -> String {
    use ErrorKind as E;
    let sentence = match kind {
        E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar => {
            "this quote is never closed; add the closing one"
        }
        E::UnclosedFlowCollection { open } => {
            return format!("`{open}` is never closed; add `{}`", closing(*open));
        }
        E::MismatchedFlowCollectionEnd { open, close } => {
            return format!("`{close}` cannot close `{open}`; write `{}`", closing(*open));
        }
        E::MisplacedFlowCollectionEnd => "this bracket closes nothing; remove it",
        E::TabNotAllowed | E::TabInBlockIndentation | E::TabInIndentation => TAB,
        E::TabInPlainScalar => "a tab follows; YAML is indented by spaces",
        E::RecursionLimitExceeded => TOO_DEEP,
        E::UnexpectedCharacter { character } => {
            return format!(
                "a value cannot begin with `{}`; put it in quotes",
                character.escape_debug()
            );
        }
        E::UnknownQuotedScalarEscape => {
            "no such escape; write `\\\\` for a backslash, or take single quotes"
        }
        E::ExpectedBlockMappingKey => {
            "expected a line `key: value`; is it indented as the lines above?"
        }
        E::ExpectedBlockSequenceEntry => {
            "expected a line that begins with `-`; is it indented as the lines above?"
        }
        E::ExpectedFlowMappingSeparator => "expected `,` or `}`",
        E::ExpectedFlowSequenceSeparator => "expected `,` or `]`",
        E::MappingValueNotAllowed | E::SimpleKeyExpected | E::InvalidSimpleKey => {
            "a `key: value` cannot begin here; put a text that holds `: ` in quotes, or begin a new line"
        }
        E::BlockSequenceEntryNotAllowed | E::BlockEntryInFlowCollection => {
            "a list cannot begin here; begin a new line, or write `[...]`"
        }
        E::UnknownAnchor => "no anchor above has this name; write `&name` there first",
        other => return other.to_string(),
    };
    sentence.to_owned()
}

pub(crate) const TAB: &str = "YAML is indented by spaces, and here is a tab";

fn closing(open: char) -> char {
    if open == '[' { ']' } else { '}' }
}

/// The library's own sentence, without the place, which it would say in another form.
fn plain(error: &Error) -> String {
    let message = error.without_snippet().to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    message.trim_start_matches("error: ").to_owned()
}
