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
    const CLIENTS: &[K] = &[K::ClientCredentials, K::TokenExchange];
    const ASKED: &[K] = &[K::ClientCredentials, K::TokenExchange, K::SpaceliftApiKey];
    const FETCHED: &[K] =
        &[K::ClientCredentials, K::TokenExchange, K::GithubApp, K::SpaceliftApiKey];
    let c = &credential.value;
    let all: [(&str, &[K], bool, bool); 24] = [
        ("username", &[K::Basic], true, c.username.is_some()),
        ("password_file", &[K::Basic], true, c.password_file.is_some()),
        ("header", &[K::Header], false, c.header.is_some()),
        ("prefix", &[K::Header], false, c.prefix.is_some()),
        ("value_file", &[K::Header], true, c.value_file.is_some()),
        ("token_url", ASKED, true, c.token_url.is_some()),
        ("client_id", CLIENTS, true, c.client_id.is_some()),
        ("client_secret_file", CLIENTS, true, c.client_secret_file.is_some()),
        ("client_auth", CLIENTS, false, c.client_auth.is_some()),
        ("scopes", CLIENTS, false, !c.scopes.is_empty()),
        ("audience", CLIENTS, false, c.audience.is_some()),
        ("resource", &[K::TokenExchange], false, c.resource.is_some()),
        ("issuers", &[K::TokenExchange], false, !c.issuers.is_empty()),
        ("subject_token_type", &[K::TokenExchange], false, c.subject_token_type.is_some()),
        ("requested_token_type", &[K::TokenExchange], false, c.requested_token_type.is_some()),
        ("api", &[K::GithubApp], false, c.api.is_some()),
        ("app_id", &[K::GithubApp], true, c.app_id.is_some()),
        ("installation_id", &[K::GithubApp], true, c.installation_id.is_some()),
        ("private_key_file", &[K::GithubApp], true, c.private_key_file.is_some()),
        ("repositories", &[K::GithubApp], false, !c.repositories.is_empty()),
        ("permissions", &[K::GithubApp], false, !c.permissions.is_empty()),
        ("ca", FETCHED, false, c.ca.is_some()),
        ("key_id", &[K::SpaceliftApiKey], true, c.key_id.is_some()),
        ("key_secret_file", &[K::SpaceliftApiKey], true, c.key_secret_file.is_some()),
    ];
    for (key, kinds, needed, given) in all {
        let fits = kinds.contains(&c.kind);
        if fits && needed && !given {
            found.problem(
                &credential.place,
                format!("`{name}` is of kind `{}` and needs `{key}`", c.kind.name()),
            );
        }
        if !fits && given {
            let kinds: Vec<String> =
                kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
            found.problem(
                &credential.place,
                format!("`{name}`: `{key}` is only for kind {}; remove it", kinds.join(" or ")),
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
        found.problem(place, format!("`{name}`: a `username` must not contain a colon (RFC 7617)"));
    }
    if credential.prefix.as_deref().is_some_and(|prefix| !plain(prefix)) {
        found.problem(
            place,
            format!("`{name}`: a `prefix` must be visible ASCII, like all header values"),
        );
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
    if let Some(url) = credential.token_url.as_ref().or(credential.api.as_ref())
        && is_open_to_all(url)
    {
        found.warning(
            &url.place,
            format!("the secret of `{name}` goes over the network in clear text; write `https://`"),
        );
    }
    exchange(config, name, credential, found);
    github(name, credential, found);
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
            format!("header `{}` already has another meaning; use a different one", header.value),
        );
    }
}

