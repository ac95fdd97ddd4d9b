//! Where tokens stand, what else they must say, and on which listeners they count.

use super::{Findings, credentials::is_open_to_all, is_unknown_workspace, not_protected};
use crate::{
    ClaimCaller, Config, Issuer, IssuerKind, ListenerKind, Located, Name, StaticToken, Url,
};

pub(super) fn check(config: &Config, found: &mut Findings) {
    for (name, issuer) in &config.identity.issuers {
        listeners(config, name, &issuer.listeners, found);
        in_header(config, name, issuer, found);
        in_the_clear(name, issuer, found);
        for caller in &issuer.callers {
            by_claims(config, name, caller, found);
        }
        if issuer.kind == IssuerKind::Orbit {
            alone(config, name, issuer, found);
        }
    }
    for (name, token) in &config.identity.tokens {
        opaque(config, name, token, found);
    }
}

fn listeners(config: &Config, name: &Name, named: &[Located<Name>], found: &mut Findings) {
    for listener in named {
        let message = match config.listeners.get(&listener.value) {
            None if found.cuts.may_name(&["listeners"], listener) => continue,
            None => format!("no listener `{}`", listener.value),
            Some(l) if !matches!(l.kind, ListenerKind::Reverse | ListenerKind::Forward) => {
                format!("listener `{}` accepts no tokens; remove it from `{name}`", listener.value)
            }
            Some(_) => continue,
        };
        found.problem(&listener.place, message);
    }
}

fn in_header(config: &Config, name: &Name, issuer: &Located<Issuer>, found: &mut Findings) {
    let Some(from) = &issuer.token_from else { return };
    let header = &from.header;
    if issuer.kind != IssuerKind::Oidc {
        found.problem(
            &header.place,
            format!("`token_from` needs `kind: oidc`; remove it from `{name}`"),
        );
    }
    not_protected(header, found);
    let headers = &config.headers;
    let ours = [&headers.workspace, &headers.caller, &headers.plugin, &headers.assertion];
    if ours.iter().any(|own| own.value == header.value) {
        found.problem(
            &header.place,
            format!("header `{}` is one of ours; use a different one", header.value),
        );
    }
    let counts = |listener: &Name| {
        issuer.listeners.is_empty() || issuer.listeners.iter().any(|own| own.value == *listener)
    };
    let trusts = config.listeners.iter().any(|(listener, written)| {
        written.kind == ListenerKind::Reverse
            && counts(listener)
            && !written.trusted_proxies.is_empty()
    });
    if !trusts && !found.cuts.touch(&["listeners"]) {
        found.problem(
            &header.place,
            format!(
                "`{}` is accepted only from trusted proxies, and no listener has any; write `trusted_proxies: [10.0.0.0/8]` on the listener behind the proxy",
                header.value
            ),
        );
    }
}

/// Keys that come in the clear are whoever's who is on the way.
fn in_the_clear(name: &Name, issuer: &Located<Issuer>, found: &mut Findings) {
    let keys = &issuer.keys;
    let in_file = keys.file.is_some() || keys.secret_file.is_some();
    if let Some(file) = keys.token_file.as_ref().filter(|_| in_file) {
        found.problem(
            &file.place,
            format!("the keys of `{name}` are in a file and not fetched; remove `token_file`"),
        );
    }
    if in_file {
        return;
    }
    let written = keys.url.as_ref().or(keys.backstage_url.as_ref());
    let discovered = issuer.issuer.parse::<Url>().ok();
    let (place, url) = match (written, &discovered) {
        (Some(written), _) => (&written.place, &written.value),
        (None, Some(url)) => (&issuer.place, url),
        (None, None) => return,
    };
    // Also on this machine: the other end proves nothing there, and whoever has the port has the token.
    if let Some(file) = keys.token_file.as_ref().filter(|_| !url.tls) {
        found.problem(
            &file.place,
            format!("the token of `{name}` would go to `{url}` in clear text; write `https://`"),
        );
    } else if is_open_to_all(url) && !keys.insecure_http {
        found.problem(
            place,
            format!(
                "anyone on the network path to `{url}` could sign tokens of `{name}`; write `https://`, or `keys: {{insecure_http: true}}` if that network is yours alone"
            ),
        );
    }
}

