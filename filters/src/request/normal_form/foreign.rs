//! Non-ASCII bytes that some servers read as the `.` and `/` of a path.
//!
//! A lenient decoder reads an overlong form (`%C0%AF`) as a slash. And a server that normalizes names
//! (NFKC), or converts them to an older character set, as Windows does, turns a fullwidth slash into a
//! slash.

use super::escaped;

/// What is wrong with a path in normal form that has escaped non-ASCII bytes.
pub(super) fn fault(path: &str) -> Option<&'static str> {
    let Some(text) = unescaped(path) else {
        return Some("escaped bytes that are not UTF-8");
    };
    if text.chars().any(is_like_a_slash) {
        return Some(
            "a character that looks like a slash or another character with a meaning in paths",
        );
    }
    let is_dots = |part: &str| {
        let dots = part.chars().try_fold(0, |dots, c| Some(dots + dots_of(c)?));
        matches!(dots, Some(1 | 2)) && !part.is_ascii()
    };
    if text.split('/').any(is_dots) {
        return Some("characters that look like a dot segment");
    }
    None
}

fn unescaped(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, escaped(after)) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// What becomes a `/`, `\\`, `%` or `;` in NFKC, or in a character set of Windows.
fn is_like_a_slash(c: char) -> bool {
    matches!(
        c,
        '\u{2100}'
            | '\u{2101}'
            | '\u{2105}'
            | '\u{2106}'
            | '\u{2044}'
            | '\u{2215}'
            | '\u{29f8}'
            | '\u{ff0f}'
            | '\u{2216}'
            | '\u{29f5}'
            | '\u{29f9}'
            | '\u{fe68}'
            | '\u{ff3c}'
            | '\u{fe6a}'
            | '\u{ff05}'
            | '\u{37e}'
            | '\u{fe14}'
            | '\u{fe54}'
            | '\u{ff1b}'
    )
}

/// How many dots it becomes, if it becomes only dots.
fn dots_of(c: char) -> Option<u32> {
    match c {
        '.' | '\u{2024}' | '\u{3002}' | '\u{fe52}' | '\u{ff0e}' | '\u{ff61}' => Some(1),
        '\u{2025}' | '\u{fe30}' => Some(2),
        // Some servers drop invisible characters.
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::NormalPath;

    #[test]
    fn ambiguous_bytes_are_reported() {
        let check = |path: &str, expected: Option<&str>| {
            let told = NormalPath::of(path.as_bytes()).unwrap().foreign();
            assert_eq!(told.and_then(|why| why.split(' ').nth(1)), expected, "{path}");
        };
        let (bytes, slash, dots) = (Some("bytes"), Some("character"), Some("that"));
        check("/caf%C3%A9", None);
        check("/%E6%97%A5%E6%9C%AC", None);
        check("/a%E2%80%A6", None); // An ellipsis is no dot segment.
        check("/%E2%80%A6", None);
        check("/v1%EF%BC%8E2", None); // Nor is a fullwidth dot within a name.
        check("/%C0%AE%C0%AE/a", bytes);
        check("/..%C0%AF..", bytes);
        check("/%E0%80%AE", bytes);
        check("/%F0%80%80%AF", bytes);
        check("/%C0%80", bytes);
        check("/%E9", bytes);
        check("/%FF", bytes);
        check("/%C3", bytes);
        check("/%ED%A0%80", bytes);
        check("/a%EF%BC%8Fb", slash);
        check("/a%EF%BC%BCb", slash);
        check("/a%E2%88%95b", slash);
        check("/a%EF%BC%85b", slash);
        check("/%EF%BC%8E%EF%BC%8E/b", dots);
        check("/a/%EF%BC%8E", dots);
        check("/a/.%EF%BC%8E/b", dots);
        check("/a/%E2%80%A5/b", dots);
        check("/a/.%E2%80%8B./b", dots);
        check("/a%2F%EF%BC%8E%2Fb", dots);
    }
}