/// What only a token that is exchanged can get wrong.
fn exchange(config: &Config, name: &Name, credential: &Located<Credential>, found: &mut Findings) {
    if credential.kind != CredentialKind::TokenExchange {
        return;
    }
    // RFC 8693 2.1: an absolute URI without a fragment.
    let absolute = |text: &str| {
        text.bytes().all(|b| b.is_ascii_graphic())
            && text.split_once(':').is_some_and(|(scheme, rest)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty()
            })
            && !text.contains('#')
    };
    if credential.resource.as_deref().is_some_and(|resource| !absolute(resource)) {
        found.problem(
            &credential.place,
            format!("`{name}`: a `resource` is a full URL, such as `https://api.example`; a name goes in `audience`"),
        );
    }
    let path = &["identity", "issuers"];
    for named in &credential.issuers {
        if !config.identity.issuers.contains_key(&named.value) && !found.cuts.may_name(path, named)
        {
            let names: Vec<&str> = config.identity.issuers.keys().map(|name| &**name).collect();
            let hint = crate::de::suggestion(named, &names);
            found.problem(&named.place, format!("no issuer `{}`; {hint}", named.value));
        }
    }
    if found.cuts.touch(path) {
        return;
    }
    if config.identity.issuers.len() > 1 && credential.issuers.is_empty() {
        let first = config.identity.issuers.keys().next().map_or("", |name| &**name);
        found.problem(
            &credential.place,
            format!("`{name}` would send the tokens of every issuer to `token_url`; name the issuers that it accepts, for example `issuers: [{first}]`"),
        );
    }
    if config.identity.issuers.is_empty() {
        found.problem(
            &credential.place,
            format!("`{name}` exchanges callers' tokens, but without `identity.issuers` callers have none; add an issuer, or write kind `oauth2_client_credentials`"),
        );
    }
}

/// What only a GitHub App can get wrong.
fn github(name: &Name, credential: &Located<Credential>, found: &mut Findings) {
    let place = &credential.place;
    let id = |text: &str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if let Some(app) = credential.app_id.as_deref().filter(|app| !id(app)) {
        found.problem(
            place,
            format!(
                "`{name}`: `{}` is not an `app_id`; write the app's client id, or its number in quotes",
                app.escape_debug()
            ),
        );
    }
    if let Some(repository) = credential.repositories.iter().find(|name| !id(name)) {
        let own = repository.rsplit('/').next().filter(|own| id(own)).unwrap_or("shop");
        found.problem(
            place,
            format!(
                "`{name}`: `{}` is not a repository's name; write `{own}`, without its owner",
                repository.escape_debug()
            ),
        );
    }
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if let Some(permission) = credential.permissions.keys().find(|name| !is_word(name)) {
        found.problem(
            place,
            format!(
                "`{name}`: `{}` is not a permission; write it as GitHub's API does, for example `pull_requests`",
                permission.escape_debug()
            ),
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
                    "credential `{}` is for `{origin}`, where `{first}` is; `{upstream}` is somewhere else and needs its own",
                    named.value
                ),
            );
        }
        if is_open_to_all(url) {
            found.warning(
                &url.place,
                format!(
                    "credential `{}` goes over the network in clear text; write `https://`",
                    named.value
                ),
            );
        }
    }
    for (name, credential) in &config.credentials {
        if !origins.contains_key(name) {
            found.warning(&credential.place, format!("no upstream uses credential `{name}`"));
        }
    }
}

/// A key that many act with needs a rule that says who they are, and what is made from a caller's token
/// needs a caller.
fn shared(config: &Config, found: &mut Findings) {
    let routes = config.all_routes();
    let mut open: IndexMap<(&Place, &Name), Vec<String>> = IndexMap::new();
    for route in &routes {
        let upstream = config.upstreams.get(&route.upstream.value);
        let Some(credential) = upstream.and_then(|upstream| upstream.credential.as_ref()) else {
            continue;
        };
        let options = &route.options;
        let kind = config.credentials.get(&credential.value).map(|credential| credential.kind);
        if kind == Some(CredentialKind::TokenExchange) {
            if options.public && !options.closed {
                found.problem(
                    &route.place,
                    format!(
                        "route `{}` is public, and credential `{}` exchanges the caller's token; remove `public`, or use an upstream with another credential",
                        route.name, credential.value
                    ),
                );
            }
            continue;
        }
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
                "every caller that passes acts with credential `{credential}` on {}; name roles, groups or callers in `{key}`",
                names.join(", ")
            ),
        );
    }
}

/// Whether others could read what is sent there.
pub(super) fn is_open_to_all(url: &Url) -> bool {
    !url.tls && !is_this_machine(&url.host)
}

/// Whether nobody else could read what is sent there.
pub(super) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
