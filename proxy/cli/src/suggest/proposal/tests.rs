use filters::{Label, allowlist::Allowlist};

use super::{super::records::Record, *};

const BASE: &str = "version: stagedoor/v1
listeners: {out: {kind: forward, address: '127.0.0.1:3128', plugin: catalog}}
workspaces: {named: {payments: {}, web: {}}}
";

fn call(plugin: &str, workspace: &str, target: &str) -> Record {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Record {
        time: "2026-11-24T12:00:00.000000Z".to_owned(),
        method: "CONNECT".to_owned(),
        target: named(target),
        plugin: named(plugin),
        workspace: named(workspace),
        caller: named("catalog\n- evil: true"),
        identity_strength: named("listener"),
        decision: "allow".to_owned(),
        code: "ok".to_owned(),
        would_deny: named("host_refused"),
        ..Record::default()
    }
}

fn proposed(calls: impl IntoIterator<Item = Record>, egress: Option<&str>) -> String {
    let loaded = egress.map(|egress| read(&format!("{BASE}{egress}")));
    let mut all = Calls::default();
    calls.into_iter().for_each(|record| all.take(record));
    let context = Context::of(loaded.as_ref().map(|loaded| &loaded.config));
    write(all, &context, Now::default())
}

fn read(text: &str) -> config::Loaded {
    config::parse("s.yaml", text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// Whether a config with the proposal pasted into it lets a call through.
fn allows(pasted: &str, plugin: &str, workspace: &str, target: &str) -> bool {
    let config = read(&format!("{BASE}{pasted}")).config;
    let target = filters::target::Target::of_connect(target.as_bytes()).unwrap();
    let label = |text: &str| (!text.is_empty()).then(|| Label::lossy(text));
    let (plugin, workspace) = (label(plugin), label(workspace));
    let list = Allowlist::new(&config.egress);
    list.allow(&target, plugin.as_ref(), workspace.as_ref(), Now::default()).is_ok()
}

const CALLS: [(&str, &str, &str); 11] = [
    ("catalog", "payments", "api.github.com:443"),
    ("catalog", "payments", "github.com:443"),
    ("catalog", "payments", "a.vendor.example:8443"),
    ("catalog", "payments", "b.vendor.example:443"),
    ("catalog", "web", "a.vendor.example:8443"),
    ("catalog", "web", "b.vendor.example:443"),
    ("on", "", "10.1.2.3:80"),
    ("", "web", "[2001:db8::1]:443"),
    ("", "", "xn--bcher-kva.example:443"),
    ("12", "payments", "acme.blob.core.windows.net:443"),
    ("catalog-web", "", "c.vendor.example:22"),
];

#[test]
fn a_proposal_that_is_pasted_is_valid_and_allows_what_was_called_and_nothing_else() {
    for config in [None, Some(""), Some("egress: {own_addresses: [198.51.100.0/24]}\n")] {
        let text = proposed(CALLS.map(|(p, w, t)| call(p, w, t)), config);
        for (plugin, workspace, target) in CALLS {
            assert!(allows(&text, plugin, workspace, target), "{target}\n{text}");
        }
        assert!(!allows(&text, "catalog", "payments", "acme.blob.core.windows.net:443"));
        assert!(!allows(&text, "catalog", "web", "api.github.com:443"));
        assert!(!allows(&text, "catalog", "web", "b.vendor.example:8443"));
        assert!(!allows(&text, "catalog", "web", "evil.example:443"));
    }
}

#[test]
fn a_proposal_does_not_depend_on_the_order_of_its_records() {
    let calls = |order: &mut dyn Iterator<Item = (&str, &str, &str)>| {
        let records: Vec<Record> = order.map(|(p, w, t)| call(p, w, t)).collect();
        proposed(records, Some(""))
    };
    assert_eq!(calls(&mut CALLS.into_iter()), calls(&mut CALLS.into_iter().rev()));
}

#[test]
fn what_the_rules_allow_is_left_out_and_names_that_are_taken_are_not_used() {
    let egress = "egress:
  hosts: {ours: ['*.vendor.example', 'a.vendor.example:8443']}
  rules:
  - {name: catalog-payments, to: [github.com], plugins: [catalog]}
  - {name: wide, to: ['*.wide.example'], report_only: true}
";
    let calls = CALLS.map(|(p, w, t)| call(p, w, t)).into_iter();
    let text = proposed(calls.chain([call("catalog", "web", "x.wide.example:443")]), Some(egress));
    assert!(text.contains("# Left out: 1 call that the rules already allow"), "{text}");
    assert!(text.contains("- name: \"catalog-payments-2\""), "{text}");
    assert!(text.contains("- \"github\"\n") && text.contains("- \"ours\"\n"), "{text}");
    assert!(
        text.contains("- \"x.wide.example:443\"\n"),
        "a rule that only reports is none: {text}"
    );
    assert!(
        !text.contains("- \"github.com:443\"") && !text.contains("- \"a.vendor.example:8443\"")
    );
    let unnamed = proposed([call("catalog", "gone", "a.example:443")], Some(egress));
    assert!(unnamed.contains("no such workspace") && unnamed.contains("No rule is missing"));
}

#[test]
fn a_proposal_says_what_a_reviewer_should_know() {
    let second =
        Record { time: "2026-11-25T12:00:00Z".to_owned(), ..call("", "", "a.example:443") };
    let inside = Record {
        would_deny: Some("address_refused".to_owned()),
        upstream_address: Some("10.2.3.4:443".to_owned()),
        ..call("catalog", "web", "harbor.corp.example:443")
    };
    let text = proposed([call("", "", "a.example:443"), second, inside], None);
    let expected = "# Not proposed: harbor.corp.example:443 for plugin catalog, workspace web: refused by its address, 1 time
# Not proposed: harbor.corp.example:443: 10.2.3.4 is private, so it stays refused; if this is intended, add to `egress.private`: {host: \"harbor.corp.example:443\", addresses: [\"10.2.3.4/32\"]}
egress:
  rules:
    # nobody known: 2 calls, 2026-11-24T12:00:00Z to 2026-11-25T12:00:00Z; callers catalog?- evil: true; identity_strength listener
    # Risk: unattributed, so this rule would be for every caller
    - name: \"everybody\"
      to:
        # 2 calls, 2026-11-24T12:00:00Z to 2026-11-25T12:00:00Z; callers catalog?- evil: true; identity_strength listener
        - \"a.example:443\"
";
    assert!(text.ends_with(expected), "{text}");
}
