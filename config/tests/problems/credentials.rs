//! What upstreams are shown.

use crate::{HEAD, check, problems};

#[test]
fn a_credential_is_whole_and_goes_to_one_origin() {
    let with = |credential: &str, url: &str| {
        format!(
            "  jenkins: {{url: '{url}', credential: ci}}\ncredentials:\n  ci: {{{credential}}}\n"
        )
    };
    let basic = "kind: basic, username: portal, password_file: /p";
    let header = "kind: header, header: x-api-key, value_file: /v";
    let token = "kind: oauth2_client_credentials, token_url: 'https://idp/token', client_id: portal, client_secret_file: /s, scopes: [a, 'b:c']";
    for good in [basic, header, token] {
        check(&with(good, "https://jenkins.example"), &[]);
    }
    let wrong = |credential: &str, expected: &[&str]| {
        check(&with(credential, "https://jenkins.example"), expected);
    };
    wrong(
        "kind: basic",
        &[
            "s.yaml:8:7: `ci` is of kind `basic` and needs `username`",
            "s.yaml:8:7: `ci` is of kind `basic` and needs `password_file`",
        ],
    );
    wrong(
        &format!("{header}, username: portal, scopes: [a]"),
        &[
            "s.yaml:8:7: `ci`: `username` is only for kind `basic`; remove it",
            "s.yaml:8:7: `ci`: `scopes` is only for kind `oauth2_client_credentials` or `token_exchange`; remove it",
        ],
    );
    wrong(
        "kind: bearer",
        &["s.yaml:8:14: `credentials.ci.kind` cannot be `bearer`; did you mean `header`?"],
    );
    wrong(
        &basic.replace("portal", "'a:b'"),
        &["s.yaml:8:7: `ci`: a `username` must not contain a colon (RFC 7617)"],
    );
    wrong(
        &token.replace("'b:c'", "b c"),
        &["s.yaml:8:7: `ci`: `b c` is not one scope; write `[a, b]`"],
    );
    wrong(
        &header.replace("x-api-key", "Cookie"),
        &["s.yaml:8:30: header `cookie` belongs to HTTP; use a different one"],
    );
    for taken in ["x-orbit-user-id", "x-forwarded-for", "x-request-id"] {
        wrong(
            &header.replace("x-api-key", taken),
            &[&format!(
                "s.yaml:8:30: header `{taken}` already has another meaning; use a different one"
            )],
        );
    }
    check(
        "  jenkins: {url: 'https://j.example', credential: jenkin}\ncredentials: {jenkins: {kind: basic, username: a, password_file: /p}}\n",
        &["s.yaml:6:51: no credential `jenkin`; did you mean `jenkins`?"],
    );
    for elsewhere in
        ["http://jenkins.example:443", "https://jenkins.example:8443", "https://j.example"]
    {
        check(
            &format!(
                "  other: {{url: '{elsewhere}', credential: ci}}\n{}",
                with(basic, "https://JENKINS.example:443")
            ),
            &[&format!(
                "s.yaml:7:61: credential `ci` is for `{elsewhere}`, where `other` is; `jenkins` is somewhere else and needs its own"
            )],
        );
    }
    check(
        &format!(
            "  other: {{url: 'https://jenkins.example', credential: ci}}\n{}",
            with(basic, "https://JENKINS.example:443")
        ),
        &[],
    );
}

