//! What an operator is told about a broken config: every mistake, at its place, with the correction.

use std::{fs, path::Path};

/// The listeners that every text here begins with, so that it is about one thing.
const HEAD: &str = "version: stagedoor/v1
listeners:
  edge: {kind: reverse, address: 127.0.0.1:8080}
upstreams:
  portal: {url: http://127.0.0.1:7007}
";

fn problems(rest: &str) -> Vec<String> {
    let text = format!("{HEAD}{rest}");
    match config::parse("s.yaml", &text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn check(rest: &str, expected: &[&str]) {
    assert_eq!(problems(rest), expected, "\n{rest}");
}

#[test]
fn a_small_config_is_valid() {
    check("", &[]);
    check("routes:\n", &[]);
}

#[test]
fn a_mistake_is_told_with_its_place_and_its_correction() {
    check(
        "rate_limits: {}\n",
        &["s.yaml:6:1: unknown key `rate_limits` in the top level; did you mean `rate_limit`?"],
    );
    check(
        "rate_limit: {each_workspace: {rate: 50 per second}}\n",
        &["s.yaml:6:37: `50 per second` is not a rate; write `50/s`, `200/m` or `1000/h`"],
    );
    check(
        "process: {drain_timeout: 10}\n",
        &["s.yaml:6:26: `10` is not a duration; write `10s`, `500ms` or `2m`"],
    );
    check(
        "audit: {segment_max: 5kb}\n",
        &["s.yaml:6:22: `5kb` is not a size; write `64KiB`, `10MiB` or `1GiB`"],
    );
    check(
        "process: {threads: many}\n",
        &["s.yaml:6:20: `process.threads` is the text `many`, expected a whole number"],
    );
    check(
        "process: {metric_aliases: yes}\n",
        &["s.yaml:6:27: `process.metric_aliases` is the text `yes`, expected `true` or `false`"],
    );
    check(
        "routes: {}\n",
        &[
            "s.yaml:6:9: `routes` is a map, expected a list; write `[...]` or lines that begin with `-`",
        ],
    );
    check(
        "headers: {workspace: 'x workspace'}\n",
        &["s.yaml:6:22: `x workspace` is not a header name; write for example `x-workspace`"],
    );
    check(
        "headers: {workspace: authorization}\n",
        &["s.yaml:6:22: header `authorization` belongs to HTTP; take another"],
    );
    check(
        "plugins: {argocd: {enabled_percent: 101}}\n",
        &["s.yaml:6:37: `101` is not a percentage; write 0 to 100"],
    );
    check(
        "presets:\n- {preset: argo, upstream: portal}\n",
        &["s.yaml:7:12: no preset `argo`; did you mean `argocd`?"],
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    check(
        "routes:
- name: a
  methods: [GTE]
  path: v1
  upstream: portal
  class: read
- name: b c
  methods: [GET]
  path: /b
  upstream: portal
  class: read
- name: d
  methods: [GET]
  path: /d
  upstream: portal
process: {drain_delay: soon}
",
        &[
            "s.yaml:8:13: `routes[0].methods[0]` cannot be `GTE`; did you mean `GET`?",
            "s.yaml:9:9: `v1` does not begin with `/`; write for example `/v1/services/{service}` or `/api/catalog/**`",
            "s.yaml:12:9: `b c` is not a name; use 1 to 64 of `a-z A-Z 0-9 . _ -`, a letter or digit first",
            "s.yaml:17:3: `class` is missing in `routes[2]`",
            "s.yaml:21:24: `soon` is not a duration; write `10s`, `500ms` or `2m`",
        ],
    );
}

#[test]
fn what_one_field_cannot_know_about_another_is_checked() {
    let route = |more: &str| {
        format!("- {{name: a, methods: [GET], path: /a, upstream: portal, class: read{more}}}\n")
    };
    check(
        &format!("routes:\n{}", route("").replace("portal", "prtal")),
        &["s.yaml:7:49: no upstream `prtal`; did you mean `portal`?"],
    );
    check(
        &format!("routes:\n{}{}", route(""), route("").replace("name: a", "name: b")),
        &["s.yaml:8:3: route `b` takes the same requests as `a`, at s.yaml:7:3"],
    );
    check(
        &format!("routes:\n{}", route(", options: {public: true, access: {roles: [x]}}")),
        &[
            "s.yaml:7:3: route `a` is public: nobody is asked who they are; remove `access` or `public`",
        ],
    );
    check(
        "identity: {issuers: {x: {issuer: 'https://x', audiences: [a], algorithms: [HS256]}}}\n",
        &[
            "s.yaml:6:25: `x` allows HMAC without `keys.secret_file`: a public key would be its secret",
        ],
    );
    check(
        "identity: {issuers: {x: {issuer: 'https://x'}}}\n",
        &["s.yaml:6:25: `x` has no `audiences`: tokens made for others would pass; list ours"],
    );
}

#[test]
fn delivery_keeps_its_authority() {
    let config = |route: &str| {
        format!("  dxcp: {{url: http://127.0.0.1:8000, authority: delivery}}\nroutes:\n- {route}\n")
    };
    check(&config("{name: a, methods: [GET], path: /v1/health, upstream: dxcp, class: read}"), &[]);
    check(
        &config("{name: a, methods: [ANY], path: /v1/**, upstream: dxcp, class: read}"),
        &[
            "s.yaml:8:3: route `a` would open `/v1/environments` of the control plane, which is closed for good; narrow its path or methods",
        ],
    );
    check(
        "presets:\n- {preset: dxcp, upstream: portal, listeners: [edge]}\n",
        &["s.yaml:7:28: upstream `portal` has preset `dxcp`; write `authority: delivery` there"],
    );
    check(
        "  dxcp: {url: http://127.0.0.1:8000, authority: delivery}\npresets:\n- {preset: dxcp, upstream: dxcp}\n",
        &[
            "s.yaml:8:3: preset `dxcp` needs a host or a listener of its own; add `hosts` or `listeners`",
        ],
    );
}

#[test]
fn yaml_itself_can_be_broken() {
    for (rest, place) in [
        ("routes: [\n", "s.yaml:6:9"),
        ("a: 'b\n", "s.yaml:"),
        ("process: {}\nprocess: {}\n", "s.yaml:7:1"),
        ("process:\n\tthreads: 1\n", "s.yaml:7"),
        ("---\nversion: x\n", "s.yaml:"),
    ] {
        let found = problems(rest);
        assert_eq!(found.len(), 1, "{rest:?}: {found:?}");
        assert!(found[0].starts_with(place), "{rest:?}: {found:?}");
    }
}

#[test]
fn a_small_text_cannot_become_a_large_one() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{before}"); 10].join(", ")
        ));
    }
    assert_eq!(problems(&bomb).len(), 1);
}

