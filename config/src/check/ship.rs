//! Where audit records are sent: the keys of each kind, and no secret in the clear.

use super::{Findings, credentials::is_open_to_all, not_protected};
use crate::{Config, Located, Name, Ship, ShipKind};

/// Records in one batch, at most.
const BATCH_MAX: u32 = 10_000;

pub(super) fn check(config: &Config, found: &mut Findings) {
    for (name, ship) in &config.audit.ship {
        if config.audit.directory.is_none() && !found.cuts.touch(&["audit", "directory"]) {
            found.problem(
                &ship.place,
                format!("`{name}` ships records from `audit.directory`; set that too"),
            );
        }
        keys(name, ship, found);
        values(name, ship, found);
    }
    let written = config.audit.ship.iter().filter(|(_, ship)| ship.kind == ShipKind::Stdout);
    for (name, ship) in written.skip(1) {
        found.problem(
            &ship.place,
            format!("`{name}` is a second sink on standard output; remove one"),
        );
    }
}

/// Which keys a sink has, and which it needs.
fn keys(name: &Name, ship: &Located<Ship>, found: &mut Findings) {
    use ShipKind as K;
    const POSTED: &[K] = &[K::OtlpHttp, K::Webhook];
    const CONNECTED: &[K] = &[K::OtlpHttp, K::Webhook, K::SyslogTls];
    let all: [(&str, &[K], bool, bool); 5] = [
        ("url", POSTED, true, ship.url.is_some()),
        ("address", &[K::SyslogTls], true, ship.address.is_some()),
        ("headers", POSTED, false, !ship.headers.is_empty()),
        ("secret_file", &[K::Webhook], false, ship.secret_file.is_some()),
        ("ca", CONNECTED, false, ship.ca.is_some()),
    ];
    for (key, kinds, needed, given) in all {
        let fits = kinds.contains(&ship.kind);
        if fits && needed && !given {
            found.problem(
                &ship.place,
                format!("`{name}` is of kind `{}` and needs `{key}`", ship.kind.name()),
            );
        }
        if !fits && given {
            let kinds: Vec<String> =
                kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
            found.problem(
                &ship.place,
                format!("`{name}`: `{key}` is only for kind {}; remove it", kinds.join(" or ")),
            );
        }
    }
}

fn values(name: &Name, ship: &Located<Ship>, found: &mut Findings) {
    if !(1..=BATCH_MAX).contains(&ship.batch_max.value) {
        found.problem(
            &ship.batch_max.place,
            format!("`{name}`: a batch has 1 to {BATCH_MAX} records"),
        );
    }
    for (key, wait) in [("interval", &ship.interval), ("timeout", &ship.timeout)] {
        if wait.is_zero() {
            found.problem(&wait.place, format!("`{name}`: `{key}` must be more than 0s"));
        }
    }
    for (header, written) in &ship.headers {
        let located = Located { value: header.clone(), place: written.place.clone() };
        if &**header != "authorization" {
            not_protected(&located, found);
        }
        if header.starts_with("webhook-") {
            found.problem(
                &written.place,
                format!("`{name}`: header `{header}` is reserved for the signature"),
            );
        }
        let plain = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if written.prefix.as_deref().is_some_and(|prefix| !plain(prefix)) {
            found.problem(
                &written.place,
                format!("`{name}`: a `prefix` must be visible ASCII, like all header values"),
            );
        }
    }
    let Some(url) = ship.url.as_ref().filter(|url| is_open_to_all(url)) else { return };
    found.warning(
        &url.place,
        format!("the records of `{name}` go over the network in clear text; write `https://`"),
    );
}
