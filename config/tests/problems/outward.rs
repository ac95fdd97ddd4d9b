//! The way out: what may be called, and external APIs.

use crate::check;

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
            "s.yaml:4:33: anyone can register a name under `blob.core.windows.net`and receive what is sent there; name your own, such as `acme.blob.core.windows.net`",
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
            "s.yaml:4:33: anyone can register a name under `github.io`and receive what is sent there; name your own, such as `acme.github.io`",
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
        &["s.yaml:4:54: `0.0.0.0/0` would open every network; write the network of this host"],
    );
    let private = |host: &str| {
        format!(
            "egress: {{rules: [{{name: a, to: ['argocd.test:8443', 'argocd.test:80']}}], private: [{{host: '{host}', addresses: [127.0.0.1/32]}}]}}\n"
        )
    };
    check(&private("argocd.test"), &[]);
    check(&private("argocd.test:8443"), &[]);
    check(&private("idp.test:443"), &[]);
    check(
        &private("argocd.test:443"),
        &[
            "s.yaml:4:91: rules allow calls of `argocd.test` on `80`, `8443`, so `argocd.test:443` never matches; write `host: argocd.test`, which covers all of them",
        ],
    );
    check(
        "egress: {rules: [{name: a, to: [github], expires: soon}]}\n",
        &["s.yaml:4:51: `soon` is not a date; write `2026-12-01` or `2026-12-01T09:00:00Z`"],
    );
    let nobody = "listeners:\n  out: {kind: forward, address: 127.0.0.1:3128}\n";
    assert_eq!(
        problems(nobody, "egress: {rules: [{name: a, to: [github]}]}\n"),
        [
            "s.yaml:3:8: no caller can authenticate on `out`; set `workspace` or `plugin` there, or add `egress.callers`"
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
            "s.yaml:7:3: `strip_prefix` of route `api` is not a plain path; write for example `/ext/github`",
        ],
    );
    route(
        "resources: {stack: stack}",
        &["s.yaml:7:3: the path of route `api` has no `{stack}` that could name a `stack`"],
    );
    route(
        "workspace: optional, resources: {stack: thing}",
        &[
            "s.yaml:7:3: route `api` checks `resources` of the workspace, but may have no workspace; remove `public` and `workspace: optional`",
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
            "s.yaml:7:3: `graphql` of route `api` is about callers, and a public route has none; remove `public`",
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
    route("coalesce: {scope: all, ttl: 60s, bytes_max: 16MiB}", &[]);
    route(
        "coalesce: {ttl: 2m, bytes_max: 1GiB}, upgrade: true",
        &[
            "s.yaml:7:3: route `api` cannot both `coalesce` and `upgrade`; write two routes",
            "s.yaml:7:3: route `api` would keep responses for 2m; at most 60s",
            "s.yaml:7:3: route `api` would share responses of up to 1GiB; at most 16MiB",
        ],
    );
    let action = routes("coalesce: {}").replace("class: read", "class: action");
    check(
        &action,
        &[
            "s.yaml:7:3: route `api` cannot coalesce: only a GET of class `read` can be coalesced; remove `coalesce`",
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
        &exchanged("coalesce: {scope: all}"),
        &[
            "s.yaml:10:3: route `api` cannot share responses: its upstream sees the caller (`token_exchange`); write `coalesce: {scope: caller}`",
        ],
    );

    let at_root = "s.yaml:6:14: requests to the control plane go to its root; remove `/v3`";
    let upstream = |more: &str, routes: &str, expected: &[&str]| {
        check(&format!("  api: {{url: 'https://api.example/v3', {more}}}\n{routes}"), expected);
    };
    let to_api = routes("strip_prefix: /ext").replace("portal", "api");
    upstream("external: true, pace: {rate: 5000/h}", &to_api, &[]);
    upstream(
        "external: true, authority: delivery",
        "",
        &[
            "s.yaml:6:8: `api` cannot be external and also decide about delivery; remove `external` or `authority`",
            at_root,
        ],
    );
    upstream(
        "external: true, preserve_host: true",
        "",
        &["s.yaml:6:8: `api` is `external` and knows only its own host; remove `preserve_host`"],
    );
    upstream(
        "pace: {rate: 5/s, wait_max: 15s}",
        &to_api,
        &[
            "s.yaml:6:8: `api`: a request of route `api` may wait 15s for its turn, but has 15s in total; raise `timeouts.total` or lower `wait_max`",
        ],
    );
    upstream("pace: {rate: 5/s, wait_max: 30s}, timeouts: {total: 31s}", &to_api, &[]);
    let kept = to_api.replace("strip_prefix: /ext", "coalesce: {}");
    upstream(
        "authority: delivery",
        &kept,
        &[
            at_root,
            "s.yaml:8:3: route `api` cannot coalesce: responses about delivery are never kept or shared; remove `coalesce`",
        ],
    );
    // Else `/ext/v1/admin` would be its `/v1/admin`.
    upstream(
        "authority: delivery",
        &to_api,
        &[
            at_root,
            "s.yaml:8:3: route `api` goes to the control plane, where requests go to the root; remove `strip_prefix` and give the route its own host or listener",
        ],
    );
}
