//! One question to a control source: in bounded time and size, at one place, with a token of now.

use std::{path::Path, sync::Arc};

use certs::LoadError;
use filters::{Secret, guard::Guard};
use http::header;

use crate::{
    dial::Dial,
    fetch::{self, Place},
};

const ETAG_MAX: usize = 1024;
const TOKEN_MAX: usize = 16 << 10;

/// The body of a 200 with its `ETag`; `None` if it is what `etag` names.
pub(super) async fn ask(
    control: &config::Control,
    etag: Option<&str>,
    dial: &Dial,
    guard: &Arc<Guard>,
) -> Result<Option<(Vec<u8>, Option<String>)>, String> {
    // Together with what `fetch` does before it sends.
    let whole = tokio::time::timeout(*control.timeout, answer(control, etag, dial, guard));
    let late = |_| format!("`{}` does not answer within {}", *control.url, control.timeout);
    whole.await.map_err(late)?
}

async fn answer(
    control: &config::Control,
    etag: Option<&str>,
    dial: &Dial,
    guard: &Arc<Guard>,
) -> Result<Option<(Vec<u8>, Option<String>)>, String> {
    let url = control.url.to_string();
    let ca = control.ca.as_ref().map(|ca| ca.value.as_path());
    let client = fetch::client(dial, guard, &Place::declared(&control.url), ca)?;
    let mut request = client.get(&url).timeout(*control.timeout);
    if let Some(file) = &control.token_file {
        let token = token(file).map_err(|error| error.to_string())?;
        request = request.bearer_auth(token.expose());
    }
    if let Some(etag) = etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let answer = client.send(request, &url).await?;
    match answer.status().as_u16() {
        200 => {
            let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
            let etag = etag.filter(|etag| etag.len() <= ETAG_MAX).map(str::to_owned);
            let max = usize::try_from(control.answer_max.bytes()).unwrap_or(usize::MAX);
            Ok(Some((fetch::body_up_to(answer, &url, max).await?, etag)))
        }
        304 if etag.is_some() => Ok(None),
        status @ (301 | 302 | 303 | 307 | 308) => {
            Err(format!("`{url}` answers {status}, and a redirect is not followed"))
        }
        status => Err(format!("`{url}` answers {status}")),
    }
}

/// The token in a file.
///
/// # Errors
/// Why it cannot be used.
pub fn token(file: &Path) -> Result<Secret, LoadError> {
    let wrong = |cause: &str| LoadError { file: file.to_owned(), cause: cause.to_owned() };
    let text = certs::bytes(file)?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() || text.len() > TOKEN_MAX || !text.iter().all(u8::is_ascii_graphic) {
        return Err(wrong("a token is one line of visible ASCII"));
    }
    Ok(Secret::new(str::from_utf8(text).expect("ASCII is UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_that_can_be_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let check = |bytes: &[u8], expected: Option<&str>| {
            std::fs::write(&file, bytes).unwrap();
            let read = token(&file).ok();
            assert_eq!(read.as_ref().map(Secret::expose), expected, "{bytes:?}");
        };
        check(b"abc.def\n", Some("abc.def"));
        check(b"abc\r\n", Some("abc"));
        check(b"", None);
        check(b"\n", None);
        check(b"a\nb", None);
        check(b"a b", None);
        check(b"\xc3\xa9", None);
        check(&[b'a'; TOKEN_MAX + 1], None);
    }
}
