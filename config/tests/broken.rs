//! Texts that are wrong, and what exactly an operator is told. The place is part of the sentence.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use proptest::prelude::*;

/// The lines 1 to 5 of every text here, so that each is about one thing.
const HEAD: &str = "version: stagedoor/v1
listeners:
  edge: {kind: reverse, address: 127.0.0.1:8080}
upstreams:
  portal: {url: http://127.0.0.1:7007}
";

/// `line:column: sentence` of everything that is wrong.
fn told(text: &str) -> Vec<String> {
    let problems = config::parse("s", text).err();
    problems
        .iter()
        .flat_map(config::Problems::iter)
        .map(|problem| one(&problem.to_string()))
        .collect()
}

fn one(problem: &str) -> String {
    problem.strip_prefix("s:").unwrap_or(problem).to_owned()
}

/// After `HEAD`, so that what is said here begins at line 6.
#[track_caller]
fn check(rest: &str, expected: &[&str]) {
    assert_eq!(told(&format!("{HEAD}{rest}")), expected, "\n{rest}");
}

#[track_caller]
fn check_whole(text: &str, expected: &[&str]) {
    assert_eq!(told(text), expected, "\n{text}");
}

#[test]
fn a_text_that_is_no_yaml_is_told_in_plain_words() {
    check("process: 'abc\n", &["6:10: this quote is never closed; add the closing one"]);
    check("process: \"abc\n", &["6:10: this quote is never closed; add the closing one"]);
    check("process: {threads: 1\n", &["6:10: `{` is never closed; add `}`"]);
    check("routes: [a, b\n", &["6:9: `[` is never closed; add `]`"]);
    check("routes: [a, b}\n", &["6:9: `}` cannot close `[`; write `]`"]);
    check("process: {threads: 1}}\n", &["6:22: this bracket closes nothing; remove it"]);
    check(
        "process:\n\tthreads: 1\n",
        &["7:1: this line is indented with a tab; YAML is indented with spaces"],
    );
    check(
        "process:\n  threads: 1\n\tdrain_delay: 5s\n",
        &["8:1: this line is indented with a tab; YAML is indented with spaces"],
    );
    check(
        "process:\n  threads: 1\n drain_delay: 5s\n",
        &[
            "8:2: this line is indented by 1, and no line above is at the level that it would belong to; indent it by 0 or 2 spaces",
        ],
    );
    check("- a\n", &["6:3: expected a line `key: value`; is it indented like the lines above?"]);
    check(
        "process: a: b\n",
        &[
            "6:11: a `key: value` cannot begin here; quote text that contains `: `, or begin a new line",
        ],
    );
    check("process: @foo\n", &["6:10: a value cannot begin with `@`; put it in quotes"]);
    check("process: \u{7}\n", &["6:10: a value cannot begin with `\\u{7}`; put it in quotes"]);
    check(
        "process: {\"thr\\qeads\": 1}\n",
        &["6:11: no such escape; write `\\\\` for a backslash, or use single quotes"],
    );
}

#[test]
fn yaml_that_a_config_has_no_use_for_is_refused() {
    check(
        "process: {}\nprocess: {}\n",
        &["7:1: `process` appears twice in the same map; keep one"],
    );
    check(
        "process: {threads: 1, threads: 2}\n",
        &["6:23: `threads` appears twice in the same map; keep one"],
    );
    check(
        "---\nversion: x\n",
        &[
            "7:1: a second YAML document begins here; a config is a single document; use `include` for more files",
        ],
    );
    check("process: *gone\n", &["6:10: no anchor above has this name; write `&name` there first"]);
    check("routes: &a [*a]\n", &["6:13: this alias is inside its own anchor; write the value out"]);
    check("? [a, b]\n: c\n", &["6:3: a key must be a word, not a list or a map"]);
    check("~: x\n", &["6:1: a key is empty; write a name before the `:`"]);
    check(
        "audit: {directory: !secret x}\n",
        &["6:28: tags such as `!name` have no meaning here; remove it"],
    );
    check(
        "process: {threads: .nan}\n",
        &["6:20: this number cannot be used; quote it if it is text"],
    );
}

#[test]
fn deep_nesting_is_refused_before_it_costs_the_stack() {
    let deep = |place: &str, rest: &str| {
        let sentence = "lists and maps are nested deeper than any config needs (24 levels)";
        assert_eq!(told(&format!("{HEAD}{rest}\n")), [format!("{place}: {sentence}")]);
    };
    deep("6:33", &format!("routes: {}", "[".repeat(5000)));
    deep("6:102", &format!("process: {}", "{a: ".repeat(5000)));
    let lines: String = (0..5000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    deep("30:25", &lines);
}

#[test]
fn an_alias_bomb_is_one_problem() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let told = told(&format!("{HEAD}{bomb}"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0]
            .ends_with("this file, or its aliases, has more values than any config needs; split it with `include`"),
        "{told:?}"
    );
}

#[test]
fn a_value_of_another_kind_is_told_with_what_to_write() {
    check(
        "process: []\n",
        &[
            "6:10: `process` is a list, expected a map with keys such as `threads` and `drain_delay`",
        ],
    );
    check(
        "rate_limit: {per_workspace: 50/s}\n",
        &[
            "6:29: `rate_limit.per_workspace` is the text `50/s`, expected a map with keys such as `rate` and `burst`",
        ],
    );
    check("routes: abc\n", &["6:9: `routes` is the text `abc`, expected a list; write `[abc]`"]);
    check(
        "routes: a b\n",
        &[
            "6:9: `routes` is the text `a b`, expected a list; write `[...]` or lines that begin with `-`",
        ],
    );
    check(
        "audit: {directory: 5}\n",
        &["6:20: `audit.directory` is the number `5`, expected text; put it in quotes"],
    );
    check("audit: {directory: [a]}\n", &["6:20: `audit.directory` is a list, expected a text"]);
    check(
        "process: {threads: 70000}\n",
        &["6:20: `process.threads` is the number `70000`, expected a whole number from 1 to 65535"],
    );
    check(
        "process: {threads: -1}\n",
        &["6:20: `process.threads` is the number `-1`, expected a whole number from 1 to 65535"],
    );
    check(
        "process: {threads: '4'}\n",
        &["6:20: `process.threads` is the text `4`, expected a whole number; remove the quotes"],
    );
    check(
        "process: {metric_aliases: 'true'}\n",
        &[
            "6:27: `process.metric_aliases` is the text `true`, expected `true` or `false`; remove the quotes",
        ],
    );
    check(
        "process: {drain_delay: [5s]}\n",
        &["6:24: `process.drain_delay` is a list, expected a number with a unit"],
    );
    check(
        "workspaces: {choose_by: [1]}\n",
        &[
            "6:26: `workspaces.choose_by[0]` is a single word; there is `header`, `path`, `only_membership`, `cookie`, `host`, `claim`, `default`",
        ],
    );
}

#[test]
fn an_address_that_is_none_is_told_with_an_example() {
    check_whole(
        "version: stagedoor/v1\nlisteners:\n  edge: {kind: reverse, address: 'localhost:80', trusted_proxies: [10.0.0.0/33, ten]}\n",
        &[
            "3:34: `listeners.edge.address` is not an IP address with a port; write for example `127.0.0.1:8080`",
            "3:68: `listeners.edge.trusted_proxies[0]` is not a range of IP addresses; write for example `10.0.0.0/8`",
            "3:81: `listeners.edge.trusted_proxies[1]` is not a range of IP addresses; write for example `10.0.0.0/8`",
        ],
    );
}

#[test]
fn a_long_text_is_not_repeated_in_full() {
    let key = "A".repeat(2000);
    check(
        &format!("process: {key}\n"),
        &[&format!(
            "6:10: `process` is the text `{}...`, expected a map with keys such as `threads` and `drain_delay`",
            "A".repeat(60)
        )],
    );
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    check_whole(
        "",
        &[
            "1:1: `version` is missing in the top level",
            "1:1: `listeners` is missing in the top level",
        ],
    );
    check(
        "routes:\n- {methods: [GET], path: /a}\n",
        &[
            "7:3: `name` is missing in `routes[0]`",
            "7:3: `upstream` is missing in `routes[0]`",
            "7:3: `class` is missing in `routes[0]`",
        ],
    );
    check(
        "identity: {issuers: {x: {}}}\n",
        &["6:25: `issuer` is missing in `identity.issuers.x`; write the exact `iss` of its tokens"],
    );
}

#[test]
fn what_follows_from_a_mistake_is_not_told_again() {
    // Without its one step the path is empty, and without its address the listener lacks one.
    check(
        "identity: {issuers: {x: {issuer: x, claims: {roles: [5]}}}}\n",
        &[
            "6:54: `identity.issuers.x.claims.roles[0]` is the number `5`, expected text; put it in quotes",
        ],
    );
    check_whole(
        "version: stagedoor/v1\nlisteners:\n  edge: {kind: reverse, address: 5}\n",
        &[
            "3:34: `listeners.edge.address` is the number `5`, expected an address and a port; write for example `127.0.0.1:8080`",
        ],
    );
}

const ROUTE: &str = "methods: [GET], upstream: portal, class: read";

#[test]
fn what_one_field_cannot_know_of_another_is_told_together_with_mistakes_of_other_kinds() {
    check(
        &format!(
            "process: {{drain_delay: 5}}
routes:
- {{name: a, path: /a, methods: [GET], upstream: prtal, class: read}}
- {{name: b, path: /b, methods: [GTE], upstream: protal, class: read, listeners: [edg]}}
- {{name: c, path: '/c/{{x}}', {ROUTE}}}
- {{name: d, path: '/c/{{y}}', {ROUTE}}}
identity: {{issuers: {{x: {{issuer: 'https://x'}}, y: {{issuer: 5}}}}}}
"
        ),
        &[
            "6:24: `5` is not a duration; write `5s`, `500ms` or `2m`",
            "8:49: no upstream `prtal`; did you mean `portal`?",
            "9:33: `routes[1].methods[0]` cannot be `GTE`; did you mean `GET`?",
            "9:49: no upstream `protal`; did you mean `portal`?",
            "9:82: no listener `edg`",
            "11:3: route `d` matches the same requests as `c`, at s:10:3",
            "12:25: `x` has no `audiences`: tokens made for other services would be accepted; list ours, or if its tokens have no `aud`, name where the audience is, for example `audience_claim: client_id`",
            "12:60: `identity.issuers.y.issuer` is the number `5`, expected text; put it in quotes",
        ],
    );
    check(
        &format!(
            "  other: {{url: 5}}\nroutes:\n- {{name: a, path: /a, {ROUTE}}}\n- {{name: b, path: /b, methods: [GET], upstream: othr, class: read}}\n"
        ),
        &[
            "6:16: `upstreams.other.url` is the number `5`, expected text; put it in quotes",
            "9:49: no upstream `othr`; did you mean `other`?",
        ],
    );
}

#[test]
fn what_may_only_follow_from_a_mistake_is_not_told() {
    let route = format!("routes:\n- {{name: a, path: /a, {ROUTE}}}\n");
    // A name whose entry is wrong, or stands in a section that is.
    for (upstreams, expected) in [
        (
            "upstreams: {portal: {url: 'http://a', tsl: {}}}",
            "3:39: unknown key `tsl` in `upstreams.portal`; did you mean `tls`?",
        ),
        (
            "upstreems: {portal: {url: 'http://a'}}",
            "3:1: unknown key `upstreems` in the top level; did you mean `upstreams`?",
        ),
        ("upstreams: [portal]", "3:12: `upstreams` is a list, expected a map"),
    ] {
        let listeners = "listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}}";
        let told = told(&format!("version: stagedoor/v1\n{listeners}\n{upstreams}\n{route}"));
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    }
    check_whole(
        "version: stagedoor/v1
listeners: {edge: {kind: revers, address: '127.0.0.1:1'}}
upstreams: {up: {url: 'http://a'}}
routes: [{name: a, path: /a, methods: [GET], upstream: up, class: read, listeners: [edge]}]
identity: {client_certificates: [{name: a, caller: b}]}
",
        &["2:26: `listeners.edge.kind` cannot be `revers`; did you mean `reverse`?"],
    );
    for (workspaces, expected) in [
        ("{named: {pay: {group: [a]}}}", "3:28: unknown key `group` in `workspaces.named.pay`"),
        ("{nmed: {pay: {}}}", "3:14: unknown key `nmed` in `workspaces`"),
        ("{undeclared: yes}", "3:26: `workspaces.undeclared` is the text `yes`"),
    ] {
        let listeners =
            "listeners: {edge: {kind: reverse, address: '127.0.0.1:1', workspace: pay}}";
        let told = told(&format!("version: stagedoor/v1\n{listeners}\nworkspaces: {workspaces}\n"));
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    }
    // What is left of an entry is another entry.
    check(
        &format!(
            "routes:\n- {{name: a, path: /a, {ROUTE}}}\n- {{name: b, path: /a, hosts: ['a b'], {ROUTE}}}\n"
        ),
        &[
            "8:31: `a b` is not a host; write `portal.example.com` or `*.example.com`, without a port",
        ],
    );
    check(
        "headers: {workspace: 'x y', caller: X-Orbit-Workspace-Id}\n",
        &["6:22: `x y` is not a header name; write for example `x-workspace`"],
    );
    // A file that cannot be read may hold anything.
    check_files(
        &[("a", "upstreams: {other: {url: 'http://a'}\n")],
        "include: [a]\nroutes:\n- {name: b, path: /b, methods: [GET], upstream: other, class: read}\n",
        &["a:1:12: `{` is never closed; add `}`"],
    );
}

#[test]
fn braces_in_a_text_stay_as_they_are() {
    check(
        "routes:\n- {name: a, methods: [GET], path: 'v1/{path}', upstream: portal, class: read}\n",
        &[
            "7:35: `v1/{path}` does not begin with `/`; write for example `/v1/services/{service}` or `/api/catalog/**`",
        ],
    );
}

#[test]
fn a_key_cannot_disturb_the_terminal() {
    check(
        "plugins: {a: {\"\\e[2J\": 1}}\n",
        &[
            "6:15: unknown key `\\u{1b}[2J` in `plugins.a`; there is `enabled_percent`, `rate_limit`",
        ],
    );
}

fn load(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<config::Loaded, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let variable = |name: &str| {
        variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    };
    let strip = format!("{}/", folder.path().display());
    config::load(&folder.path().join("s"), &variable).map_err(|problems| {
        problems.iter().map(|p| one(&p.to_string().replace(&strip, ""))).collect()
    })
}

#[track_caller]
fn check_files(files: &[(&str, &str)], rest: &str, expected: &[&str]) {
    let main = format!("{HEAD}{rest}");
    let all: Vec<_> = [("s", main.as_str())].into_iter().chain(files.iter().copied()).collect();
    let told = load(&all, &[]).err().unwrap_or_default();
    assert_eq!(told, expected, "\n{rest}");
}

#[test]
fn mistakes_of_included_files_are_told_together_with_those_of_the_main_one() {
    check_files(
        &[
            ("w/a.yaml", "workspaces:\n  named:\n    pay: {gruops: [a]}\n"),
            ("w/b.yaml", "audit: ["),
        ],
        "include: [w/*.yaml]\nprocess: {drain_delay: 5}\n",
        &[
            "7:24: `5` is not a duration; write `5s`, `500ms` or `2m`",
            "w/a.yaml:3:11: unknown key `gruops` in `workspaces.named.pay`; did you mean `groups`?",
            "w/b.yaml:1:8: `[` is never closed; add `]`",
        ],
    );
    check_files(
        &[("a", "- x\n")],
        "include: [a]\n",
        &["a:1:1: a config is a map; begin with `version: stagedoor/v1`"],
    );
    check_files(
        &[("a", "process: {threads: 1}\n")],
        "process: {threads: 2}\ninclude: [a]\n",
        &["a:1:11: `threads` is already set, at s:6:11"],
    );
}

#[test]
fn what_cannot_be_included_is_told() {
    check_files(
        &[],
        "include: a\n",
        &["6:10: `include` is a list; write `include: [workspaces/*.yaml]`"],
    );
    check_files(&[], "include: [gone]\n", &["6:11: cannot read `gone`: no such file"]);
    check_files(
        &[],
        "include: ['*/a']\n",
        &["6:11: `*` may appear once, in the file name; write `folder/*.yaml`"],
    );
    check_files(
        &[],
        "include: ['a*b*']\n",
        &["6:11: `*` may appear once, in the file name; write `folder/*.yaml`"],
    );
    check_files(
        &[("a", "include: [b]\n"), ("b", "include: [a]\n")],
        "include: [a]\n",
        &["b:1:11: `a` is already included"],
    );
}

#[test]
fn too_long_a_chain_of_files_is_refused() {
    let chain: Vec<_> =
        (0..12).map(|n| (format!("f{n}"), format!("include: [f{}]\n", n + 1))).collect();
    let files: Vec<_> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    check_files(&files, "include: [f0]\n", &["f7:1:11: too many files are included, at `f8`"]);
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    if cfg!(target_os = "linux") {
        check_files(
            &[],
            "include: [/dev/zero]\n",
            &["6:11: `/dev/zero` makes the config larger than 16 MiB"],
        );
    }
}

#[test]
fn a_variable_is_read_as_what_its_field_wants() {
    let text = format!(
        "{HEAD}process: {{threads: '${{N}}', metric_aliases: '${{B:-false}}', upgrade_socket: '${{S:-}}'}}\n"
    );
    let process = load(&[("s", &text)], &[("N", "3")]).unwrap().config.process;
    assert_eq!(process.threads.map(|n| n.get()), Some(3));
    assert!(!process.metric_aliases);
    assert_eq!(process.upgrade_socket, None);
}

#[test]
fn a_variable_that_cannot_be_replaced_is_told() {
    check(
        "audit: {directory: '${X}'}\n",
        &["6:20: `${X}` is not set; set it, or write `${X:-default}`"],
    );
    check(
        "audit: {directory: 'a$'}\n",
        &["6:20: a single `$` has no meaning; write `${VAR}`, or `$$` for a dollar sign"],
    );
    check("audit: {directory: '${X'}\n", &["6:20: `${` without a closing `}`; write `${VAR}`"]);
    check("audit: {directory: '${a b}'}\n", &["6:20: `${a b}` names no variable; write `${VAR}`"]);
    check(
        "audit: {directory: '${A:-${B}}'}\n",
        &["6:20: the default of `${A}` contains a variable; a default must be plain text"],
    );
}

const VALID: &str = "version: stagedoor/v1
listeners:
  edge: {kind: reverse, address: '127.0.0.1:8080', limits: {head_max: 64KiB}}
identity:
  issuers:
    idp: &idp {issuer: 'https://idp.example', audiences: [portal], claims: {roles: [a, b]}}
workspaces: {named: {pay: {groups: [pay], rate_limit: {rate: 50/s, burst: 5}}}}
upstreams:
  portal: {url: \"http://127.0.0.1:7007\", timeouts: {connect: 1m30s}}
routes:
- name: a
  methods: [GET, POST]
  path: /a/{b}
  upstream: portal
  class: read
process: {threads: 2, upgrade_socket: '${X:-/run/x}'}
";

#[test]
fn the_text_that_is_going_to_be_broken_is_valid() {
    check_whole(VALID, &[]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_every_problem_lies_within_the_text(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, "[\\PC\\n\\t]{0,4}|[-:{}\\[\\]#&*!|>'\"%@`$~ \n]{0,4}"), 1..6)
    ) {
        let mut text: Vec<char> = VALID.chars().collect();
        for (at, length, instead) in cuts {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + length);
            text.splice(at..end, instead.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = config::parse("s", &text) {
            prop_assert!(!problems.is_empty());
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            for problem in problems.iter() {
                prop_assert!(!problem.message.contains(['\n', '\u{1b}']), "{problem}");
                prop_assert!(problem.place.line as usize <= lines + 1, "{problem}");
            }
        }
    }
}
