//! Comma-separated values (RFC 4180), safe to open in a spreadsheet.

use std::io::{self, Write};

use super::visible;

/// Writes a row. Text that a spreadsheet would take for a formula gets a `'` before it; a program removes
/// that again, or uses JSON.
///
/// # Errors
/// If it cannot be written.
pub(in super::super) fn row<W: Write>(
    out: &mut W,
    fields: impl IntoIterator<Item = impl AsRef<str>>,
) -> io::Result<()> {
    let mut comma = "";
    for field in fields {
        let text = visible(field.as_ref());
        let is_formula = text.trim_start().starts_with(['=', '+', '-', '@']);
        let guard = if is_formula { "'" } else { "" };
        if is_formula || text.contains(['"', ',', ';', ' ']) {
            write!(out, "{comma}\"{guard}{}\"", text.replace('"', "\"\""))?;
        } else {
            write!(out, "{comma}{text}")?;
        }
        comma = ",";
    }
    out.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_out_of_its_field_or_is_a_formula() {
        let check = |fields: &[&str], expected: &str| {
            let mut out = Vec::new();
            row(&mut out, fields).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\r\n"));
        };
        check(&["a", "", "b c", "d;e"], r#"a,,"b c","d;e""#);
        check(&["a\"b", ",", "a\r\nb"], r#""a""b",",",a\u000d\u000ab"#);
        check(
            &["=HYPERLINK(\"x\")", "+1", "-1", "@x"],
            r#""'=HYPERLINK(""x"")","'+1","'-1","'@x""#,
        );
        check(&["  =1", "\t=1", "1-1"], "\"'  =1\",\\u0009=1,1-1");
    }
}
