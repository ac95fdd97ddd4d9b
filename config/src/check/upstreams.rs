//! Upstreams: addresses, TLS, breakers.

use std::collections::HashSet;

use super::Findings;
use crate::{BalanceKind, Config, Duration, Located, Name, Upstream};

/// `timeouts.total` where nobody says another.
const WHOLE: Duration = Duration::from_secs(15);
/// No address is asked more often how it is.
const INTERVAL_MIN: std::time::Duration = std::time::Duration::from_millis(100);

pub(super) fn check(config: &Config, found: &mut Findings) {
    let routes = config.all_routes();
    let used: HashSet<&Name> = routes.iter().map(|route| &route.upstream.value).collect();
    for (name, upstream) in &config.upstreams {
        let place = &upstream.place;
        if upstream.external && upstream.authority == crate::Authority::Delivery {
            found.problem(
                place,
                format!("`{name}` cannot be external and also decide about delivery; remove `external` or `authority`"),
            );
        }
        if upstream.external && upstream.preserve_host {
            found.problem(
                place,
                format!(
                    "`{name}` is `external` and knows only its own host; remove `preserve_host`"
                ),
            );
        }
        if upstream.external
            && !upstream.url.tls
            && upstream.url.ip().is_none_or(|ip| !ip.is_loopback())
        {
            found.warning(
                place,
                format!("`{name}` is called in clear text; write `https://` if it supports it"),
            );
        }
        pace(config, name, upstream, found);
        outlier_detection(name, upstream, found);
        health_check(name, upstream, found);
        balance(name, upstream, found);
        let tls = &upstream.tls;
        if tls.client_cert.is_some() != tls.client_key.is_some() {
            found.problem(place, format!("`{name}` needs both `client_cert` and `client_key`"));
        }
        if !upstream.url.tls && (tls.ca.is_some() || tls.client_cert.is_some()) {
            found.problem(
                place,
                format!("`{name}` has `tls` but its url is `http://`; write `https://`"),
            );
        }
        let breaker = &upstream.breaker;
        if !(1..=100).contains(&breaker.failure_percent) {
            found.problem(place, format!("`{name}`: `failure_percent` must be from 1 to 100"));
        }
        if breaker.requests_min == 0 || breaker.half_open_requests == 0 {
            found.problem(
                place,
                format!("`{name}`: `requests_min` and `half_open_requests` must be at least 1"),
            );
        }
        if breaker.window.is_zero() || breaker.open_duration.is_zero() {
            found.problem(
                place,
                format!("`{name}`: `window` and `open_duration` must be more than 0s"),
            );
        }
        let retries = &upstream.retries;
        if !(1..=10).contains(&retries.attempts_max) || retries.budget_percent > 100 {
            found.problem(
                place,
                format!("`{name}`: `attempts_max` must be from 1 (no retries) to 10, `budget_percent` at most 100"),
            );
        }
        for ignored in &breaker.ignore {
            if !(500..=599).contains(&ignored.status) {
                found.problem(
                    place,
                    format!(
                        "`{name}`: `{}` does not count as a failure anyway; `ignore` takes 500 to 599",
                        ignored.status
                    ),
                );
            }
        }
        if !used.contains(name) {
            found.warning(place, format!("no route goes to upstream `{name}`"));
        }
    }
}

/// A request that waits for its turn must still have time for its answer.
fn pace(config: &Config, name: &Name, upstream: &Located<Upstream>, found: &mut Findings) {
    let Some(pace) = upstream.pace else { return };
    let routes = config.all_routes();
    let of_it = routes.iter().filter(|route| *route.upstream == *name);
    for route in of_it {
        let whole = route.options.timeouts.or(upstream.timeouts).total;
        let whole = whole.unwrap_or(WHOLE);
        if pace.wait_max >= whole {
            found.problem(
                &upstream.place,
                format!(
                    "`{name}`: a request of route `{}` may wait {} for its turn, but has {} in total; raise `timeouts.total` or lower `wait_max`",
                    route.name, pace.wait_max, whole
                ),
            );
        }
    }
}

fn outlier_detection(name: &Name, upstream: &Located<Upstream>, found: &mut Findings) {
    let rules = &upstream.outlier_detection;
    if rules.consecutive_failures == 0 {
        found.problem(
            &upstream.place,
            format!(
                "`{name}`: `outlier_detection.consecutive_failures` must be at least 1; `ejection_percent_max: 0` ejects none"
            ),
        );
    }
    if rules.ejection_percent_max > 100 {
        found.problem(
            &upstream.place,
            format!("`{name}`: `outlier_detection.ejection_percent_max` must be from 0 to 100"),
        );
    }
    if rules.base_ejection_time.is_zero() || rules.ejection_time_max < rules.base_ejection_time {
        found.problem(
            &upstream.place,
            format!(
                "`{name}`: `outlier_detection.base_ejection_time` ({}) must be more than 0s, and `ejection_time_max` ({}) not shorter than that",
                rules.base_ejection_time, rules.ejection_time_max
            ),
        );
    }
}

fn health_check(name: &Name, upstream: &Located<Upstream>, found: &mut Findings) {
    let Some(check) = &upstream.health_check else { return };
    let place = &upstream.place;
    let plain = check.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\');
    if !check.path.starts_with('/') || !plain {
        found.problem(
            place,
            format!(
                "`{name}`: `health_check.path` is a path, not `{}`; write `/healthz`",
                check.path.escape_debug()
            ),
        );
    }
    if *check.interval < INTERVAL_MIN {
        found.problem(
            place,
            format!(
                "`{name}`: `health_check.interval` is {}; write `100ms` or more",
                check.interval
            ),
        );
    }
    if check.timeout.is_zero() || check.timeout > check.interval {
        found.problem(
            place,
            format!(
                "`{name}`: `health_check.timeout` ({}) must be more than 0s and at most `interval` ({})",
                check.timeout, check.interval
            ),
        );
    }
    if check.healthy_threshold == 0 || check.unhealthy_threshold == 0 {
        found.problem(
            place,
            format!("`{name}`: `healthy_threshold` and `unhealthy_threshold` must be at least 1"),
        );
    }
}

fn balance(name: &Name, upstream: &Located<Upstream>, found: &mut Findings) {
    let balance = &upstream.balance;
    let hashes = balance.kind == BalanceKind::ConsistentHash;
    if hashes && balance.by.is_none() {
        found.problem(
            &upstream.place,
            format!("`{name}`: `balance` needs `by`; write `{{kind: consistent_hash, by: workspace}}`, or `caller` or `client`"),
        );
    }
    if !hashes && balance.by.is_some() {
        found.problem(
            &upstream.place,
            format!("`{name}`: `balance.by` needs `kind: consistent_hash`; remove it"),
        );
    }
}