#[test]
fn a_credential_that_may_be_read_or_used_by_all_is_a_warning() {
    let warnings = |rest: &str| -> Vec<String> {
        let loaded = config::parse("s.yaml", &format!("{HEAD}{rest}"));
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        // Of the upstreams here, none but the ones with routes matters.
        let all = loaded.warnings.iter().map(ToString::to_string);
        all.filter(|warning| !warning.contains("no route goes to")).collect()
    };
    let ci = "credentials: {ci: {kind: basic, username: a, password_file: /p}}\n";
    assert_eq!(warnings(ci), ["s.yaml:6:19: no upstream uses credential `ci`"]);
    let of = |url: &str| warnings(&format!("  j: {{url: '{url}', credential: ci}}\n{ci}"));
    assert_eq!(of("https://j.example"), [""; 0]);
    for loopback in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"] {
        assert_eq!(of(loopback), [""; 0]);
    }
    assert_eq!(
        of("http://j.example"),
        ["s.yaml:6:12: credential `ci` goes over the network in clear text; write `https://`"]
    );
    let token = "credentials: {ci: {kind: oauth2_client_credentials, token_url: 'http://idp/t', client_id: a, client_secret_file: /p}}\n";
    assert_eq!(
        warnings(&format!("  j: {{url: 'https://j', credential: ci}}\n{token}")),
        ["s.yaml:7:64: the secret of `ci` goes over the network in clear text; write `https://`"]
    );

    let upstream = format!("  j: {{url: 'https://j', credential: ci}}\n{ci}");
    let route = |more: &str| {
        warnings(&format!(
            "{upstream}routes:\n- {{name: build, methods: [POST], path: /a, upstream: j, {more}}}\n"
        ))
    };
    let unnamed = "s.yaml:9:3: every caller that passes acts with credential `ci` on `build`; name roles, groups or callers in `access`";
    assert_eq!(route("class: action"), [unnamed]);
    assert_eq!(route("class: action, options: {public: true}"), [unnamed]);
    assert_eq!(route("class: action, options: {access: {groups: [dev]}}"), [""; 0]);
    assert_eq!(route("class: action, options: {closed: true}"), [""; 0]);
    assert_eq!(route("class: read"), [""; 0]);
    let preset = |more: &str| {
        warnings(&format!("{upstream}presets:\n- {{preset: jenkins, upstream: j{more}}}\n"))
    };
    let told = preset("");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(
        "s.yaml:9:3: every caller that passes acts with credential `ci` on `jenkins."
    ));
    assert!(told[0].ends_with("name roles, groups or callers in `actions`"));
    assert_eq!(preset(", actions: {roles: [deployer]}"), [""; 0]);
}

#[test]
fn a_key_of_spacelifts_is_for_what_rules_name_and_goes_nowhere_else() {
    let with = |credential: &str, options: &str| {
        format!(
            "  api: {{url: 'https://acme.example', credential: key}}\ncredentials: {{key: {{kind: spacelift_api_key, key_id: a, key_secret_file: /s, {credential}}}}}\nroutes:\n- {{name: api, methods: [POST], path: /graphql, upstream: api, class: read, options: {{access: {{callers: [p]}}, {options}}}}}\n"
        )
    };
    let (url, rules) =
        ("token_url: 'https://acme.example/graphql'", "graphql: [{query: [stacks]}]");
    check(&with(url, rules), &[]);
    check(
        &with(url, ""),
        &[
            "s.yaml:9:3: route `api` would allow every operation with `key`, which administers a space; list the allowed ones in `graphql`",
        ],
    );
    check(
        &with("token_url: 'https://acme.example.evil/graphql'", rules),
        &[
            "s.yaml:7:89: the key of `key` is for `api` and would be sent elsewhere; write `token_url: https://acme.example/graphql`",
        ],
    );
    let warnings = |text: &str| -> Vec<String> {
        let loaded = config::parse("s.yaml", &format!("{HEAD}{text}")).unwrap();
        loaded
            .warnings
            .iter()
            .map(ToString::to_string)
            .filter(|text| !text.contains("no route"))
            .collect()
    };
    assert_eq!(
        warnings(&with(url, rules)),
        [
            "s.yaml:7:20: no caller can sign in for `key`, as Spacelift's plugin does; add a caller with a password to `egress.callers`"
        ]
    );
    let owned = with(url, "graphql: [{mutation: [runTrigger], resources: {stack: stack}}]");
    assert!(warnings(&owned).contains(&"s.yaml:9:3: no workspace has a `stack` in its `resources`, so no request can pass route `api`".to_owned()));
}