fn load(folder: &Path, variables: &[(&str, &str)]) -> Result<config::Loaded, Vec<String>> {
    let variable = |name: &str| {
        variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    };
    let strip = format!("{}/", folder.display());
    config::load(&folder.join("s.yaml"), &variable)
        .map_err(|problems| problems.iter().map(|p| p.to_string().replace(&strip, "")).collect())
}

#[test]
fn a_config_may_include_others_and_a_mistake_names_the_right_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("more")).unwrap();
    write("s.yaml", &format!("{HEAD}include: [more/*.yaml]\n"));
    write("more/a.yaml", "workspaces: {named: {payments: {groups: [a]}}}\n");
    write("more/b.yaml", "workspaces: {named: {web: {}}}\n");
    let loaded = load(folder.path(), &[]).unwrap();
    assert_eq!(loaded.config.workspaces.named.len(), 2);
    assert_eq!(loaded.files.len(), 3);

    write("more/b.yaml", "workspaces: {named: {web: {}, payments: {group: [b]}}}\n");
    assert_eq!(
        load(folder.path(), &[]).unwrap_err(),
        [
            "more/b.yaml:1:42: unknown key `group` in `workspaces.named.payments`; did you mean `groups`?"
        ],
    );
    write("more/b.yaml", "workspaces: {named: {payments: {groups: [b]}}, undeclared: true}\n");
    write("more/c.yaml", "workspaces: {undeclared: false}\n");
    assert_eq!(
        load(folder.path(), &[]).unwrap_err(),
        ["more/c.yaml:1:14: `undeclared` is set already, at more/b.yaml:1:48"],
    );
    write("s.yaml", &format!("{HEAD}include: [gone.yaml]\n"));
    assert_eq!(
        load(folder.path(), &[]).unwrap_err(),
        ["s.yaml:6:11: cannot read `gone.yaml`: no such file"]
    );
    write("s.yaml", &format!("{HEAD}include: [s.yaml]\n"));
    assert_eq!(
        load(folder.path(), &[]).unwrap_err(),
        ["s.yaml:6:11: `s.yaml` is included already"]
    );
}

