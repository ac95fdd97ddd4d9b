//! The content of a denial, in any format.

use std::{borrow::Cow, time::Duration};

use config::Detail;
use filters::{Denial, Exchange, routes::Route};
use http::StatusCode;

/// The content of a denial.
pub(crate) struct Problem<'a> {
    /// Its own status, which not every format uses as the response's.
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    /// The reason, as far as the client may know it.
    pub(crate) sentence: Cow<'a, str>,
    /// Whether that is the full reason.
    pub(crate) full: bool,
    /// The rule that refused, if the client may know it.
    pub(crate) rule: Option<&'a Route>,
    pub(crate) request_id: &'a str,
    /// In seconds.
    pub(crate) retry_after: Option<u64>,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// The present, since 1970.
    pub(crate) now: Duration,
}

impl<'a> Problem<'a> {
    /// The content of an exchange's denial. `asked` is its method and path.
    pub(crate) fn of(
        denial: &Denial,
        status: StatusCode,
        exchange: &'a Exchange,
        request_id: &'a str,
        asked: (&'a str, &'a str),
        now: Duration,
    ) -> Self {
        let route = exchange.route.as_deref();
        let detail = route.and_then(|route| route.options.detail).unwrap_or_default();
        let full = detail == Detail::Full;
        let sentence = match full {
            true => denial.to_string().into(),
            false => status.canonical_reason().unwrap_or("denied").into(),
        };
        let retry_after = denial.retry_after().map(super::seconds);
        let rule = route.filter(|_| full);
        let (method, path) = asked;
        let code = denial.code();
        Self { status, code, sentence, full, rule, request_id, retry_after, method, path, now }
    }

    /// The sentence and the code, where there is one place for both.
    pub(super) fn message(&self) -> String {
        format!("{} ({})", self.sentence, self.code)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn said() -> Problem<'static> {
        Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "breaker_open",
            sentence: "Service Unavailable".into(),
            full: false,
            rule: None,
            request_id: "abc-1",
            retry_after: None,
            method: "GET",
            path: "/x",
            now: Duration::from_secs(1_795_521_600),
        }
    }
}