#[test]
fn a_credential_that_is_exchanged_needs_callers_with_tokens_of_one_issuer() {
    const ONE: &str = "identity: {issuers: {idp: {issuer: 'https://idp', audiences: [a]}}}\n";
    const TWO: &str = "identity: {issuers: {idp: {issuer: 'https://idp', audiences: [a]}, b: {issuer: 'https://b', audiences: [a]}}}\n";
    let exchange = "kind: token_exchange, token_url: 'https://idp/token', client_id: portal, client_secret_file: /s";
    let with = |identity: &str, more: &str| {
        format!(
            "  orders: {{url: 'https://orders.example', credential: orders}}\ncredentials:\n  orders: {{{exchange}{more}}}\n{identity}"
        )
    };
    for more in [
        "",
        ", audience: orders, scopes: [a, b], client_auth: post, ca: /ca",
        ", resource: 'https://orders.example/api', subject_token_type: jwt, requested_token_type: id_token",
        ", resource: 'urn:orders', issuers: [idp]",
    ] {
        check(&with(ONE, more), &[]);
    }
    let none = "s.yaml:8:11: `orders` exchanges callers' tokens, but without `identity.issuers` callers have none; add an issuer, or write kind `oauth2_client_credentials`";
    check(&with("", ""), &[none]);
    let certificates = "identity: {client_certificates: [{name: ci.example, caller: ci}]}\n";
    assert_eq!(problems(&with(certificates, ""))[0], none);
    check(
        &with(TWO, ""),
        &[
            "s.yaml:8:11: `orders` would send the tokens of every issuer to `token_url`; name the issuers that it accepts, for example `issuers: [idp]`",
        ],
    );
    check(&with(TWO, ", issuers: [idp, b]"), &[]);
    check(&with(ONE, ", issuers: [ipd]"), &["s.yaml:8:119: no issuer `ipd`; did you mean `idp`?"]);
    for resource in ["orders", "'https://orders#part'", "'https://a b'", "'https:'"] {
        check(
            &with(ONE, &format!(", resource: {resource}")),
            &[
                "s.yaml:8:11: `orders`: a `resource` is a full URL, such as `https://api.example`; a name goes in `audience`",
            ],
        );
    }
    let route = |options: &str| {
        with(
            ONE,
            &format!(
                "}}\nroutes:\n- {{name: all, methods: [GET], path: /a, upstream: orders, class: action, options: {{{options}}}"
            ),
        )
    };
    check(&route("closed: true, public: true"), &[]);
    check(
        &route("public: true"),
        &[
            "s.yaml:10:3: route `all` is public, and credential `orders` exchanges the caller's token; remove `public`, or use an upstream with another credential",
        ],
    );
    // Each acts with their own rights, so that nobody needs to be named.
    let loaded = config::parse("s.yaml", &format!("{HEAD}{}", route(""))).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(!warnings.iter().any(|warning| warning.contains("acts with")), "{warnings:?}");
}

#[test]
fn a_github_app_is_named_as_github_names_it() {
    let with = |more: &str| {
        format!(
            "  github: {{url: 'https://api.github.com', credential: app}}\ncredentials:\n  app: {{kind: github_app, installation_id: 7, private_key_file: /k{more}}}\n"
        )
    };
    for more in [
        ", app_id: Iv23li-a.b",
        ", app_id: '123456', api: 'https://ghes.example/api/v3/', ca: /ca",
        ", app_id: a, repositories: [shop, Shop.js_2], permissions: {contents: read, pull_requests: write}",
    ] {
        check(&with(more), &[]);
    }
    check(&with(""), &["s.yaml:8:8: `app` is of kind `github_app` and needs `app_id`"]);
    check(
        &with(", app_id: 123456"),
        &[
            "s.yaml:8:77: `credentials.app.app_id` is the number `123456`, expected text; put it in quotes",
        ],
    );
    check(
        &with(", app_id: 'my app'"),
        &[
            "s.yaml:8:8: `app`: `my app` is not an `app_id`; write the app's client id, or its number in quotes",
        ],
    );
    check(
        &with(", app_id: a, repositories: [acme/shop]"),
        &[
            "s.yaml:8:8: `app`: `acme/shop` is not a repository's name; write `shop`, without its owner",
        ],
    );
    check(
        &with(", app_id: a, permissions: {Pull Requests: read}"),
        &[
            "s.yaml:8:8: `app`: `Pull Requests` is not a permission; write it as GitHub's API does, for example `pull_requests`",
        ],
    );
    check(
        &with(", app_id: a, scopes: [repo], audience: x"),
        &[
            "s.yaml:8:8: `app`: `scopes` is only for kind `oauth2_client_credentials` or `token_exchange`; remove it",
            "s.yaml:8:8: `app`: `audience` is only for kind `oauth2_client_credentials` or `token_exchange`; remove it",
        ],
    );
}
