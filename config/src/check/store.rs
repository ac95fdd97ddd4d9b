//! The store that replicas share: what its kind needs, and how long it may take.

use std::time::Duration;

use super::Findings;
use crate::{Config, StoreKind};

/// Requests wait as long.
const TIMEOUT_MAX: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
const PREFIX_MAX: usize = 64;

pub(super) fn check(config: &Config, found: &mut Findings) {
    let Some(store) = &config.store else { return };
    let place = &store.place;
    if store.addresses.is_empty() {
        found.problem(
            place,
            "a store needs an address; write `addresses: [redis.example.com:6379]`",
        );
    }
    if store.kind == StoreKind::Standalone
        && let Some(second) = store.addresses.get(1)
    {
        found.problem(
            &second.place,
            "`kind: standalone` takes one address; write `kind: sentinel` or `kind: cluster`",
        );
    }
    match (store.kind, &store.master) {
        (StoreKind::Sentinel, None) => found.problem(
            place,
            "sentinels know masters by name; write `master: mymaster`, as in `sentinel monitor`",
        ),
        (StoreKind::Standalone | StoreKind::Cluster, Some(master)) => {
            found.problem(&master.place, "`master` needs `kind: sentinel`; remove it");
        }
        _ => {}
    }
    if store.kind != StoreKind::Sentinel {
        let places = [
            store.sentinel_username.as_ref().map(|written| &written.place),
            store.sentinel_password_file.as_ref().map(|written| &written.place),
        ];
        for place in places.into_iter().flatten() {
            found.problem(
                place,
                "`sentinel_username` and `sentinel_password_file` need `kind: sentinel`; write `username` and `password_file`",
            );
        }
    }
    if let (Some(_), None) = (&store.username, &store.password_file) {
        found.problem(place, "a `username` needs a password; write `password_file`");
    }
    if let (Some(name), None) = (&store.sentinel_username, &store.sentinel_password_file) {
        found.problem(
            &name.place,
            "a `sentinel_username` needs a password; write `sentinel_password_file`",
        );
    }
    if let Some(tls) = &store.tls {
        match (&tls.client_cert, &tls.client_key) {
            (Some(cert), None) => {
                found.problem(&cert.place, "a certificate needs its key; write `client_key`");
            }
            (None, Some(key)) => {
                found.problem(&key.place, "a key needs its certificate; write `client_cert`");
            }
            _ => {}
        }
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    let prefix = &*store.prefix;
    if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.bytes().all(plain) {
        found.problem(
            &store.prefix.place,
            "`prefix` has 1 to 64 letters, digits and `-_.:`; write for example `stagedoor-prod`",
        );
    }
    if store.timeout.is_zero() || **store.timeout > TIMEOUT_MAX {
        found.problem(
            &store.timeout.place,
            "`timeout` is how long a request may wait before Redis counts as unreachable; write at most `1s`",
        );
    }
    if store.connect_timeout.is_zero() || **store.connect_timeout > CONNECT_TIMEOUT_MAX {
        found.problem(
            &store.connect_timeout.place,
            "`connect_timeout` delays noticing that Redis is back; write at most `10s`",
        );
    }
    let far = |host: &str| !super::credentials::is_this_machine(host);
    if store.tls.is_none()
        && store.password_file.is_some()
        && let Some(address) = store.addresses.iter().find(|address| far(&address.host))
    {
        found.warning(
            &address.place,
            format!(
                "the password goes to `{}` in clear text; write `tls: {{}}` unless the network is yours alone",
                address.host
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_store_that_cannot_be_asked_is_told() {
        let check = |store: &str, told: &str| {
            let text = format!(
                "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
                 store: {{{store}}}\n"
            );
            let told_of = match crate::parse("t", &text) {
                Ok(loaded) => loaded.warnings.to_string(),
                Err(problems) => problems.to_string(),
            };
            assert!(told_of.contains(told) && told_of.is_empty() == told.is_empty(), "{told_of}");
        };
        check("addresses: ['redis:6379']", "");
        check("addresses: [redis]", "not a host with a port");
        check("addresses: []", "write `addresses:");
        check("addresses: ['a:1', 'b:1']", "write `kind: sentinel`");
        check("kind: cluster, addresses: ['a:1', 'b:1']", "");
        check("kind: sentinel, addresses: ['a:1']", "write `master: mymaster`");
        check("kind: sentinel, master: m, addresses: ['a:1', 'b:1']", "");
        let one = |more: &str| format!("addresses: ['redis:6379'], {more}");
        check(&one("master: m"), "needs `kind: sentinel`");
        check(&one("sentinel_password_file: f"), "write `username`");
        check(&one("username: u"), "write `password_file`");
        check(&one("password_file: f"), "in clear text");
        check(&one("password_file: f, tls: {}"), "");
        check("addresses: ['localhost:6379'], password_file: f", "");
        check(&one("tls: {client_cert: c}"), "write `client_key`");
        check(&one("tls: {client_key: c}"), "write `client_cert`");
        check(&one("prefix: 'a}b'"), "`prefix` has");
        check(&one("prefix: ''"), "`prefix` has");
        check(&one("timeout: 2s"), "`timeout`");
        check(&one("timeout: 0s"), "`timeout`");
        check(&one("connect_timeout: 1m"), "`connect_timeout`");
        check(&one("on_error: closed"), "");
        check(&one("password: hunter2"), "unknown key `password`");
    }
}