#[test]
fn variables_are_replaced_in_values() {
    let folder = tempfile::tempdir().unwrap();
    let write =
        |text: &str| fs::write(folder.path().join("s.yaml"), format!("{HEAD}{text}")).unwrap();
    write("process: {threads: '${N}', upgrade_socket: '/run/$$/${D:-x}'}\n");
    let config = load(folder.path(), &[("N", "3")]).unwrap().config;
    assert_eq!(config.process.threads.map(|n| n.get()), Some(3));
    assert_eq!(config.process.upgrade_socket, Some("/run/$/x".into()));
    write("process: {threads: '${N}'}\naudit: {folder: '$X'}\n");
    assert_eq!(
        load(folder.path(), &[]).unwrap_err(),
        [
            "s.yaml:6:20: `${N}` is not set; set it, or write `${N:-default}`",
            "s.yaml:7:17: a single `$` means nothing; write `${VAR}`, or `$$` for a dollar",
        ],
    );
}

#[test]
fn the_shipped_presets_are_valid_and_their_routes_do_not_collide() {
    for (name, _) in config::SHIPPED {
        let preset = config::Preset::named(name).unwrap();
        let authority = match preset.authority {
            config::Authority::None => "none",
            config::Authority::Delivery => "delivery",
        };
        let text = format!(
            "  up: {{url: http://127.0.0.1:1, authority: {authority}}}\npresets:\n- {{preset: {name}, upstream: up, hosts: [a.example]}}\n",
        );
        check(&text, &[]);
        assert!(!preset.routes.is_empty(), "{name}");
    }
}

#[test]
fn the_schema_knows_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&config::json_schema()).unwrap();
    assert!(schema["properties"]["include"].is_object());
    assert!(schema["$defs"]["Route"]["properties"]["path"].is_object());
    let manual = config::markdown();
    assert!(manual.contains("| `each_workspace` |"));
}

