//! Masks what looks like a secret in text from a client.
//!
//! Paths and names are recorded, and people put tokens into them. Only shapes that are hardly ever anything
//! else are masked: what is masked can no longer be searched for.

use std::ops::Range;

/// The minimum length of a token. Most texts have no word that long, and are scanned once.
const WORD_MIN: usize = 20;
/// The minimum length of what follows a token's prefix.
const REST_MIN: usize = 14;

/// How tokens of well-known systems begin: GitHub, GitLab, Slack, npm, `PyPI`, Docker, Vault,
/// Grafana, Stripe, `OpenAI` and Anthropic, Google, Atlassian, `DigitalOcean`, Shopify.
const BEGINNINGS: [&str; 32] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "glrt-",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "npm_",
    "pypi-",
    "dckr_pat_",
    "hvs.",
    "hvb.",
    "glsa_",
    "glc_",
    "sk_live_",
    "rk_live_",
    "sk-ant-",
    "sk-proj-",
    "AIza",
    "ya29.",
    "ATATT3",
    "dop_v1_",
    "shpat_",
];

/// `text` with what looks like a token replaced by its beginning and `***`; `None` if it has none.
pub(super) fn masked(text: &str) -> Option<String> {
    if !has_long_word(text) {
        return None;
    }
    let mut out = String::new();
    let mut done = 0;
    for word in words(text) {
        let start = word.start;
        if let Some((from, kept)) = token_in(&text[word.clone()]) {
            out.push_str(&text[done..start + from]);
            out.push_str(kept);
            out.push_str("***");
            done = word.end;
        }
    }
    (done > 0).then(|| out + &text[done..])
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn has_long_word(text: &str) -> bool {
    let mut length = 0;
    text.len() >= WORD_MIN
        && text.bytes().any(|byte| {
            length = if is_of_word(byte) { length + 1 } else { 0 };
            length >= WORD_MIN
        })
}

/// The runs of characters that tokens are made of, where one is long enough.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    text.as_bytes().split(|byte| !is_of_word(*byte)).filter_map(move |word| {
        let start = at;
        at += word.len() + 1;
        (word.len() >= WORD_MIN).then_some(start..start + word.len())
    })
}

/// Where a token begins in a word, and its prefix, which stays visible.
fn token_in(word: &str) -> Option<(usize, &'static str)> {
    let boundaries =
        (0..word.len()).filter(|at| *at == 0 || !word.as_bytes()[at - 1].is_ascii_alphanumeric());
    boundaries.into_iter().find_map(|at| {
        let rest = &word[at..];
        if is_jwt(rest) {
            return Some((at, "eyJ"));
        }
        let known = BEGINNINGS.iter().find(|known| rest.starts_with(**known))?;
        (rest.len() >= known.len() + REST_MIN).then_some((at, *known))
    })
}

/// Three parts or more, the first of which begins as `{"` does in base64url (RFC 7515 3.1).
fn is_jwt(text: &str) -> bool {
    let mut parts = text.split('.');
    let header = parts.next().unwrap_or_default();
    let (payload, signature) = (parts.next(), parts.next());
    header.starts_with("eyJ")
        && header.len() >= 10
        && payload.is_some_and(|part| part.len() >= 2)
        && signature.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_token_is_hidden_and_nothing_else() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl";
        let check = |text: &str, expected: &str| {
            assert_eq!(masked(text).as_deref().unwrap_or(text), expected, "{text}");
        };
        check(&format!("/hook/{jwt}/run"), "/hook/eyJ***/run");
        check(&format!("/hook/token={jwt}"), "/hook/token=eyJ***");
        check(&format!("/x/{jwt}/{jwt}"), "/x/eyJ***/eyJ***");
        check("/x/eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ./y", "/x/eyJ***/y");
        check("/x/ghp_0123456789abcdefghijklmnopqrstuvwxyz", "/x/ghp_***");
        check("/x/xoxb-1234567890-abcdefghijkl", "/x/xoxb-***");
        check("/x/pre-glpat-abcdefghij0123456789", "/x/pre-glpat-***");
        check("hvs.CAESIJabcdefghijklmnop.example:443", "hvs.***:443");
        // Neither names nor identifiers.
        for text in [
            "/api/catalog/entities/by-name/component/default/a-rather-long-component-name",
            "/v1/deployments/0190f5a0-7d2e-7c3b-9a55-3e1f6d2c8b7a/events",
            "/x/da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "/x/eyJhbGciOiJIUzI1NiJ9",
            "/x/ghp_short",
            "/x/SG.short.example.com",
            "/x/somghp_0123456789abcdefghijklmnopqrstuvwxyz",
            "my.eyJ.example.service.internal",
            "/",
            "",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn text_that_is_not_ascii_is_no_obstacle() {
        let text = "/ä/ghp_0123456789abcdefghijklmnopqrstuvwxyz/\u{1f600}";
        assert_eq!(masked(text).as_deref(), Some("/ä/ghp_***/\u{1f600}"));
    }
}
