//! Issuers: where keys are, which algorithms go together.

use super::{Findings, is_unknown_workspace};
use crate::{Config, Issuer, IssuerKind, Located, Name};

pub(super) fn check(config: &Config, found: &mut Findings) {
    let issuers: Vec<_> = config.identity.issuers.iter().collect();
    for (index, (name, issuer)) in issuers.iter().enumerate() {
        if let Some((other, _)) = issuers[..index].iter().find(|(_, i)| i.issuer == issuer.issuer) {
            found.problem(&issuer.place, format!("`{name}` and `{other}` have the same `issuer`"));
        }
        one(name, issuer, found);
    }
    let certificates_asked = config
        .listeners
        .values()
        .any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
    if let Some(caller) = config.identity.client_certificates.first()
        && !certificates_asked
        && !found.cuts.touch(&["listeners"])
    {
        found.problem(
            &caller.place,
            "no listener asks for client certificates; set `tls.client_ca` on one",
        );
    }
    for caller in &config.identity.client_certificates {
        for workspace in &caller.workspaces {
            if is_unknown_workspace(config, workspace, found) {
                found.problem(
                    &caller.place,
                    format!("no workspace `{workspace}` in `workspaces.named`"),
                );
            }
        }
    }
}

fn one(name: &Name, issuer: &Located<Issuer>, found: &mut Findings) {
    let place = &issuer.place;
    let keys = &issuer.keys;
    let sources = [
        ("url", keys.url.is_some()),
        ("file", keys.file.is_some()),
        ("secret_file", keys.secret_file.is_some()),
        ("backstage_url", keys.backstage_url.is_some()),
    ];
    let given: Vec<&str> = sources.iter().filter(|(_, is)| *is).map(|(key, _)| *key).collect();
    if given.len() > 1 {
        found.problem(place, format!("`{name}` has keys at {}; keep one", given.join(" and ")));
    }
    if issuer.algorithms.is_empty() {
        found.problem(
            place,
            format!("`{name}` has no algorithm; write for example `algorithms: [RS256]`"),
        );
    }
    let hmac = issuer.algorithms.iter().filter(|algorithm| algorithm.is_hmac()).count();
    match (keys.secret_file.is_some(), hmac) {
        (true, hmac) if hmac < issuer.algorithms.len() || hmac == 0 => found.problem(
            place,
            format!("`{name}` has a secret: its algorithms are HS256, HS384, HS512 and no other"),
        ),
        (false, 1..) => found.problem(
            place,
            format!(
                "`{name}` allows HMAC without `keys.secret_file`: a public key would be its secret"
            ),
        ),
        _ => {}
    }
    match issuer.kind {
        IssuerKind::Oidc => {
            if issuer.audiences.is_empty() {
                found.problem(
                    place,
                    format!(
                        "`{name}` has no `audiences`: tokens made for others would pass; list ours"
                    ),
                );
            }
            if keys.backstage_url.is_some() {
                found.problem(
                    place,
                    format!("`{name}` has `backstage_url` but is not `kind: backstage`"),
                );
            }
            let discovery = given.is_empty();
            if discovery
                && !issuer.issuer.starts_with("https://")
                && !issuer.issuer.starts_with("http://")
            {
                found.problem(
                    place,
                    format!("`{}` is no address to discover keys at; set `keys.url`, `file` or `secret_file`", issuer.issuer),
                );
            }
        }
        IssuerKind::Backstage if keys.backstage_url.is_none() => {
            found.problem(place, format!("`{name}` needs `keys: {{backstage_url: http://...}}`"));
        }
        IssuerKind::Backstage => {}
    }
}
