//! What tokens of real issuers say.

use serde_json::{Value, json};

use super::stage::{Harness, NOW, label, labels, orbit, with};
use crate::{denial::TokenFault as T, identity::CallerKind};

/// As Keycloak 26 makes them without an audience mapper.
fn keycloak() -> Value {
    json!({
        "exp": NOW + 300, "iat": NOW, "auth_time": NOW, "jti": "onrtac:6f5b",
        "iss": "https://keycloak.example/realms/pcp", "aud": "account",
        "sub": "b2a5f7de-6a4e-4b67-9a5c-6f8f2d4f8a11", "typ": "Bearer", "azp": "backstage",
        "sid": "0e9b", "acr": "1", "allowed-origins": ["https://portal.example"],
        "realm_access": {"roles": ["offline_access", "developer"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "attributes": {"workspaces": ["payments", "ledger"]},
        "scope": "profile email", "email_verified": true, "name": "Ada L",
        "preferred_username": "ada", "email": "ada@example.com",
    })
}

#[test]
fn keycloak_names_roles_within_realm_access() {
    let stage = Harness::new();
    let caller = stage.bearer(&stage.rs256.sign(&keycloak())).unwrap();
    assert_eq!(&*caller.subject, "b2a5f7de-6a4e-4b67-9a5c-6f8f2d4f8a11");
    assert_eq!(caller.roles, labels(&["offline_access", "developer"]));
    assert_eq!(caller.workspaces, labels(&["payments", "ledger"]));
    assert_eq!(caller.groups, []);
    assert_eq!(caller.kind, CallerKind::User);
    assert_eq!((&*caller.issuer, caller.expires), ("keycloak", NOW + 300));
}

#[test]
fn a_path_does_not_match_a_name_with_dots_nor_the_other_way_round() {
    let stage = Harness::new();
    let others = json!({"realm_access": null, "realm_access.roles": ["admin"], "roles": ["admin"]});
    let caller = stage.bearer(&stage.rs256.sign(&with(keycloak(), others))).unwrap();
    assert_eq!(caller.roles, []);
}

#[test]
fn a_keycloak_token_of_another_client_is_refused() {
    let stage = Harness::new();
    let token = |others: Value| stage.rs256.sign(&with(keycloak(), others));
    for others in [
        json!({"azp": "grafana"}),
        json!({"azp": null}),
        json!({"azp": ["backstage"]}),
        json!({"azp": "grafana", "client_id": "backstage"}),
    ] {
        stage.refuses(&token(others), &T::PartyWrong { issuer: label("x"), seen: None });
    }
    stage.bearer(&token(json!({"azp": null, "client_id": "backstage"}))).unwrap();
}

#[test]
fn auth0_names_roles_by_a_url() {
    let stage = Harness::new();
    let claims = json!({
        "https://dxcp.example/claims/roles": ["dxcp-delivery-owners"],
        "https://dxcp.example/claims/email": "ada@example.com",
        "iss": "https://dxcp.eu.auth0.example/", "sub": "auth0|64f1",
        "aud": ["https://dxcp-api", "https://dxcp.eu.auth0.example/userinfo"],
        "iat": NOW, "exp": NOW + 86_400, "scope": "openid profile", "azp": "N5k",
        "permissions": [],
    });
    let caller = stage.bearer(&stage.rs256.sign(&claims)).unwrap();
    assert_eq!(&*caller.subject, "auth0|64f1");
    assert_eq!(caller.roles, labels(&["dxcp-delivery-owners"]));
    assert_eq!(caller.kind, CallerKind::User);
}

#[test]
fn orbit_signs_with_a_secret() {
    let stage = Harness::new();
    let caller = stage.bearer(&stage.hs256.sign(&orbit())).unwrap();
    assert_eq!((&*caller.subject, &*caller.issuer), ("user-1", "orbit"));
    assert_eq!(caller.workspaces, labels(&["ws-abc"]));
}

#[test]
fn a_client_that_is_its_own_subject_is_a_service() {
    let stage = Harness::new();
    let check = |others: Value, kind: CallerKind| {
        let caller = stage.bearer(&stage.hs256.sign(&with(orbit(), others.clone()))).unwrap();
        assert_eq!(caller.kind, kind, "{others}");
    };
    check(json!({}), CallerKind::User);
    check(json!({"azp": "portal"}), CallerKind::User);
    check(json!({"azp": "user-1"}), CallerKind::Service);
    check(json!({"client_id": "user-1"}), CallerKind::Service);
    check(json!({"gty": "client-credentials"}), CallerKind::Service);
    check(json!({"preferred_username": "service-account-ci"}), CallerKind::Service);
}

#[test]
fn a_list_may_be_an_array_or_one_text() {
    let stage = Harness::new();
    let groups = |value: Value| {
        stage
            .bearer(&stage.hs256.sign(&with(orbit(), json!({"groups": value}))))
            .unwrap()
            .groups
            .clone()
    };
    assert_eq!(groups(json!(["a", "b c"])), labels(&["a", "b c"]));
    // One text is one name, unless it is of roles, which `scope` may hold.
    assert_eq!(groups(json!("Domain Admins")), labels(&["Domain Admins"]));
    assert_eq!(groups(json!("")), []);
    assert_eq!(groups(json!([])), []);
    // No rule can name these, and they are never altered.
    assert_eq!(groups(json!(["a", "Müller", "", "x\ny"])), labels(&["a"]));
}

#[test]
fn a_list_of_anything_else_or_without_end_is_malformed() {
    let stage = Harness::new();
    let token = |value: Value| stage.hs256.sign(&with(orbit(), json!({"roles": value})));
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    for value in [json!(1), json!({"a": 1}), json!(["a", 1]), json!([["a"]]), json!(many)] {
        stage.finds_malformed(&token(value));
    }
    stage.bearer(&token(json!(many[1..]))).unwrap();
}

#[test]
fn only_roles_are_split_at_spaces() {
    let stage = Harness::new();
    let said = json!({"roles": "a  b c", "groups": "a b", "workspaces": "payments ledger"});
    let caller = stage.bearer(&stage.hs256.sign(&with(orbit(), said))).unwrap();
    assert_eq!(caller.roles, labels(&["a", "b", "c"]));
    assert_eq!(caller.groups, labels(&["a b"]));
    assert_eq!(caller.workspaces, labels(&["payments ledger"]));
}

/// Entra leaves the groups out when there are over 200: nobody must be taken for a member of none.
#[test]
fn groups_that_are_elsewhere_are_noted() {
    let stage = Harness::new();
    let left_out = |others: Value| {
        let caller = stage.bearer(&stage.hs256.sign(&with(orbit(), others))).unwrap();
        let out = caller.left_out;
        (out.roles, out.groups, out.workspaces)
    };
    let sources = json!({"src1": {"endpoint": "https://graph.windows.net/x/getMemberObjects"}});
    let names = |names: Value| json!({"_claim_names": names, "_claim_sources": sources});
    assert_eq!(left_out(names(json!({"groups": "src1"}))), (false, true, false));
    assert_eq!(left_out(names(json!({"roles": "src1"}))), (true, false, false));
    assert_eq!(left_out(json!({"hasgroups": true})), (false, true, false));
    assert_eq!(left_out(json!({"hasgroups": "true"})), (false, true, false));
    for nothing in [
        json!({}),
        json!({"hasgroups": false}),
        json!({"hasgroups": 1}),
        names(json!("groups")),
        names(json!(["groups"])),
        // Of no concern where this list is not read.
        names(json!({"wids": "src1"})),
        // Nor where the list is present anyway.
        with(names(json!({"groups": "src1"})), json!({"groups": ["a"]})),
        json!({"hasgroups": true, "groups": []}),
    ] {
        assert_eq!(left_out(nothing.clone()), (false, false, false), "{nothing}");
    }
}
