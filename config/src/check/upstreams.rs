//! Upstreams: addresses, TLS, breakers.

use std::collections::HashSet;

use super::Findings;
use crate::{Config, Duration, Located, Name, Upstream};

/// `timeouts.whole` where nobody says another.
const WHOLE: Duration = Duration::from_secs(15);

pub(super) fn check(config: &Config, found: &mut Findings) {
    let routes = config.all_routes();
    let used: HashSet<&Name> = routes.iter().map(|route| &route.upstream.value).collect();
    for (name, upstream) in &config.upstreams {
        let place = &upstream.place;
        if upstream.external && upstream.authority == crate::Authority::Delivery {
            found.problem(
                place,
                format!("`{name}` cannot be somebody else's and decide about delivery; remove `external` or `authority`"),
            );
        }
        if upstream.external && upstream.preserve_host {
            found.problem(
                place,
                format!(
                    "`{name}` is `external`: it knows its own host only; remove `preserve_host`"
                ),
            );
        }
        if upstream.external
            && !upstream.url.tls
            && upstream.url.ip().is_none_or(|ip| !ip.is_loopback())
        {
            found.warning(
                place,
                format!("`{name}` is asked in the clear; write `https://` if it has it"),
            );
        }
        pace(config, name, upstream, found);
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
            found.problem(place, format!("`{name}`: `failure_percent` goes from 1 to 100"));
        }
        if breaker.requests_min == 0 || breaker.probes == 0 {
            found.problem(place, format!("`{name}`: `requests_min` and `probes` are at least 1"));
        }
        if breaker.window.is_zero() || breaker.rest.is_zero() {
            found.problem(place, format!("`{name}`: `window` and `rest` are longer than nothing"));
        }
        let retries = &upstream.retries;
        if !(1..=10).contains(&retries.attempts_max) || retries.budget_percent > 100 {
            found.problem(
                place,
                format!("`{name}`: `attempts_max` goes from 1, which asks once, to 10; `budget_percent` to 100"),
            );
        }
        for ignored in &breaker.ignore {
            if !(500..=599).contains(&ignored.status) {
                found.problem(
                    place,
                    format!(
                        "`{name}`: `{}` is no failure anyway; `ignore` takes 500 to 599",
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
        let whole = route.options.timeouts.or(upstream.timeouts).whole;
        let whole = whole.unwrap_or(WHOLE);
        if pace.wait_max >= whole {
            found.problem(
                &upstream.place,
                format!(
                    "`{name}`: a request of route `{}` may wait {} for its turn, but has {} in all; raise `timeouts.whole` or lower `wait_max`",
                    route.name, pace.wait_max, whole
                ),
            );
        }
    }
}
