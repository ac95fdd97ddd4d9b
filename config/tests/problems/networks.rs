//! Where a proxy stands in networks: a parent proxy, load balancers in front, a portal under a path.

/// Problems, or else warnings, without their places.
fn told(rest: &str) -> Vec<String> {
    let text = format!("version: stagedoor/v1\n{rest}");
    let all: Vec<String> = match config::parse("s.yaml", &text) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    all.iter().map(|one| one.splitn(4, ':').nth(3).unwrap_or(one).trim().to_owned()).collect()
}

#[test]
fn a_parent_proxy_is_checked_as_a_whole() {
    let check = |parent: &str, expected: &[&str]| {
        let listeners = "listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}, in: {kind: reverse, address: '127.0.0.1:3128'}}";
        let text = format!("{listeners}\negress: {{parent: {{{parent}}}}}\n");
        assert_eq!(told(&text), expected, "{parent}");
    };
    check("url: 'http://proxy.corp:8080', no_proxy: ['*.corp', '10.0.0.0/8', a.test:8443]", &[]);
    check("url: 'https://proxy.corp', ca: ca.crt", &[]);
    check(
        "url: 'http://proxy.corp:8080/pac'",
        &["a parent proxy has no path; write `http://proxy.corp:8080`"],
    );
    check(
        "url: 'https://proxy.corp', username: a",
        &["`parent` needs both `username` and `password_file`, or neither"],
    );
    check(
        "url: 'https://proxy.corp', username: 'a:b', password_file: p",
        &["`parent.username` is empty, or has a colon or a control character"],
    );
    check(
        "url: 'http://proxy.corp', username: a, password_file: p",
        &[
            "the parent proxy's password is sent in clear text; write `https://` if the proxy supports it",
        ],
    );
    check(
        "url: 'http://proxy.corp', ca: ca.crt",
        &["`parent` has `ca` but its url is `http://`; write `https://`"],
    );
    check(
        "url: 'http://localhost:3128'",
        &[
            "`http://localhost:3128` is listener `in`: every call would come back; write the parent proxy's address",
        ],
    );
    check(
        "url: 'http://proxy.corp', no_proxy: [http://a]",
        &[
            "`http://a` names no host; write `corp.example`, `*.corp.example:8443`, `10.0.0.0/8` or `*`",
        ],
    );
    check(
        "url: 'http://u:secret@proxy.corp'",
        &["`<hidden>` must not contain a user, a query, a fragment or spaces"],
    );
}

#[test]
fn load_balancers_must_be_named() {
    let check = |edge: &str, expected: &[&str]| {
        let text =
            format!("listeners: {{edge: {{kind: reverse, address: '127.0.0.1:1', {edge}}}}}\n");
        assert_eq!(told(&text), expected, "{edge}");
    };
    check("proxy_protocol: {from: [10.0.0.0/8]}", &[]);
    check("trusted_proxies: [10.0.0.0/8], proxy_protocol: {}", &[]);
    check(
        "proxy_protocol: {}",
        &[
            "`edge` would refuse every connection; name the load balancers that send the PROXY protocol: `proxy_protocol: {from: [10.0.0.0/24]}`",
        ],
    );
    check(
        "proxy_protocol: {from: [0.0.0.0/0]}",
        &["any client could forge its address on `edge`; name your load balancers in `from`"],
    );
}

#[test]
fn a_portal_under_a_path_says_what_is_cut_off() {
    let check = |used: &str, expected: &[&str]| {
        let text = format!(
            "listeners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\nupstreams: {{portal: {{url: 'http://127.0.0.1:7007'}}}}\npresets: [{{upstream: portal, actions: {{groups: [a]}}, {used}}}]\n"
        );
        assert_eq!(told(&text), expected, "{used}");
    };
    check("preset: backstage, strip_prefix: /backstage", &[]);
    check("preset: argocd, strip_prefix: /backstage", &[]);
    check("preset: argocd, strip_prefix: /a/b, prefix: /a/b/api/argocd", &[]);
    check(
        "preset: backstage, prefix: /backstage",
        &[
            "Backstage serves `/` and `/api`, whatever its `baseUrl` says, and would receive requests for `/backstage/api`; write `strip_prefix: /backstage` instead",
        ],
    );
    check(
        "preset: argocd, strip_prefix: /a, prefix: /api/argocd",
        &[
            "`prefix: /api/argocd` does not begin with `strip_prefix: /a`; write `prefix: /a/api/argocd`, or remove `prefix`",
        ],
    );
    check(
        "preset: argocd, strip_prefix: '/{a}'",
        &["`strip_prefix` is not a plain path; write for example `/backstage`"],
    );
    check(
        "preset: argocd, strip_prefix: /a/**",
        &["`strip_prefix` is not a plain path; write for example `/backstage`"],
    );
}
