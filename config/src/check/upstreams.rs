//! Upstreams: addresses, TLS, breakers.

use super::Findings;
use crate::Config;

pub(super) fn check(config: &Config, found: &mut Findings) {
    for (name, upstream) in &config.upstreams {
        let place = &upstream.place;
        if !upstream.url.path.is_empty() {
            found.problem(
                &upstream.url.place,
                format!("`{name}` has a path; routes say the path, write `{}`", {
                    let mut bare = upstream.url.value.clone();
                    bare.path.clear();
                    bare
                }),
            );
        }
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
        if !config.all_routes().iter().any(|route| *route.upstream == *name) {
            found.warning(place, format!("no route goes to upstream `{name}`"));
        }
    }
}
