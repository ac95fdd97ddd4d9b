//! Callers by what several claims say together.

use serde_json::{Value, json};

use super::stage::{Harness, NOW, label, labels, with};
use crate::Denial;

/// As GitHub makes them for a workflow.
fn workflow() -> Value {
    json!({
        "iss": "https://github.example", "aud": "a", "exp": NOW + 60,
        "sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop",
        "repository_owner": "acme", "ref": "refs/heads/main", "event_name": "push",
    })
}

#[test]
fn the_first_matching_rule_names_the_caller() {
    let stage = Harness::new();
    let caller = stage.bearer(&stage.es256.sign(&workflow())).unwrap();
    assert_eq!(&*caller.subject, "service:shop");
    assert_eq!(caller.workspaces, labels(&["payments"]));
    assert_eq!(caller.roles, labels(&["deployer"]));
    let others = json!({"sub": "repo:acme/shop:pull_request", "event_name": "pull_request"});
    let caller = stage.bearer(&stage.es256.sign(&with(workflow(), others))).unwrap();
    // Nobody gave it another name.
    assert_eq!(&*caller.subject, "repo:acme/shop:pull_request");
    assert_eq!((caller.groups.clone(), caller.workspaces.len()), (labels(&["checks"]), 0));
}

#[test]
fn a_caller_that_matches_no_rule_is_unknown_however_similar() {
    let stage = Harness::new();
    for others in [
        json!({"sub": "repo:acme/shop:ref:refs/heads/main2"}),
        json!({"sub": "repo:acme/shop:ref:refs/heads/main/x"}),
        json!({"sub": "repo:evil/repo:acme/shop:ref:refs/heads/main"}),
        json!({"ref": "refs/heads/dev"}),
        json!({"ref": null}),
        json!({"ref": ["refs/heads/main"]}),
        json!({"ref": {"x": "refs/heads/main"}}),
        json!({"repository": "acme/x/y", "event_name": "pull_request", "ref": "x"}),
        json!({"repository": "acme-evil/x", "event_name": "pull_request", "ref": "x"}),
        json!({"repository": "evil:acme/x", "event_name": "pull_request", "ref": "x"}),
    ] {
        let refusal = stage.bearer(&stage.es256.sign(&with(workflow(), others))).unwrap_err();
        let Denial::CallerUnknown { issuer, .. } = &refusal.denial else {
            panic!("{:?}", refusal.denial)
        };
        assert_eq!(*issuer, label("github"));
        // The token is valid: signing in again would not help.
        assert_eq!((refusal.denial.status().as_u16(), refusal.suspect), (403, false));
        assert_eq!(refusal.denial.challenge(), None);
    }
}
