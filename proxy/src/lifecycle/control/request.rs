//! One question to a control source: in bounded time and size, at one place, with a token of now.

use std::sync::Arc;

use filters::guard::Guard;
use http::header;

use crate::{
    net::{
        dial::Dial,
        fetch::{self, Endpoint},
    },
    secret_file,
};

const ETAG_MAX: usize = 1024;

/// The body of a 200 with its `ETag`; `None` if it is what `etag` names.
pub(super) async fn ask(
    control: &config::Control,
    etag: Option<&str>,
    dial: &Dial,
    guard: &Arc<Guard>,
) -> Result<Option<(Vec<u8>, Option<String>)>, String> {
    // Together with what `fetch` does before it sends.
    let whole = tokio::time::timeout(*control.timeout, answer(control, etag, dial, guard));
    let late = |_| format!("`{}` did not respond within {}", *control.url, control.timeout);
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
    let client = fetch::client(dial, guard, &Endpoint::declared(&control.url), ca)?;
    let mut request = client.get(&url).timeout(*control.timeout);
    if let Some(file) = &control.token_file {
        let token = secret_file::token(file).map_err(|error| error.to_string())?;
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
            let max = usize::try_from(control.response_max.bytes()).unwrap_or(usize::MAX);
            Ok(Some((fetch::body_up_to(answer, &url, max).await?, etag)))
        }
        304 if etag.is_some() => Ok(None),
        status @ (301 | 302 | 303 | 307 | 308) => {
            Err(format!("`{url}` responded with {status}; redirects are not followed"))
        }
        status => Err(format!("`{url}` responded with {status}")),
    }
}
