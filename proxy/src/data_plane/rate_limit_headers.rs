//! The headers that report a client's limits: `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-11), and the older `X-RateLimit-*`.

use bytes::Bytes;
use filters::{
    Denial,
    rate_limit::{Of, QuotaStatus},
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Reports the tightest of a request's limits, or the one that refused it.
pub(crate) fn told(headers: &mut HeaderMap, status: Option<&QuotaStatus>, denial: Option<&Denial>) {
    match denial {
        Some(Denial::RateLimited(over)) => status_of(headers, &over.status),
        Some(Denial::PaceExceeded { limit, retry_after, .. }) => {
            let status = QuotaStatus::new("upstream", Of::Rest, *limit, 0);
            status_of(headers, &QuotaStatus { reset: *retry_after, ..status });
        }
        Some(Denial::TunnelsExhausted { max, .. }) => tunnels(headers, *max),
        _ => {
            if let Some(status) = status {
                status_of(headers, status);
            }
        }
    }
}

fn status_of(headers: &mut HeaderMap, status: &QuotaStatus) {
    let QuotaStatus { limit, remaining, reset, .. } = status;
    let (quota, remaining) = (u64::from(limit.rate.count.get()), u64::from(*remaining));
    let (window, reset) = (limit.rate.per.as_secs(), ceil(*reset));
    let (scope, bucket) = policy(status);
    headers.insert(RATELIMIT_POLICY, item(scope, bucket, [(";q=", quota), (";w=", window)]));
    headers.insert(RATELIMIT, item(scope, bucket, [(";r=", remaining), (";t=", reset)]));
    headers.insert(X_RATELIMIT_LIMIT, quota.into());
    headers.insert(X_RATELIMIT_REMAINING, remaining.into());
    headers.insert(X_RATELIMIT_RESET, reset.into());
}

/// Concurrent tunnels, which end at an unknown time; in a second some may have.
fn tunnels(headers: &mut HeaderMap, max: u32) {
    let policy = format!("\"tunnels\";q={max};qu=\"concurrent-requests\"");
    headers.insert(RATELIMIT_POLICY, policy.parse().expect("a number is plain"));
    headers.insert(RATELIMIT, HeaderValue::from_static("\"tunnels\";r=0;t=1"));
    headers.insert(X_RATELIMIT_LIMIT, max.into());
    headers.insert(X_RATELIMIT_REMAINING, 0.into());
    headers.insert(X_RATELIMIT_RESET, 1.into());
}

/// The limit's name: `route`, `plugin`, or its scope, with its bucket.
fn policy(status: &QuotaStatus) -> (&str, Option<&str>) {
    match &status.of {
        Of::Rest | Of::Calls => (status.scope, None),
        Of::Bucket(name) => (status.scope, Some(name)),
        Of::Plugin(_) => ("plugin", None),
        Of::Route(_) => ("route", None),
    }
}

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A structured field with two parameters (RFC 9651). By hand, because every response has it.
fn item(name: &str, bucket: Option<&str>, parameters: [(&str, u64); 2]) -> HeaderValue {
    let mut text = Vec::with_capacity(48);
    text.push(b'"');
    text.extend_from_slice(name.as_bytes());
    if let Some(bucket) = bucket {
        text.push(b'-');
        text.extend_from_slice(bucket.as_bytes());
    }
    text.push(b'"');
    for (parameter, value) in parameters {
        text.extend_from_slice(parameter.as_bytes());
        text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("names in a config are plain")
}

fn ceil(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit() -> config::Limit {
        serde_json::from_str(r#"{"rate": "60/m", "burst": 5}"#).unwrap()
    }

    fn all(status: Option<&QuotaStatus>, denial: Option<&Denial>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        told(&mut headers, status, denial);
        let mut all: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_response_reports_the_tightest_limit() {
        let bucket = Of::Bucket(filters::Label::lossy("pages"));
        let status = QuotaStatus::new("workspace", bucket, limit(), 3);
        let expected = [
            "ratelimit-policy: \"workspace-pages\";q=60;w=60",
            "ratelimit: \"workspace-pages\";r=3;t=2",
            "x-ratelimit-limit: 60",
            "x-ratelimit-remaining: 3",
            "x-ratelimit-reset: 2",
        ];
        assert_eq!(all(Some(&status), None), expected);
    }

    #[test]
    fn a_refusal_reports_its_own_limit_and_no_other() {
        let status = QuotaStatus::new("workspace", Of::Rest, limit(), 3);
        let upstream = filters::Label::lossy("up");
        let retry_after = Duration::from_millis(1500);
        let pace = Denial::PaceExceeded { upstream, limit: limit(), retry_after };
        let expected = [
            "ratelimit-policy: \"upstream\";q=60;w=60",
            "ratelimit: \"upstream\";r=0;t=2",
            "x-ratelimit-limit: 60",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 2",
        ];
        assert_eq!(all(Some(&status), Some(&pace)), expected);
        let tunnels = Denial::TunnelsExhausted { name: filters::Label::lossy("w"), max: 7 };
        let expected = [
            "ratelimit-policy: \"tunnels\";q=7;qu=\"concurrent-requests\"",
            "ratelimit: \"tunnels\";r=0;t=1",
            "x-ratelimit-limit: 7",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 1",
        ];
        assert_eq!(all(Some(&status), Some(&tunnels)), expected);
    }
}
