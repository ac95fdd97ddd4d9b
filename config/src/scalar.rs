//! What a word of YAML stands for: the core schema (YAML 1.2.2, 10.3.2).

use crate::tree::Value;

/// The value of a word without quotes; `None` for numbers that one cannot count with.
pub(crate) fn resolve(word: &str) -> Option<Value> {
    let known = match word {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => return number(word),
    };
    Some(known)
}

/// What is written as one, without quotes or in them.
pub(crate) fn text(text: impl Into<String>) -> Value {
    Value::Text { text: text.into(), loose: false }
}

fn number(word: &str) -> Option<Value> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    if !matches!(unsigned.as_bytes().first(), Some(b'0'..=b'9' | b'.')) {
        return Some(text(word));
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(word, ".nan" | ".NaN" | ".NAN") {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        let Some(digits) = word.strip_prefix(prefix) else { continue };
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Some(text(word));
        }
        return i128::from_str_radix(digits, radix).ok().map(Value::Integer);
    }
    if !is_decimal(unsigned) {
        return Some(text(word));
    }
    if let Ok(integer) = word.parse() {
        return Some(Value::Integer(integer));
    }
    word.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float)
}

/// `[0-9]+`, `[0-9]+.[0-9]*` or `.[0-9]+`, each with an exponent or without.
fn is_decimal(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    !(whole.is_empty() && part.is_empty()) && digits(whole) && digits(part) && exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_what_the_core_schema_says() {
        let check = |words: &[&str], expected: Option<Value>| {
            for word in words {
                assert_eq!(resolve(word), expected, "{word}");
            }
        };
        check(&["", "~", "null", "Null", "NULL"], Some(Value::Null));
        check(&["true", "True", "TRUE"], Some(Value::Bool(true)));
        check(&["false", "False", "FALSE"], Some(Value::Bool(false)));
        check(&["12", "+12", "012", "0o14", "0xc", "0xC"], Some(Value::Integer(12)));
        check(&["-12"], Some(Value::Integer(-12)));
        check(&["0.5", "+.5", "5e-1", "0.05E+1", "05.e-1"], Some(Value::Float(0.5)));
        check(
            &["340282366920938463463374607431768211456"],
            Some(Value::Float(f64::powi(2.0, 128))),
        );
        check(&[".inf", "-.Inf", "+.INF", ".nan", ".NaN", "1e999"], None);
        check(&["0x100000000000000000000000000000000"], None);
        for word in [
            "yes", "no", "on", "off", "y", "tRUE", "nULL", "-", "+", ".", "..", "-.", "1.2.3",
            "1_000", "0b1", "0x", "0xg", "0o8", "-0x1", "0X1", "1e", "1e+", "e1", ".e1", "+-1",
            "10s", "50/s", "1:30", "inf", "nan", "-.nan", "٣", "１",
        ] {
            assert_eq!(resolve(word), Some(text(word)), "{word}");
        }
    }
}