fn by_claims(config: &Config, name: &Name, caller: &Located<ClaimCaller>, found: &mut Findings) {
    if caller.claims.values().all(crate::ClaimPattern::is_open) {
        found.problem(
            &caller.place,
            format!(
                "every token of `{name}` would match; write for example `claims: {{repository: acme/shop}}`"
            ),
        );
    }
    if caller.caller.as_ref().is_some_and(String::is_empty) {
        found.problem(&caller.place, "`caller` is empty; write for example `service:shop-deploy`");
    }
    workspaces(config, caller, &caller.workspaces, found);
}

fn workspaces<T>(config: &Config, at: &Located<T>, named: &[Name], found: &mut Findings) {
    for workspace in named {
        if is_unknown_workspace(config, workspace, found) {
            found.problem(&at.place, format!("no workspace `{workspace}` in `workspaces.named`"));
        }
    }
}

/// Whoever has the secret can make tokens that name nobody: they must not meet others.
fn alone(config: &Config, name: &Name, issuer: &Located<Issuer>, found: &mut Findings) {
    let place = &issuer.place;
    if issuer.listeners.is_empty() {
        found.problem(
            place,
            format!(
                "tokens of `{name}` name neither issuer nor audience, so they need listeners that accept no other tokens; write `listeners: [..]`"
            ),
        );
    }
    for listener in &issuer.listeners {
        let is_own = |named: &[Located<Name>]| named.iter().any(|l| l.value == listener.value);
        let issuers = config.identity.issuers.iter();
        let other = issuers.filter(|(other, _)| *other != name);
        let other = other.filter(|(_, other)| is_own(&other.listeners)).map(|(name, _)| name);
        let tokens = config.identity.tokens.iter();
        let other = other.chain(tokens.filter(|(_, t)| is_own(&t.listeners)).map(|(name, _)| name));
        for other in other {
            found.problem(
                &listener.place,
                format!(
                    "listener `{}` takes the tokens of `{name}`, which name no issuer, and can accept no others; remove it from `{other}`, or give `{name}` a different one",
                    listener.value
                ),
            );
        }
        let Some(written) = config.listeners.get(&listener.value) else { continue };
        if written.kind != ListenerKind::Reverse {
            found.problem(
                &listener.place,
                format!("listener `{}` is not of kind `reverse`", listener.value),
            );
        }
        let certificates = written.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if certificates && !config.identity.client_certificates.is_empty() {
            found.problem(
                &listener.place,
                format!(
                    "listener `{}` takes the tokens of `{name}`, which name no issuer, and can accept no client certificates; remove its `client_ca`",
                    listener.value
                ),
            );
        }
    }
}

fn opaque(config: &Config, name: &Name, token: &Located<StaticToken>, found: &mut Findings) {
    let place = &token.place;
    match (&token.token_file, &token.digest_file) {
        (Some(_), None) | (None, Some(_)) => {}
        (None, None) => found.problem(
            place,
            format!("`{name}` has no token; write `token_file: /run/secrets/{name}`"),
        ),
        (Some(_), Some(_)) => {
            found.problem(place, format!("`{name}` has `token_file` and `digest_file`; keep one"));
        }
    }
    if token.caller.is_empty() {
        found.problem(place, format!("`{name}` names no caller; write `caller: external:{name}`"));
    }
    workspaces(config, token, &token.workspaces, found);
    listeners(config, name, &token.listeners, found);
}