#[test]
fn the_way_out_is_checked_as_a_whole() {
    let forward = "listeners:
  out: {kind: forward, address: 127.0.0.1:3128, plugin: catalog}
";
    let problems = |listeners: &str, rest: &str| {
        let text = format!("version: stagedoor/v1\n{listeners}{rest}");
        match config::parse("s.yaml", &text) {
            Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    };
    let check = |rest: &str, expected: &[&str]| {
        assert_eq!(problems(forward, rest), expected, "\n{rest}");
    };
    check(
        "egress: {rules: [{name: a, to: [github, a.example.com, '*.acme.atlassian.net']}]}\n",
        &[],
    );
    check(
        "egress: {rules: [{name: a, to: ['*.blob.core.windows.net']}]}\n",
        &[
            "s.yaml:4:33: anybody can have a name under `blob.core.windows.net`, and take what is sent there; name yours, such as `acme.blob.core.windows.net`",
        ],
    );
    check(
        "egress: {rules: [{name: a, to: ['*.co.uk']}]}\n",
        &["s.yaml:4:33: `*.co.uk` would allow half the internet; name a domain under it"],
    );
    check("", &["s.yaml:3:8: `out` refuses every call: `egress.rules` is empty"]);
    check(
        "egress: {rules: [{name: a, to: [gitbub]}]}\n",
        &["s.yaml:4:33: no group of hosts `gitbub`; did you mean `github`?"],
    );
    check(
        "egress: {rules: [{name: a, to: ['*.com']}]}\n",
        &["s.yaml:4:33: `*.com` would allow half the internet; name a domain under it"],
    );
    check(
        "egress: {rules: [{name: a, to: ['*.github.io']}]}\n",
        &[
            "s.yaml:4:33: anybody can have a name under `github.io`, and take what is sent there; name yours, such as `acme.github.io`",
        ],
    );
    check(
        "egress: {rules: [{name: a, to: []}, {name: a, to: [github], workspaces: [web]}]}\n",
        &[
            "s.yaml:4:18: rule `a` allows nothing; name hosts in `to`",
            "s.yaml:4:37: rule `a` exists already",
            "s.yaml:4:74: no workspace `web` in `workspaces.named`",
        ],
    );
    check(
        "egress: {rules: [{name: a, to: [github]}], private: [{host: a.example.com, addresses: [0.0.0.0/0]}]}\n",
        &["s.yaml:4:54: `0.0.0.0/0` would open every network; name the host's own"],
    );
    check(
        "egress: {rules: [{name: a, to: [github], expires: soon}]}\n",
        &["s.yaml:4:51: `soon` is not a date; write `2026-12-01` or `2026-12-01T09:00:00Z`"],
    );
    let nobody = "listeners:\n  out: {kind: forward, address: 127.0.0.1:3128}\n";
    assert_eq!(
        problems(nobody, "egress: {rules: [{name: a, to: [github]}]}\n"),
        [
            "s.yaml:3:8: nobody can prove who calls on `out`; set `workspace` or `plugin` there, or add `egress.callers`"
        ]
    );
    let reverse = "listeners:\n  in: {kind: reverse, address: 127.0.0.1:80, plugin: catalog}\n";
    assert_eq!(
        problems(reverse, ""),
        ["s.yaml:3:7: `in`: `plugin` and `report_only` are for `kind: forward`; remove them"]
    );
}

#[test]
fn the_shipped_groups_of_hosts_have_no_wildcard() {
    let groups = config::shipped_hosts();
    assert_eq!(groups.len(), 8);
    for (name, group) in &groups {
        assert!(!group.hosts.is_empty() && !group.about.is_empty(), "{name}");
        // Below a wildcard of a vendor somebody else's name could be.
        assert!(group.hosts.iter().all(|host| !host.subdomains), "{name}");
    }
}

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
            "s.yaml:8:7: `ci`: `username` goes with kind `basic`; remove it",
            "s.yaml:8:7: `ci`: `scopes` goes with kind `oauth2_client_credentials` or `token_exchange`; remove it",
        ],
    );
    wrong(
        "kind: bearer",
        &["s.yaml:8:14: `credentials.ci.kind` cannot be `bearer`; did you mean `header`?"],
    );
    wrong(
        &basic.replace("portal", "'a:b'"),
        &["s.yaml:8:7: `ci`: a `username` has no colon (RFC 7617)"],
    );
    wrong(
        &token.replace("'b:c'", "b c"),
        &["s.yaml:8:7: `ci`: `b c` is not one scope; write `[a, b]`"],
    );
    wrong(
        &header.replace("x-api-key", "Cookie"),
        &["s.yaml:8:30: header `cookie` belongs to HTTP; take another"],
    );
    for taken in ["x-orbit-user-id", "x-forwarded-for", "x-request-id"] {
        wrong(
            &header.replace("x-api-key", taken),
            &[&format!("s.yaml:8:30: header `{taken}` says something else already; take another")],
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
                "s.yaml:7:61: credential `ci` is for `{elsewhere}`, where `other` is; `jenkins` is elsewhere and needs one of its own"
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
    let none = "s.yaml:8:11: `orders` exchanges the callers' tokens, and without `identity.issuers` they have none; add an issuer, or write kind `oauth2_client_credentials`";
    check(&with("", ""), &[none]);
    let certificates = "identity: {client_certificates: [{name: ci.example, caller: ci}]}\n";
    assert_eq!(problems(&with(certificates, ""))[0], none);
    check(
        &with(TWO, ""),
        &[
            "s.yaml:8:11: `orders` would send the tokens of every issuer to `token_url`; write whose it takes, for example `issuers: [idp]`",
        ],
    );
    check(&with(TWO, ", issuers: [idp, b]"), &[]);
    check(&with(ONE, ", issuers: [ipd]"), &["s.yaml:8:119: no issuer `ipd`; did you mean `idp`?"]);
    for resource in ["orders", "'https://orders#part'", "'https://a b'", "'https:'"] {
        check(
            &with(ONE, &format!(", resource: {resource}")),
            &[
                "s.yaml:8:11: `orders`: a `resource` is a whole address, as `https://api.example`; a name goes in `audience`",
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
            "s.yaml:10:3: route `all` is public, and credential `orders` exchanges the caller's token; remove `public`, or take an upstream with another credential",
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
            "s.yaml:8:77: `credentials.app.app_id` is the number `123456`, expected a text; put it in quotes",
        ],
    );
    check(
        &with(", app_id: 'my app'"),
        &[
            "s.yaml:8:8: `app`: `my app` is no `app_id`; write the app's client id, or its number in quotes",
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
            "s.yaml:8:8: `app`: `scopes` goes with kind `oauth2_client_credentials` or `token_exchange`; remove it",
            "s.yaml:8:8: `app`: `audience` goes with kind `oauth2_client_credentials` or `token_exchange`; remove it",
        ],
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
    assert_eq!(warnings(ci), ["s.yaml:6:19: no upstream shows credential `ci`"]);
    let of = |url: &str| warnings(&format!("  j: {{url: '{url}', credential: ci}}\n{ci}"));
    assert_eq!(of("https://j.example"), [""; 0]);
    for loopback in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"] {
        assert_eq!(of(loopback), [""; 0]);
    }
    assert_eq!(
        of("http://j.example"),
        ["s.yaml:6:12: credential `ci` goes over the network in the clear; write `https://`"]
    );
    let token = "credentials: {ci: {kind: oauth2_client_credentials, token_url: 'http://idp/t', client_id: a, client_secret_file: /p}}\n";
    assert_eq!(
        warnings(&format!("  j: {{url: 'https://j', credential: ci}}\n{token}")),
        ["s.yaml:7:64: the secret of `ci` goes over the network in the clear; write `https://`"]
    );

    let upstream = format!("  j: {{url: 'https://j', credential: ci}}\n{ci}");
    let route = |more: &str| {
        warnings(&format!(
            "{upstream}routes:\n- {{name: build, methods: [POST], path: /a, upstream: j, {more}}}\n"
        ))
    };
    let unnamed = "s.yaml:9:3: whoever passes acts with credential `ci` on `build`; name roles, groups or callers in `access`";
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
    assert!(
        told[0].starts_with("s.yaml:9:3: whoever passes acts with credential `ci` on `jenkins.")
    );
    assert!(told[0].ends_with("name roles, groups or callers in `actions`"));
    assert_eq!(preset(", actions: {roles: [deployer]}"), [""; 0]);
}

#[test]
fn an_external_api_is_checked_as_a_whole() {
    let routes = |options: &str| {
        format!(
            "routes:\n- {{name: api, methods: [GET], path: '/ext/{{thing}}/**', upstream: portal, class: read, options: {{{options}}}}}\n"
        )
    };
    let route = |options: &str, expected: &[&str]| check(&routes(options), expected);
    route("strip_prefix: /ext", &[]);
    route(
        "strip_prefix: /ext/api",
        &[
            "s.yaml:7:3: route `api` takes `/ext/{thing}/**`, which does not begin with `/ext/api`; write `path: /ext/api/**`",
        ],
    );
    route(
        "strip_prefix: '/ext/{thing}'",
        &[
            "s.yaml:7:3: `strip_prefix` of route `api` is no plain path; write for example `/ext/github`",
        ],
    );
    route(
        "resources: {stack: stack}",
        &["s.yaml:7:3: the path of route `api` has no `{stack}` that could name a `stack`"],
    );
    route(
        "workspace: optional, resources: {stack: thing}",
        &[
            "s.yaml:7:3: route `api` asks for `resources` of the workspace, but may have none; remove `public` and `workspace: optional`",
        ],
    );
    route(
        "graphql: [{query: [a]}]",
        &["s.yaml:7:3: route `api` reads GraphQL bodies; write `methods: [POST]`"],
    );
    let post = routes("public: true, graphql: [{query: [a]}]").replace("[GET]", "[POST]");
    check(
        &post,
        &[
            "s.yaml:7:3: `graphql` of route `api` is about callers, and a public route asks for none; remove `public`",
        ],
    );
    route(
        "graphql: []",
        &[
            "s.yaml:7:3: route `api` reads GraphQL bodies; write `methods: [POST]`",
            "s.yaml:7:3: `graphql` of route `api` allows nothing; write for example `[{query: [stacks]}]`",
        ],
    );
    route(
        "graphql: [{mutation: ['run Trigger']}]",
        &[
            "s.yaml:7:119: `run Trigger` is not the name of a field; write one as in the schema: `runTrigger`",
        ],
    );
    route("coalesce: {for: all, keep: 60s, bytes_max: 16MiB}", &[]);
    route(
        "coalesce: {keep: 2m, bytes_max: 1GiB}, upgrade: true",
        &[
            "s.yaml:7:3: route `api` cannot both `coalesce` and `upgrade`; write two routes",
            "s.yaml:7:3: route `api` would keep answers for 2m; at most 60s",
            "s.yaml:7:3: route `api` would share answers of 1GiB; at most 16MiB",
        ],
    );
    let action = routes("coalesce: {}").replace("class: read", "class: action");
    check(
        &action,
        &[
            "s.yaml:7:3: route `api` cannot coalesce: only a GET that is a `read` is the same twice; remove `coalesce`",
        ],
    );

    let exchanged = |options: &str| {
        format!(
            "  api: {{url: 'https://api.example', credential: x}}\ncredentials: {{x: {{kind: token_exchange, token_url: 'https://idp/token', client_id: a, client_secret_file: /s}}}}\nidentity: {{issuers: {{i: {{issuer: 'https://idp', audiences: [a], algorithms: [RS256]}}}}}}\n{}",
            routes(options).replace("portal", "api")
        )
    };
    check(&exchanged("coalesce: {}"), &[]);
    check(
        &exchanged("coalesce: {for: all}"),
        &[
            "s.yaml:10:3: route `api` cannot share answers: its upstream sees who asks (`token_exchange`); write `coalesce: {for: caller}`",
        ],
    );

    let at_root = "s.yaml:6:14: the control plane is asked at its root; remove `/v3`";
    let upstream = |more: &str, routes: &str, expected: &[&str]| {
        check(&format!("  api: {{url: 'https://api.example/v3', {more}}}\n{routes}"), expected);
    };
    let to_api = routes("strip_prefix: /ext").replace("portal", "api");
    upstream("external: true, pace: {rate: 5000/h}", &to_api, &[]);
    upstream(
        "external: true, authority: delivery",
        "",
        &[
            "s.yaml:6:8: `api` cannot be somebody else's and decide about delivery; remove `external` or `authority`",
            at_root,
        ],
    );
    upstream(
        "external: true, preserve_host: true",
        "",
        &["s.yaml:6:8: `api` is `external`: it knows its own host only; remove `preserve_host`"],
    );
    upstream(
        "pace: {rate: 5/s, wait_max: 15s}",
        &to_api,
        &[
            "s.yaml:6:8: `api`: a request of route `api` may wait 15s for its turn, but has 15s in all; raise `timeouts.whole` or lower `wait_max`",
        ],
    );
    upstream("pace: {rate: 5/s, wait_max: 30s}, timeouts: {whole: 31s}", &to_api, &[]);
    let kept = to_api.replace("strip_prefix: /ext", "coalesce: {}");
    upstream(
        "authority: delivery",
        &kept,
        &[
            at_root,
            "s.yaml:8:3: route `api` cannot coalesce: answers about delivery are never kept or shared; remove `coalesce`",
        ],
    );
    // Else `/ext/v1/admin` would be its `/v1/admin`.
    upstream(
        "authority: delivery",
        &to_api,
        &[
            at_root,
            "s.yaml:8:3: route `api` goes to the control plane, which is asked at its root; remove `strip_prefix` and give it a host or a listener of its own",
        ],
    );
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
            "s.yaml:9:3: route `api` would let everything be asked with `key`, which administers a space; say what in `graphql`",
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
            "s.yaml:7:20: nobody can sign in for `key`, as Spacelift's plugin does; add a caller with a password to `egress.callers`"
        ]
    );
    let owned = with(url, "graphql: [{mutation: [runTrigger], resources: {stack: stack}}]");
    assert!(warnings(&owned).contains(&"s.yaml:9:3: no workspace has a `stack` in its `resources`, so nobody passes route `api`".to_owned()));
}
