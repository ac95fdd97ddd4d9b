//! Issuers and callers of the copy: the same shapes, with its own keys and secrets.

use std::{fs, io};

use config::{Algorithm, Config, Issuer, IssuerKind, Keys, Located, Name};

use super::{Place, secret, secret_file};
use crate::drill::{
    stand_ins::port,
    tokens::{Mint, keys_file},
};

/// Replaces issuers with stand-ins.
pub(super) fn replace(
    config: &mut Config,
    place: &Place<'_>,
    notes: &mut Vec<String>,
) -> io::Result<Mint> {
    let mut mint = Mint::default();
    let issuers = port(&place.sockets.issuers);
    for (name, issuer) in &mut config.identity.issuers {
        let issuer = &mut issuer.value;
        let base = format!("http://127.0.0.1:{issuers}/{name}");
        let url = |path: &str| {
            let url = format!("{base}{path}").parse();
            Some(Located::nowhere(url.expect("it is an address")))
        };
        let last = issuer.keys.clone();
        let (refresh, age_max) = (last.refresh, last.age_max);
        let mut keys = Keys { refresh, age_max, ..Keys::default() };
        let mut own_secret = None;
        if last.secret_file.is_some() {
            let file = place.folder.join(format!("{name}.secret"));
            let text = secret();
            secret_file(&file, &text)?;
            keys.secret_file = Some(Located::nowhere(file));
            own_secret = Some(text);
        } else if last.file.is_some() {
            keys.file = Some(Located::nowhere(keys_file(place.folder, name)));
        } else if issuer.kind == IssuerKind::Backstage {
            keys.backstage_url = url("");
        } else if last.url.is_some() {
            keys.url = url("/jwks");
        } else {
            // Auth0's ends with a slash.
            let end = if issuer.issuer.ends_with('/') { "/" } else { "" };
            issuer.issuer = format!("{base}{end}");
        }
        if own_secret.is_none() && !issuer.algorithms.contains(&Algorithm::ES256) {
            notes.push(format!("tokens of `{name}` are signed with ES256"));
        }
        if own_secret.is_none() {
            issuer.algorithms = vec![Algorithm::ES256];
        }
        issuer.keys = keys;
        usual(name, issuer, notes);
        mint.add(name, issuer, own_secret);
        if issuer.keys.file.is_some() {
            fs::write(keys_file(place.folder, name), mint.keys(name).to_string())?;
        }
    }
    for (name, token) in &mut config.identity.tokens {
        let file = place.folder.join(format!("{name}.token"));
        secret_file(&file, &secret())?;
        token.value.token_file = Some(Located::nowhere(file));
        token.value.digest_file = None;
    }
    for (name, caller) in &mut config.egress.callers {
        let file = place.folder.join(format!("{name}.password"));
        secret_file(&file, &secret())?;
        caller.value.password_file = Located::nowhere(file);
    }
    Ok(mint)
}

/// Tokens of the copy are in `Authorization` and have `iss` and `aud`, whatever the operator's are like: a
/// drill tests what follows authentication.
fn usual(name: &Name, issuer: &mut Issuer, notes: &mut Vec<String>) {
    let as_written = issuer.clone();
    if issuer.kind == IssuerKind::Orbit {
        issuer.kind = IssuerKind::Oidc;
        issuer.issuer = format!("urn:drill:{name}");
        issuer.audiences = vec!["drill".to_owned()];
    }
    issuer.listeners.clear();
    issuer.token_from = None;
    issuer.audience_claim = None;
    issuer.audience_header = None;
    issuer.required_claims.clear();
    issuer.callers.clear();
    if *issuer != as_written {
        notes.push(format!("tokens of `{name}` are in `Authorization`, for `aud`, on every listener, whatever else is required of them"));
    }
}
