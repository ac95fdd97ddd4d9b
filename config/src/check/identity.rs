//! Issuers: where keys are, which algorithms go together.

use super::{Findings, is_unknown_workspace};
use crate::{Config, Issuer, IssuerKind, Located, Name};

pub(super) fn check(config: &Config, found: &mut Findings) {
    let issuers: Vec<_> = config.identity.issuers.iter().collect();
    for (index, (name, issuer)) in issuers.iter().enumerate() {
        let same = |other: &Issuer| !issuer.issuer.is_empty() && other.issuer == issuer.issuer;
        if let Some((other, _)) = issuers[..index].iter().find(|(_, other)| same(other)) {
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
    audience(name, issuer, found);
    let hmac = issuer.algorithms.iter().filter(|algorithm| algorithm.is_hmac()).count();
    match (keys.secret_file.is_some(), hmac) {
        (true, hmac) if hmac < issuer.algorithms.len() || hmac == 0 => found.problem(
            place,
            format!("`{name}` has a secret, so its algorithms can only be HS256, HS384 and HS512"),
        ),
        (false, 1..) => found.problem(
            place,
            format!(
                "`{name}` allows HMAC without `keys.secret_file`: a public key would then work as the secret"
            ),
        ),
        _ => {}
    }
    if issuer.issuer.is_empty() && issuer.kind != IssuerKind::Orbit {
        found.problem(
            place,
            format!("`issuer` is missing in `identity.issuers.{name}`; write the exact `iss` of its tokens"),
        );
        return;
    }
    match issuer.kind {
        IssuerKind::Oidc => {
            if issuer.audiences.is_empty() {
                found.problem(
                    place,
                    format!(
                        "`{name}` has no `audiences`: tokens made for other services would be accepted; list ours, or if its tokens have no `aud`, name where the audience is, for example `audience_claim: client_id`"
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
                    format!("`{}` is not a URL for key discovery; set `keys.url`, `file` or `secret_file`", issuer.issuer),
                );
            }
        }
        IssuerKind::Backstage if keys.backstage_url.is_none() => {
            found.problem(place, format!("`{name}` needs `keys: {{backstage_url: http://...}}`"));
        }
        IssuerKind::Backstage => {}
        IssuerKind::Orbit => {
            if !issuer.issuer.is_empty() || !issuer.audiences.is_empty() {
                found.problem(
                    place,
                    format!(
                        "tokens of `kind: orbit` have no `iss` and no `aud`; remove `issuer` and `audiences` from `{name}`, or write `kind: oidc` if its tokens have them"
                    ),
                );
            }
            if keys.secret_file.is_none() {
                found.problem(
                    place,
                    format!(
                        "`{name}` has no secret; write `algorithms: [HS256]` and `keys: {{secret_file: /run/secrets/orbit}}`"
                    ),
                );
            }
        }
    }
}

/// What else than `aud` may say whom a token is for, and what else it must say.
fn audience(name: &Name, issuer: &Located<Issuer>, found: &mut Findings) {
    const OF_ALL: &[&str] = &["iss", "sub", "exp", "nbf", "iat", "jti"];
    const OF_THE_KEY: &[&str] = &["alg", "typ", "kid", "cty"];
    let place = &issuer.place;
    let elsewhere = issuer.audience_claim.is_some() || issuer.audience_header.is_some();
    if elsewhere && issuer.kind != IssuerKind::Oidc {
        found.problem(
            place,
            format!("`audience_claim` and `audience_header` need `kind: oidc`; remove them from `{name}`"),
        );
    }
    if issuer.audience_claim.is_some() && issuer.audience_header.is_some() {
        found.problem(
            place,
            format!("`{name}` has `audience_claim` and `audience_header`; keep one"),
        );
    }
    let claim = issuer.audience_claim.as_ref().and_then(|claim| claim.0.first());
    let claim = claim.filter(|claim| OF_ALL.contains(&claim.as_str()));
    let header = issuer.audience_header.as_ref();
    let header = header.filter(|name| name.is_empty() || OF_THE_KEY.contains(&name.as_str()));
    if let Some(wrong) = claim.or(header) {
        found.problem(place, format!("`{wrong}` of a token of `{name}` does not name an audience"));
    }
    let empty = issuer.required_claims.iter().find(|(_, texts)| texts.is_empty());
    if let Some((claim, _)) = empty {
        found.problem(
            place,
            format!(
                "`required_claims.{claim}` of `{name}` allows nothing; write for example `[access]`"
            ),
        );
    }
    if issuer.kind == IssuerKind::Backstage
        && (!issuer.callers.is_empty() || !issuer.required_claims.is_empty())
    {
        found.problem(
            place,
            format!("`callers` and `required_claims` do not apply to Backstage's tokens; remove them from `{name}`"),
        );
    }
}
