//! What is wrong with a text that is not YAML, in words for the one who wrote it.
//!
//! No sentence quotes the text beyond a key: the lines around a mistake could hold anything.

use granit_parser::ErrorKind;

use crate::compose::Fault;

/// What is wrong, and the correction.
pub(crate) fn sentence(fault: &Fault) -> String {
    let sentence = match fault {
        Fault::Syntax(error) => return of_the_parser(error.kind()),
        Fault::Twice(key) => {
            return format!("`{}` appears twice in the same map; keep one", key.escape_debug());
        }
        Fault::SecondDocument => {
            "a second YAML document begins here; a config is a single document; use `include` for more files"
        }
        Fault::TooDeep => TOO_DEEP,
        Fault::TooManyValues => {
            "this file, or its aliases, has more values than any config needs; split it with `include`"
        }
        Fault::EmptyKey => "a key is empty; write a name before the `:`",
        Fault::KeyOfParts => "a key must be a word, not a list or a map",
        Fault::WithinItself => "this alias is inside its own anchor; write the value out",
        Fault::Merge => "`<<` takes a map; write `<<: *name`",
        Fault::UnknownTag => "tags such as `!name` have no meaning here; remove it",
        Fault::WrongTag => "the value does not match its tag; remove the tag",
        Fault::Uncountable => "this number cannot be used; quote it if it is text",
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
        E::TabInPlainScalar => "a tab follows; YAML is indented with spaces",
        E::RecursionLimitExceeded => TOO_DEEP,
        E::UnexpectedCharacter { character } => {
            return format!(
                "a value cannot begin with `{}`; put it in quotes",
                character.escape_debug()
            );
        }
        E::UnknownQuotedScalarEscape => {
            "no such escape; write `\\\\` for a backslash, or use single quotes"
        }
        E::ExpectedBlockMappingKey => {
            "expected a line `key: value`; is it indented like the lines above?"
        }
        E::ExpectedBlockSequenceEntry => {
            "expected a line that begins with `-`; is it indented like the lines above?"
        }
        E::ExpectedFlowMappingSeparator => "expected `,` or `}`",
        E::ExpectedFlowSequenceSeparator => "expected `,` or `]`",
        E::MappingValueNotAllowed | E::SimpleKeyExpected | E::InvalidSimpleKey => {
            "a `key: value` cannot begin here; quote text that contains `: `, or begin a new line"
        }
        E::BlockSequenceEntryNotAllowed | E::BlockEntryInFlowCollection => {
            "a list cannot begin here; begin a new line, or write `[...]`"
        }
        E::UnknownAnchor => "no anchor above has this name; write `&name` there first",
        other => return other.to_string(),
    };
    sentence.to_owned()
}

pub(crate) const TAB: &str = "this line is indented with a tab; YAML is indented with spaces";

fn closing(open: char) -> char {
    if open == '[' { ']' } else { '}' }
}
