use config::Config;

use super::{
    record::Record,
    turn::{settled, turns},
    *,
};

const BASE: &str = "version: stagedoor/v1
listeners:
  edge: {kind: reverse, address: '127.0.0.1:1', tls: {certificates: [{cert: c, key: k}], client_ca: ca}}
  out: {kind: forward, address: '127.0.0.1:2', plugin: catalog}
identity:
  issuers: {orbit: {issuer: orbit, audiences: [a], algorithms: [HS256], keys: {secret_file: s}}}
  client_certificates: [{name: robot, caller: 'service:robot', workspaces: [payments], roles: [bot]}]
workspaces: {named: {payments: {}, web: {}}}
upstreams:
  up: {url: 'http://127.0.0.1:3'}
  dxcp: {url: 'http://127.0.0.1:4', authority: delivery}
routes:
- {name: read, hosts: [a.example], methods: [GET], path: '/read/{id}', upstream: up, class: read}
- name: graphql
  hosts: [a.example]
  methods: [POST]
  path: /graphql
  upstream: up
  class: read
  options: {graphql: [{query: [stacks]}, {mutation: [run], access: {roles: [runner]}}]}
- {name: bots, hosts: [a.example], methods: [GET], path: /bots, upstream: up, class: read, options: {access: {roles: [bot]}}}
- {name: folders, hosts: [a.example], methods: [GET], path: '/folders/{name}', upstream: up, class: read}
";

