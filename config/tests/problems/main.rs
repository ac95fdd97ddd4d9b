//! What an operator is told about a broken config: every mistake, at its place, with the correction.

mod credentials;
mod networks;
mod outward;

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
fn a_bucket_that_is_not_there_is_told_and_so_is_one_that_nobody_is_in() {
    let route = |bucket: &str| {
        format!(
            "routes:\n- {{name: r, methods: [GET], path: /r, upstream: portal, class: read, options: {{bucket: {bucket}}}}}\n"
        )
    };
    check(&route("pages"), &[]);
    check(&format!("rate_limit: {{buckets: {{mine: {{rate: 5/s}}}}}}\n{}", route("mine")), &[]);
    check("rate_limit: {buckets: {pages: {rate: 5/s}}}\n", &[]);
    check(
        &route("page"),
        &[
            "s.yaml:7:3: no bucket `page`, which route `r` names; add it to `rate_limit.buckets`, or: did you mean `pages`?",
        ],
    );
    check(
        "rate_limit: {buckets: {sign_in: {rate: 5/s}}}\n",
        &[
            "s.yaml:6:33: no route is in bucket `sign_in`; give one `bucket: sign_in`, or: did you mean `sign-in`?",
        ],
    );
}

#[test]
fn a_mistake_is_told_with_its_place_and_its_correction() {
    check(
        "rate_limits: {}\n",
        &["s.yaml:6:1: unknown key `rate_limits` in the top level; did you mean `rate_limit`?"],
    );
    check(
        "rate_limit: {per_workspace: {rate: 50 per second}}\n",
        &["s.yaml:6:36: `50 per second` is not a rate; write `50/s`, `200/m` or `1000/h`"],
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
        &["s.yaml:6:22: header `authorization` belongs to HTTP; use a different one"],
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
        &["s.yaml:8:3: route `b` matches the same requests as `a`, at s.yaml:7:3"],
    );
    check(
        &format!("routes:\n{}", route(", options: {public: true, access: {roles: [x]}}")),
        &[
            "s.yaml:7:3: route `a` is public and authenticates no caller; remove `access` or `public`",
        ],
    );
    check(
        "identity: {issuers: {x: {issuer: 'https://x', audiences: [a], algorithms: [HS256]}}}\n",
        &[
            "s.yaml:6:25: `x` allows HMAC without `keys.secret_file`: a public key would then work as the secret",
        ],
    );
    check(
        "identity: {issuers: {x: {issuer: 'https://x'}}}\n",
        &[
            "s.yaml:6:25: `x` has no `audiences`: tokens made for other services would be accepted; list ours, or if its tokens have no `aud`, name where the audience is, for example `audience_claim: client_id`",
        ],
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
        &["s.yaml:8:3: preset `dxcp` needs its own host or listener; add `hosts` or `listeners`"],
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
        ["more/c.yaml:1:14: `undeclared` is already set, at more/b.yaml:1:48"],
    );
    write("s.yaml", &format!("{HEAD}include: [gone.yaml]\n"));
    assert_eq!(
        load(folder.path(), &[]).unwrap_err(),
        ["s.yaml:6:11: cannot read `gone.yaml`: no such file"]
    );
    write("s.yaml", &format!("{HEAD}include: [s.yaml]\n"));
    assert_eq!(
        load(folder.path(), &[]).unwrap_err(),
        ["s.yaml:6:11: `s.yaml` is already included"]
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
            "s.yaml:7:17: a single `$` has no meaning; write `${VAR}`, or `$$` for a dollar sign",
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
    assert!(manual.contains("| `per_workspace` |"));
}