#[cfg(test)]
mod tests {
    #[track_caller]
    fn told(identity: &str) -> String {
        let text = format!(
            "version: stagedoor/v1
listeners:
  edge: {{kind: reverse, address: '127.0.0.1:1', trusted_proxies: [10.0.0.0/8]}}
  own: {{kind: reverse, address: '127.0.0.1:2'}}
  out: {{kind: forward, address: '127.0.0.1:3', plugin: catalog}}
  admin: {{kind: admin, address: '127.0.0.1:4'}}
workspaces: {{named: {{payments: {{}}}}}}
identity: {{{identity}}}
"
        );
        match crate::parse("t", &text) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        }
    }

    #[track_caller]
    fn of_identity(identity: &str, expected: &str) {
        let told = told(identity);
        assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{told}");
    }

    /// An issuer of the web, with more.
    #[track_caller]
    fn check(more: &str, expected: &str) {
        let issuer = "issuer: 'https://idp.example', audiences: [a], keys: {file: f}";
        of_identity(&format!("issuers: {{idp: {{{issuer}, {more}}}}}"), expected);
    }

    /// Tokens of Orbit, with more beside the issuer.
    #[track_caller]
    fn orbit(more: &str, beside: &str, expected: &str) {
        let issuer = "kind: orbit, algorithms: [HS256], keys: {secret_file: s}";
        of_identity(&format!("issuers: {{orbit: {{{issuer}, {more}}}{beside}}}"), expected);
    }

    #[test]
    fn a_header_is_believed_only_behind_proxies() {
        check("token_from: {header: x-goog-iap-jwt-assertion}", "");
        check("token_from: {header: x-amzn-oidc-data, padding: allowed, preserve: true}", "");
        check("listeners: [own], token_from: {header: x-a}", "write `trusted_proxies");
        check("listeners: [out], token_from: {header: x-a}", "write `trusted_proxies");
        check("token_from: {header: authorization}", "belongs to HTTP");
        check("token_from: {header: x-orbit-user-id}", "is one of ours");
        check("token_from: {}", "`header` is missing");
        check("token_from: {header: x-a, padding: yes}", "`refused`, `allowed`");
    }

    #[test]
    fn another_place_for_the_audience_is_one_that_can_say_it() {
        check("audience_claim: client_id, required_claims: {token_use: [access]}", "");
        check("audience_header: signer", "");
        check("audience_claim: a, audience_header: b", "keep one");
        check("audience_claim: sub", "does not name an audience");
        check("audience_header: kid", "does not name an audience");
        check("required_claims: {token_use: []}", "write for example");
        of_identity(
            "issuers: {cognito: {issuer: 'https://idp.example', authorized_parties: [app-1], keys: {file: jwks.json}}}",
            "`audience_claim: client_id`",
        );
    }

    #[test]
    fn keys_in_the_clear_need_leave() {
        let url = |url: &str, more: &str, expected: &str| {
            let keys = format!("keys: {{url: '{url}'{more}}}");
            of_identity(
                &format!("issuers: {{idp: {{issuer: i, audiences: [a], {keys}}}}}"),
                expected,
            );
        };
        url("https://idp.example/k", "", "");
        url("http://127.0.0.1:7/k", "", "");
        url("http://[::1]:7/k", "", "");
        url("http://localhost:7/k", "", "");
        url("http://idp.example/k", "", "write `https://`, or `keys: {insecure_http: true}`");
        url("http://127.0.0.1.evil.example/k", "", "insecure_http");
        url("http://localhost.evil.example/k", "", "insecure_http");
        url("http://idp.example/k", ", insecure_http: true", "");
        url("http://idp.example/k", ", insecure_http: true, token_file: t", "in clear text");
        url("http://127.0.0.1:7/k", ", token_file: t", "write `https://`");
        url("http://localhost:7/k", ", token_file: t", "in clear text");
        url("https://k8s.example/k", ", token_file: t", "");
        of_identity(
            "issuers: {k: {issuer: 'http://127.0.0.1:1', audiences: [a], keys: {token_file: t}}}",
            "in clear text",
        );
        of_identity("issuers: {idp: {issuer: 'http://idp.example', audiences: [a]}}", "insecure");
        of_identity("issuers: {idp: {issuer: 'http://127.0.0.1:1', audiences: [a]}}", "");
        let backstage = |url: &str| {
            format!(
                "issuers: {{p: {{kind: backstage, issuer: 'http://p.example/api/auth', keys: {{backstage_url: '{url}'}}}}}}"
            )
        };
        of_identity(&backstage("http://127.0.0.1:7007"), "");
        of_identity(&backstage("http://backstage.portal.svc:7007"), "insecure_http");
        check("algorithms: [RS256]", "");
        of_identity(
            "issuers: {idp: {issuer: i, audiences: [a], keys: {file: f, token_file: t}}}",
            "remove `token_file`",
        );
    }

    #[test]
    fn callers_by_claims_are_some_and_not_all() {
        let callers = |caller: &str| format!("callers: [{{{caller}}}]");
        check(&callers("claims: {sub: 'repo:acme/*:ref:refs/heads/main'}"), "");
        check(&callers("claims: {sub: x}, caller: 'service:x', workspaces: [payments]"), "");
        check(&callers("claims: {}"), "every token");
        check(&callers("claims: {sub: '**', ref: '*'}"), "every token");
        check(&callers("claims: {sub: x}, workspaces: [ghost]"), "no workspace `ghost`");
        check(&callers("claims: {sub: ''}"), "is not a pattern");
        check(&callers("claims: {sub: x}, caller: ''"), "`caller` is empty");
        check("listeners: [ghost]", "no listener `ghost`");
        check("listeners: [admin]", "accepts no tokens");
    }

    #[test]
    fn tokens_that_name_nobody_need_a_listener_of_their_own() {
        let idp = ", idp: {issuer: 'https://idp.example', audiences: [a]}";
        orbit("listeners: [own], claims: {roles: role}", idp, "");
        orbit("claims: {roles: role}", idp, "write `listeners: [..]`");
        orbit("listeners: [own], issuer: orbit", "", "`kind: oidc`");
        orbit("listeners: [own], audiences: [stagedoor]", "", "`kind: oidc`");
        orbit("listeners: [out]", "", "not of kind `reverse`");
        orbit("listeners: [own], token_from: {header: x-a}", "", "`token_from` needs");
        let here = ", idp: {issuer: 'https://idp.example', audiences: [a], listeners: [own]}";
        orbit("listeners: [own]", here, "remove it from `idp`");
        let other =
            ", b: {kind: orbit, listeners: [own], algorithms: [HS256], keys: {secret_file: s}}";
        orbit("listeners: [own]", other, "remove it from `b`");
        of_identity(
            "issuers: {orbit: {kind: orbit, listeners: [own], keys: {file: f}}}",
            "keys: {secret_file:",
        );
        let tokens = "issuers: {orbit: {kind: orbit, listeners: [own], algorithms: [HS256], keys: {secret_file: s}}}, tokens: {ci: {token_file: t, caller: ci, listeners: [own]}}";
        of_identity(tokens, "remove it from `ci`");
    }

    #[test]
    fn an_opaque_token_is_in_one_file_and_somebodys() {
        let of = |more: &str, expected: &str| {
            of_identity(&format!("tokens: {{ci: {{{more}}}}}"), expected);
        };
        of("token_file: t, caller: 'external:ci', workspaces: [payments]", "");
        of("digest_file: t, caller: 'external:ci', listeners: [edge]", "");
        of("caller: ci", "write `token_file:");
        of("token_file: t, digest_file: t, caller: ci", "keep one");
        of("token_file: t", "`caller` is missing");
        of("token_file: t, caller: ''", "names no caller");
        of("token_file: t, caller: ci, workspaces: [ghost]", "no workspace `ghost`");
        of("token_file: t, caller: ci, listeners: [ghost]", "no listener `ghost`");
        of("token: secret, caller: ci", "unknown key `token`");
    }

    #[test]
    fn a_choice_has_what_it_needs() {
        let of = |workspaces: &str, expected: &str| {
            let text = format!(
                "version: stagedoor/v1
listeners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}
workspaces: {{named: {{payments: {{}}}}, {workspaces}}}
identity: {{issuers: {{idp: {{issuer: 'https://idp.example', audiences: [a], keys: {{file: f}}}}}}}}
"
            );
            let told = match crate::parse("t", &text) {
                Ok(_) => String::new(),
                Err(problems) => problems.to_string(),
            };
            assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{told}");
        };
        of("choose_by: [header, cookie, default], default: payments", "");
        of("choose_by: [cookie], cookie: ws", "");
        of("choose_by: [cookie], cookie: 'a b'", "is not a cookie name");
        of("choose_by: [header, default]", "write `default: ");
        of("default: payments", "add `default` to `choose_by`");
        of("choose_by: [default], default: ghost", "no workspace `ghost`");
        of("choose_by: [host]", "write `hosts: ");
        of("choose_by: [host], hosts: ['*.kube.example.com']", "");
        of("choose_by: [host], hosts: [kube.example.com]", "`*.kube.example.com`");
        of("hosts: ['*.kube.example.com']", "add `host` to `choose_by`");
        of("choose_by: [claim]", "default_workspace");
    }
}