fn loaded(more: &str) -> Config {
    let text = format!("{BASE}{more}");
    config::parse("s.yaml", &text).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// A record of ada, with some members replaced.
fn line(more: &str) -> String {
    let mut all: serde_json::Map<_, _> = serde_json::from_str(
        r#"{"time":"2026-11-24T12:00:00.000000Z","facts":1,"id":"1","listener":"edge","client":"192.0.2.1","method":"GET","host":"a.example","path":"/read/1","caller":"ada","issuer":"orbit","proof":"token","workspaces":["payments"],"decision":"allow","code":"ok","route":"read","upstream":"up","status":200}"#,
    )
    .unwrap();
    let other: serde_json::Map<String, serde_json::Value> = serde_json::from_str(more).unwrap();
    for (name, value) in other {
        if value.is_null() {
            all.remove(&name);
        } else {
            all.insert(name, value);
        }
    }
    serde_json::to_string(&all).unwrap()
}

fn decided(config: &Config, line: &str) -> Result<Decided, Why> {
    Replay::new(Policy::new(config, "test")).decide(&Record::read(line.as_bytes()).unwrap())
}

#[test]
fn what_a_record_does_not_hold_is_not_guessed() {
    let config = loaded("");
    let check = |more: &str, expected: Result<&str, Why>| {
        let found = decided(&config, &line(more)).map(|decided| decided.code());
        assert_eq!(found, expected, "{more}");
    };
    check("{}", Ok("ok"));
    check(r#"{"facts":null}"#, Err(Why::Older));
    check(r#"{"facts":2}"#, Err(Why::Newer));
    check(r#"{"kind":"intent"}"#, Err(Why::NotAnExchange));
    check(r#"{"request_line":"GET /"}"#, Err(Why::NoRequest));
    check(r#"{"time":"now"}"#, Err(Why::Unknown));
    check(r#"{"proof":"handshake"}"#, Err(Why::Unknown));
    check(r#"{"listener":"gone"}"#, Err(Why::ListenerGone));
    check(r#"{"path_in_part":true}"#, Err(Why::InPart));
    check(r#"{"issuer":"gone"}"#, Err(Why::IssuerGone));
    check(r#"{"proof":"cookie"}"#, Err(Why::CookieRefused));
    check(r#"{"proof":"password"}"#, Err(Why::SignedIn));
    check(r#"{"decision":"deny","code":"rate_limited"}"#, Err(Why::State));
    let nobody = r#""caller":null,"issuer":null,"proof":null,"workspaces":null,"decision":"deny""#;
    check(&format!(r#"{{{nobody},"code":"token_expired"}}"#), Err(Why::NoCaller));
    check(&format!(r#"{{{nobody},"code":"caller_missing"}}"#), Ok("caller_missing"));
    check(&format!(r#"{{{nobody},"code":"token_expired","path":"/x"}}"#), Ok("route_unknown"));
    // A body that was not read decides nothing.
    let graphql = r#""method":"POST","path":"/graphql""#;
    check(&format!("{{{graphql}}}"), Err(Why::Body));
    check(
        &format!(r#"{{{graphql},"decision":"deny","code":"graphql_malformed"}}"#),
        Ok("graphql_malformed"),
    );
    let run = r#""graphql":{"kind":"mutation","fields":[{"name":"run","arguments":{}}]}"#;
    check(&format!("{{{graphql},{run}}}"), Ok("access_denied"));
    check(&format!(r#"{{{graphql},{run},"roles":["runner"]}}"#), Ok("ok"));
}

#[test]
fn a_recorded_certificate_identifies_the_caller_again() {
    let of = |names: &str| {
        line(&format!(
            r#"{{"path":"/bots","route":"bots","caller":"service:robot","issuer":"client-certificate","proof":"client_certificate","workspaces":["payments"],"roles":["bot"],"certificate":{names}}}"#
        ))
    };
    let config = loaded("");
    assert_eq!(decided(&config, &of(r#"{"dns":["robot"]}"#)).unwrap().code(), "ok");
    assert_eq!(decided(&config, &of(r#"{"dns":["other"]}"#)).unwrap().code(), "caller_missing");
    let mut other = config.clone();
    other.identity.client_certificates[0].value.roles.clear();
    assert_eq!(decided(&other, &of(r#"{"dns":["robot"]}"#)).unwrap().code(), "access_denied");
}

#[test]
fn a_call_is_judged_by_all_its_addresses_and_its_first_bytes() {
    let config = loaded("egress: {rules: [{name: r, to: [h.example]}]}\n");
    let of = |more: &str| {
        line(&format!(
            r#"{{"listener":"out","method":"CONNECT","host":null,"path":null,"route":null,"upstream":null,"target":"h.example:443","egress_rule":"r","caller":"listener:out","issuer":"egress","proof":"listener","workspaces":null{more}}}"#
        ))
    };
    let check = |more: &str, expected: Result<&str, Why>| {
        let found = decided(&config, &of(more)).map(|decided| decided.code());
        assert_eq!(found, expected, "{more}");
    };
    let hello = r#","hello":"tls","server_name":"h.example""#;
    check(&format!(r#","resolved":["8.8.8.8"]{hello}"#), Ok("ok"));
    check(&format!(r#","resolved":["10.0.0.1"]{hello}"#), Ok("address_refused"));
    check(&format!(r#","resolved":["10.0.0.1","8.8.8.8"]{hello}"#), Ok("ok"));
    check(
        &format!(r#","resolved":["8.8.8.8"],"resolved_own":["8.8.8.8"]{hello}"#),
        Ok("address_refused"),
    );
    check(
        r#","resolved":["8.8.8.8"],"hello":"tls","server_name":"other.example""#,
        Ok("hello_refused"),
    );
    check(&format!(r#","parent":"proxy.corp:8080"{hello}"#), Ok("ok"));
    check(
        &format!(r#","parent":"proxy.corp:8080","resolved":["10.0.0.1"]{hello}"#),
        Ok("address_refused"),
    );
    check(r#","resolved":["8.8.8.8"],"hello":"not_tls""#, Ok("hello_refused"));
    check(r#","resolved":["8.8.8.8"]"#, Err(Why::Hello));
    check(r#","resolved":["8.8.8.8"],"decision":"deny","code":"connect_timeout""#, Ok("ok"));
    check("", Err(Why::Unknown));
    let opened = decided(&config, &of(r#","decision":"deny","code":"host_refused""#)).unwrap();
    assert_eq!((opened.code(), opened.unjudged), ("ok", Some("its addresses")));
}

#[test]
fn every_code_is_a_rule_s_or_a_state_s() {
    // Those of rules; all others must be named in `Record::was`.
    let rules = [
        "path_ambiguous",
        "host_invalid",
        "host_unknown",
        "route_unknown",
        "route_closed",
        "class_admin",
        "upgrade_refused",
        "query_refused",
        "caller_missing",
        "authorization_ambiguous",
        "caller_unknown",
        "groups_left_out",
        "workspace_missing",
        "workspace_ambiguous",
        "workspace_unknown",
        "workspace_not_granted",
        "plugin_disabled",
        "access_denied",
        "idempotency_key_invalid",
        "graphql_malformed",
        "graphql_refused",
        "resource_refused",
        "caller_token_missing",
        "target_invalid",
        "host_refused",
        "address_refused",
        "hello_refused",
        "password_wrong",
    ];
    let table =
        concat!(include_str!("../../denial.rs"), include_str!("../../denial/token_fault.rs"));
    let rows = table.lines().filter(|l| l.contains("(S::") || l.contains("=> \"token_"));
    let codes: Vec<&str> = rows.filter_map(|row| row.split('"').nth(1)).collect();
    assert!(codes.len() > 55, "{codes:?}");
    for code in codes {
        let line = line(&format!(r#"{{"decision":"deny","code":"{code}"}}"#));
        let was = Record::read(line.as_bytes()).unwrap().was();
        let is_rule =
            rules.contains(&code) || code.starts_with("token_") && code != "token_exchange_refused";
        assert_eq!(was == Was::Denied, is_rule, "{code}");
    }
}

#[test]
fn a_turn_is_tested_and_an_impossible_one_is_explained() {
    let config = loaded("");
    let check = |more: &str, expected: &[&str]| {
        let line = line(more);
        let decided = decided(&config, &line).unwrap_or_else(|why| panic!("{why:?} {more}"));
        let record = Record::read(line.as_bytes()).unwrap();
        let mut found: Vec<String> =
            turns(&config, &record, &decided).into_iter().map(|turn| turn.change).collect();
        found.extend(settled(&config, &decided));
        assert_eq!(found, expected, "{more}");
    };
    let run = r#""method":"POST","path":"/graphql","graphql":{"kind":"mutation","fields":[{"name":"run","arguments":{}}]}"#;
    check(
        &format!(r#"{{{run},"groups":["ops"]}}"#),
        &[
            "options.graphql[1].access.callers: add `ada`",
            "options.graphql[1].access.groups: add `ops`",
        ],
    );
    let delete = run.replace("run", "delete");
    check(
        &format!("{{{delete}}}"),
        &[
            "options.graphql: a rule `{mutation: [delete]}` for this caller",
            "options.graphql: a rule `{mutation: [delete]}` for anybody",
        ],
    );
    check(
        r#"{"asked_workspace":"web","groups":["devs"]}"#,
        &["workspaces.named.web.callers: add `ada`", "workspaces.named.web.groups: add `devs`"],
    );
    check(
        r#"{"asked_workspace":"new","workspaces":["payments","new"]}"#,
        &[
            "workspaces.named.new: {callers: []}",
            "workspaces.named.new: {callers: [ada]}",
            "workspaces.undeclared: true",
        ],
    );
    check(
        r#"{"path":"/folders/a%2Fb"}"#,
        &["options.encoded_slashes: true", "the client must write the path in its normal form"],
    );
    check(r#"{"host":"b.example"}"#, &["hosts: add `b.example`"]);
    check(
        r#"{"method":"POST"}"#,
        &[
            "methods: add POST",
            "routes: add {name: opened, methods: [POST], path: '/read/1', upstream: up, class: action}",
            "routes: add {name: opened, methods: [POST], path: '/read/1', upstream: dxcp, class: action}",
        ],
    );
}

#[test]
fn what_administers_the_control_plane_cannot_be_turned() {
    let config = loaded("presets: [{preset: dxcp, upstream: dxcp, hosts: [dxcp.example]}]\n");
    let preset = config::Preset::named("dxcp").unwrap();
    let closed = preset.routes.iter().find(|r| r.state == config::PresetState::Closed).unwrap();
    let path = closed.path.to_string();
    let path: Vec<&str> =
        path.split('/').map(|s| if s.starts_with('{') { "x" } else { s }).collect();
    let (path, method) = (path.join("/").replace("**", "x"), format!("{:?}", closed.methods[0]));
    let method = method.to_uppercase().replace("ANY", "GET");
    let line = line(&format!(r#"{{"host":"dxcp.example","path":"{path}","method":"{method}"}}"#));
    let decided = decided(&config, &line).unwrap();
    assert_eq!(decided.code(), "route_closed", "{line}");
    assert_eq!(turns(&config, &Record::read(line.as_bytes()).unwrap(), &decided), []);
    assert!(settled(&config, &decided).unwrap().contains("closed for good"));
}

#[test]
fn a_stored_response_is_not_reported_as_a_passed_check() {
    let checks = |more: &str| Record::read(line(more).as_bytes()).unwrap().checks();
    assert_eq!(checks(r#"{"step":"response"}"#).unwrap(), "all passed, up to response");
    assert_eq!(
        checks(r#"{"step":"breaker","fallback_for":"breaker_open"}"#).unwrap(),
        "breaker_open after breaker: a kept response was served"
    );
    assert_eq!(checks("{}"), None);
}

#[test]
fn a_member_is_read_under_its_old_name_too() {
    for name in ["pacing_delay_us", "turn_us"] {
        let line = format!("{{\"time\":\"t\",\"{name}\":7}}");
        assert_eq!(Record::read(line.as_bytes()).map(|record| record.pacing_delay_us), Some(7));
    }
    for name in ["encrypted_client_hello", "encrypted_hello"] {
        let line = format!("{{\"time\":\"t\",\"{name}\":true}}");
        let hidden = Record::read(line.as_bytes()).map(|record| record.encrypted_client_hello);
        assert_eq!(hidden, Some(true));
    }
}
