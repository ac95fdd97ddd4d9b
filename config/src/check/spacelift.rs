//! An API key of Spacelift's: whoever passes is an administrator there, so what passes must be said.

use super::Findings;
use crate::{Config, CredentialKind};

pub(super) fn check(config: &Config, found: &mut Findings) {
    let routes = config.all_routes();
    for (upstream, written) in &config.upstreams {
        let Some(named) = &written.credential else { continue };
        let credential = config.credentials.get(&named.value);
        let of_kind =
            |c: &&crate::Located<crate::Credential>| c.kind == CredentialKind::SpaceliftApiKey;
        let Some(credential) = credential.filter(of_kind) else { continue };
        let name = &named.value;
        if let Some(url) = &credential.token_url
            && (url.tls, &url.host, url.port)
                != (written.url.tls, &written.url.host, written.url.port)
        {
            let mut meant = written.url.value.clone();
            meant.path = "/graphql".to_owned();
            found.problem(
                &url.place,
                format!("the key of `{name}` is for `{upstream}` and would be sent elsewhere; write `token_url: {meant}`"),
            );
        }
        for route in routes.iter().filter(|route| *route.upstream == *upstream) {
            if route.options.graphql.is_none() && !route.options.closed {
                found.problem(
                    &route.place,
                    format!("route `{}` would allow every operation with `{name}`, which administers a space; list the allowed ones in `graphql`", route.name),
                );
            }
        }
        if config.egress.callers.is_empty() && !found.cuts.touch(&["egress", "callers"]) {
            found.warning(
                &credential.place,
                format!("no caller can sign in for `{name}`, as Spacelift's plugin does; add a caller with a password to `egress.callers`"),
            );
        }
    }
}
