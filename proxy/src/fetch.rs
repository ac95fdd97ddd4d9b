//! Asks issuers over HTTP: in bounded time and size, of addresses that `Dial` found, and not too
//! often.

use std::{path::Path, sync::Arc, time::Duration};

use crate::dial::Dial;

/// Nobody waits longer than this for an issuer.
const PATIENCE: Duration = Duration::from_secs(3);
const BYTES_MAX: usize = 512 << 10;

/// How many fetches others may cause: some in a row, then one for each interval (GCRA).
#[derive(Default)]
pub(crate) struct Allowance {
    whole_at: Duration,
}

impl Allowance {
    pub(crate) fn take(&mut self, now: Duration, (in_a_row, interval): (u32, Duration)) -> bool {
        let whole_at = self.whole_at.max(now) + interval;
        let allowed = whole_at <= now + interval * in_a_row;
        if allowed {
            self.whole_at = whole_at;
        }
        allowed
    }
}

/// Asks whoever these CAs (or the system's) vouch for. Follows no redirect.
pub(crate) fn client(dial: &Dial, ca: Option<&Path>) -> Result<reqwest::Client, String> {
    let roots = match ca {
        Some(file) => certs::roots(file).map_err(|error| error.to_string())?,
        None => system_roots(),
    };
    let tls = rustls::ClientConfig::builder_with_provider(certs::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .dns_resolver(Arc::new(dial.clone()))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("stagedoor/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

fn system_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Sends a request to `url`.
pub(crate) async fn send(
    request: reqwest::RequestBuilder,
    url: &str,
) -> Result<reqwest::Response, String> {
    request.header("accept", "application/json").send().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map_or(String::new(), |c| format!(": {c}"));
        format!("cannot get `{url}`{cause}")
    })
}

/// The body of an answer of `url`, up to a limit.
pub(crate) async fn body(mut answer: reqwest::Response, url: &str) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| format!("`{url}` broke off"))? {
        body.extend_from_slice(&chunk);
        if body.len() > BYTES_MAX {
            return Err(format!("`{url}` answers with over {BYTES_MAX} bytes"));
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_fetches_may_follow_each_other_and_then_one_for_each_interval() {
        let mut allowance = Allowance::default();
        let mut taken = |seconds: u64| {
            let now = Duration::from_secs(seconds);
            (0..5).filter(|_| allowance.take(now, (3, Duration::from_secs(10)))).count()
        };
        assert_eq!([taken(100), taken(109), taken(110), taken(125), taken(1000)], [3, 0, 1, 1, 3]);
    }
}
