//! A denial as an HTML page: for a person, so it says what to do. All text from requests is escaped.

use std::{fmt::Write, sync::LazyLock, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use filters::audit::rfc3339;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};

use super::problem::Problem;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;font:1rem/1.5 system-ui,sans-serif;background:#fff;color:#1f2328}\
main{max-width:36rem;margin:12vh auto;padding:0 1.5rem}\
h1{font-size:1.5rem;line-height:1.25}\
dt{color:#4d5661}dd{margin:0 0 .5rem;font-family:ui-monospace,monospace;overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}dt{color:#9ba5b0}}";

/// Only its own style: no script, image or form, and not in another site's frame.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    );
    HeaderValue::from_str(&policy).expect("a policy is plain")
});

const X_CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// The page, with its headers.
pub(super) fn page(said: &Problem<'_>, headers: &mut HeaderMap) -> String {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let status = said.status.as_u16();
    let name = said.status.canonical_reason().unwrap_or("Denied");
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n\
         <title>{status} {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{status} {name}</h1>\n<p>{}</p>\n",
        what_to_do(said.status),
    );
    if said.full {
        let _ = writeln!(page, "<p>{}</p>", Escaped(&said.sentence));
    }
    if let Some(seconds) = said.retry_after {
        let _ = writeln!(page, "<p>{}</p>", again(said.now, seconds));
    }
    let _ = write!(
        page,
        "<dl>\n<dt>Code</dt>\n<dd>{}</dd>\n<dt>Request id</dt>\n<dd>{}</dd>\n</dl>\n\
         </main>\n</body>\n</html>\n",
        Escaped(said.code),
        Escaped(said.request_id),
    );
    page
}

/// What a person can do about it.
fn what_to_do(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => {
            "You are not signed in, or your session has expired. Sign in, then open this page again."
        }
        403 => {
            "You do not have access to this page. If you think you should, contact the site's operator and give them the request ID below."
        }
        408 => "Your request took too long to arrive. Check your connection, then try again.",
        409 => "The same request is still being processed. Wait a moment before you try again.",
        413 => "What you sent is too large.",
        421 => "There is no such site here. Check the address.",
        429 => "Too many requests. Wait a moment, then open this page again.",
        431 => {
            "Your browser sent too many headers or cookies. Delete this site's cookies, then try again."
        }
        503 => "This is currently not available.",
        502 | 504 => {
            "The system behind this page is not responding. Try again in a minute. If the problem persists, contact the site's operator and give them the request ID below."
        }
        _ => "This request cannot be processed. Check the address, then try again.",
    }
}

/// When to retry, for a person who waits, and for one who finds the page later.
fn again(now: Duration, seconds: u64) -> String {
    let wait = match seconds {
        1 => "1 second".to_owned(),
        2..=120 => format!("{seconds} seconds"),
        121..=7200 => format!("{} minutes", seconds.div_ceil(60)),
        _ => format!("{} hours", seconds.div_ceil(3600)),
    };
    let at = rfc3339(Duration::from_secs(now.as_secs().saturating_add(seconds)));
    let at = str::from_utf8(&at).expect("a time is plain");
    // From half a day on, the time alone would be ambiguous.
    let shown = if seconds < 43_200 { &at[11..19] } else { &at[..16] };
    format!("Try again in {wait}: <time datetime=\"{}Z\">{shown} UTC</time>.", &at[..19])
}

/// A text from anywhere, within an element or a quoted attribute.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::data_plane::denial_response::{page::*, problem::tests::said};

    #[test]
    fn a_page_says_what_to_do_and_when_and_has_no_script() {
        let mut headers = HeaderMap::new();
        let page = page(&Problem { retry_after: Some(30), ..said() }, &mut headers);
        for part in [
            "<html lang=\"en\">",
            "<title>503 Service Unavailable</title>",
            "<h1>503 Service Unavailable</h1>",
            "<p>This is currently not available.</p>",
            "Try again in 30 seconds: <time datetime=\"2026-11-24T12:00:30Z\">12:00:30 UTC</time>.",
            "<dd>breaker_open</dd>",
            "<dd>abc-1</dd>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("upstream"), "the sentence is the operator's: {page}");
        for without in ["<script", "http-equiv", "src=", "href=", "//"] {
            assert!(!page.contains(without), "{without} in {page}");
        }
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        let evil = "<img src=x onerror=alert(1)>'\"&";
        let said =
            Problem { full: true, sentence: evil.into(), request_id: evil, code: evil, ..said() };
        let page = page(&said, &mut HeaderMap::new());
        assert!(!page.contains("<img"), "{page}");
        let escaped = "&lt;img src=x onerror=alert(1)&gt;&#39;&quot;&amp;";
        assert_eq!(page.matches(escaped).count(), 3, "{page}");
    }

    #[test]
    fn a_wait_is_printed_in_a_fitting_unit() {
        let now = Duration::from_secs(1_795_521_600);
        let check = |seconds, expected: &str| {
            let told = again(now, seconds);
            assert!(told.contains(expected), "{told}");
        };
        check(1, "in 1 second: ");
        check(90, "in 90 seconds: ");
        check(600, "in 10 minutes: <time datetime=\"2026-11-24T12:10:00Z\">12:10:00 UTC<");
        check(90_000, "in 25 hours: <time datetime=\"2026-11-25T13:00:00Z\">2026-11-25T13:00 UTC<");
        check(u64::MAX, "hours");
    }
}
