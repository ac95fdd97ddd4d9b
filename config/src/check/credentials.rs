//! Credentials: the keys of each kind, one origin for each, and who may act with them.

use indexmap::IndexMap;

use super::{Findings, not_protected};
use crate::{Class, Config, Credential, CredentialKind, Located, Name, Place, Url};

pub(super) fn check(config: &Config, found: &mut Findings) {
    for (name, credential) in &config.credentials {
        keys(name, credential, found);
        values(config, name, credential, found);
    }
    bound(config, found);
    shared(config, found);
}

/// Which keys a credential has, and which it needs.
fn keys(name: &Name, credential: &Located<Credential>, found: &mut Findings) {
    use CredentialKind as K;
    let c = &credential.value;
    let all = [
        ("username", K::Basic, true, c.username.is_some()),
        ("password_file", K::Basic, true, c.password_file.is_some()),
        ("header", K::Header, false, c.header.is_some()),
        ("prefix", K::Header, false, c.prefix.is_some()),
        ("value_file", K::Header, true, c.value_file.is_some()),
        ("token_url", K::ClientCredentials, true, c.token_url.is_some()),
        ("client_id", K::ClientCredentials, true, c.client_id.is_some()),
        ("client_secret_file", K::ClientCredentials, true, c.client_secret_file.is_some()),
        ("client_auth", K::ClientCredentials, false, c.client_auth.is_some()),
        ("scopes", K::ClientCredentials, false, !c.scopes.is_empty()),
        ("audience", K::ClientCredentials, false, c.audience.is_some()),
        ("ca", K::ClientCredentials, false, c.ca.is_some()),
        ("key_id", K::SpaceliftApiKey, true, c.key_id.is_some()),
        ("key_secret_file", K::SpaceliftApiKey, true, c.key_secret_file.is_some()),
        ("token_url", K::SpaceliftApiKey, true, c.token_url.is_some()),
        ("ca", K::SpaceliftApiKey, false, c.ca.is_some()),
    ];
    for (key, kind, needed, given) in all {
        if kind == c.kind && needed && !given {
            found.problem(
                &credential.place,
                format!("`{name}` is of kind `{}` and needs `{key}`", kind.name()),
            );
        }
        if kind != c.kind && given && !all.iter().any(|(k, kind, ..)| *k == key && *kind == c.kind)
        {
            found.problem(
                &credential.place,
                format!("`{name}`: `{key}` goes with kind `{}`; remove it", kind.name()),
            );
        }
    }
}

fn values(config: &Config, name: &Name, credential: &Located<Credential>, found: &mut Findings) {
    let place = &credential.place;
    let plain = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if let Some(username) = &credential.username
        && (username.contains(':') || username.chars().any(char::is_control))
    {
        found.problem(place, format!("`{name}`: a `username` has no colon (RFC 7617)"));
    }
    if credential.prefix.as_deref().is_some_and(|prefix| !plain(prefix)) {
        found.problem(place, format!("`{name}`: a `prefix` is visible ASCII, as headers are"));
    }
    // RFC 6749 3.3: they are sent as one text, with spaces between them.
    let token =
        |scope: &str| !scope.is_empty() && plain(scope) && !scope.contains([' ', '"', '\\']);
    if let Some(scope) = credential.scopes.iter().find(|scope| !token(scope)) {
        found.problem(
            place,
            format!("`{name}`: `{}` is not one scope; write `[a, b]`", scope.escape_debug()),
        );
    }
    if let Some(url) = &credential.token_url
        && is_open_to_all(url)
    {
        found.warning(
            &url.place,
            format!("the secret of `{name}` goes over the network in the clear; write `https://`"),
        );
    }
    let Some(header) = &credential.header else { return };
    if &***header != "authorization" {
        not_protected(header, found);
    }
    let headers = &config.headers;
    let ours = [&headers.workspace, &headers.caller, &headers.plugin, &headers.assertion];
    let forwarded = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    if ours.iter().any(|own| own.value == header.value)
        || forwarded.contains(&&***header)
        || &***header == "x-request-id"
    {
        found.problem(
            &header.place,
            format!("header `{}` says something else already; take another", header.value),
        );
    }
}

/// Each credential goes to one origin and no other.
fn bound(config: &Config, found: &mut Findings) {
    let mut origins: IndexMap<&Name, (&Name, &Url)> = IndexMap::new();
    for (upstream, written) in &config.upstreams {
        let Some(named) = &written.credential else { continue };
        if !config.credentials.contains_key(&named.value) {
            if !found.cuts.may_name(&["credentials"], named) {
                let hint = crate::de::suggestion(named, &found.cuts.names(&["credentials"]));
                found.problem(&named.place, format!("no credential `{}`; {hint}", named.value));
            }
            continue;
        }
        let url = &written.url;
        let (first, origin) = *origins.entry(&named.value).or_insert((upstream, url));
        if (origin.tls, &origin.host, origin.port) != (url.tls, &url.host, url.port) {
            found.problem(
                &named.place,
                format!(
                    "credential `{}` is for `{origin}`, where `{first}` is; `{upstream}` is elsewhere and needs one of its own",
                    named.value
                ),
            );
        }
        if is_open_to_all(url) {
            found.warning(
                &url.place,
                format!(
                    "credential `{}` goes over the network in the clear; write `https://`",
                    named.value
                ),
            );
        }
    }
    for (name, credential) in &config.credentials {
        if !origins.contains_key(name) {
            found.warning(&credential.place, format!("no upstream shows credential `{name}`"));
        }
    }
}

/// A key that many act with needs a rule that says who they are.
fn shared(config: &Config, found: &mut Findings) {
    let routes = config.all_routes();
    let mut open: IndexMap<(&Place, &Name), Vec<String>> = IndexMap::new();
    for route in &routes {
        let upstream = config.upstreams.get(&route.upstream.value);
        let Some(credential) = upstream.and_then(|upstream| upstream.credential.as_ref()) else {
            continue;
        };
        let options = &route.options;
        if route.class == Class::Action && !options.closed && options.access.is_open() {
            let names = open.entry((&route.place, &credential.value)).or_default();
            names.push(format!("`{}`", route.name));
        }
    }
    for ((place, credential), names) in open {
        let of_preset = config.presets.iter().any(|used| used.place == *place);
        let key = if of_preset { "actions" } else { "access" };
        found.warning(
            place,
            format!(
                "whoever passes acts with credential `{credential}` on {}; name roles, groups or callers in `{key}`",
                names.join(", ")
            ),
        );
    }
}

/// Whether others could read what is sent there.
fn is_open_to_all(url: &Url) -> bool {
    let loopback = url.host == "localhost" || url.ip().is_some_and(|ip| ip.is_loopback());
    !url.tls && !loopback
}
