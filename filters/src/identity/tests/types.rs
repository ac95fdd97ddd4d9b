//! Tokens that an issuer signed for something else.

use serde_json::{Value, json};

use super::stage::{Harness, NOW, with};

fn claims(issuer: &str) -> Value {
    json!({"iss": format!("https://{issuer}.example"), "aud": "a", "sub": "ada", "exp": NOW + 60})
}

#[track_caller]
fn check(stage: &Harness, issuer: &str, typ: Value, others: Value, passes: bool) {
    let header = with(json!({"alg": "ES256", "kid": "ec"}), json!({"typ": typ}));
    let token = stage.es256.sign_as(&header, &with(claims(issuer), others.clone()));
    match stage.bearer(&token) {
        Ok(_) => assert!(passes, "{header} {others}"),
        Err(refusal) => {
            assert_eq!(refusal.denial.code(), "token_type_wrong", "{header} {others}");
            assert!(!passes, "{header} {others}");
        }
    }
}

#[test]
fn only_access_tokens_pass_where_no_type_is_written() {
    let stage = Harness::new();
    for typ in [
        Value::Null,
        json!("JWT"),
        json!("jwt"),
        json!("at+jwt"),
        json!("application/at+jwt"),
        json!("application/okta-internal-at+jwt"),
        json!("JOSE"),
    ] {
        check(&stage, "usual", typ, json!({}), true);
    }
    for typ in [
        "dpop+jwt",
        "secevent+jwt",
        "application/secevent+jwt",
        "logout+jwt",
        "Logout+JWT",
        "id+jwt",
        "kb+jwt",
        "oauth-authz-req+jwt",
        "token-introspection+jwt",
        "client-authentication+jwt",
        "dc+sd-jwt",
        "JWE",
        "",
        "JWT ",
    ] {
        check(&stage, "usual", json!(typ), json!({}), false);
    }
}

#[test]
fn other_tokens_are_recognized_by_their_claims() {
    let stage = Harness::new();
    let usual = |others: Value, passes: bool| check(&stage, "usual", json!("JWT"), others, passes);
    let logout = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    usual(json!({"events": logout}), false);
    usual(json!({"events": {}}), false);
    usual(json!({"events": ["login"]}), true);
    for typ in ["ID", "Refresh", "Offline", "Logout", "refresh", "RegistrationAccessToken"] {
        usual(json!({"typ": typ, "scope": "openid"}), false);
    }
    usual(json!({"typ": "Bearer", "nonce": "n"}), true);
    usual(json!({"typ": "Bearer", "scope": "openid", "nonce": "n"}), true);
    for told in ["at_hash", "c_hash", "s_hash", "nonce"] {
        usual(json!({told: "x"}), false);
        // Azure AD B2C writes `nonce` into access tokens as well.
        usual(json!({told: "x", "scp": "read"}), true);
        check(&stage, "usual", json!("at+jwt"), json!({told: "x"}), true);
    }
    usual(json!({"token_use": "id"}), false);
    usual(json!({"token_use": "access"}), true);
    // As Google, GitHub, Kubernetes and Cloudflare make them.
    usual(json!({"email": "a@example.com", "email_verified": true, "azp": "x"}), true);
    usual(json!({"kubernetes.io": {"namespace": "x"}}), true);
    usual(json!({"type": "app", "identity_nonce": "x", "country": "DE"}), true);
}

#[test]
fn id_tokens_pass_only_where_the_operator_allows_them() {
    let stage = Harness::new();
    let ids = |others: Value, passes: bool| check(&stage, "ids", json!("JWT"), others, passes);
    ids(json!({"nonce": "n", "at_hash": "x"}), true);
    ids(json!({"typ": "ID"}), true);
    ids(json!({"token_use": "id"}), true);
    ids(json!({"typ": "Refresh"}), false);
    ids(json!({"typ": "Logout"}), false);
    ids(json!({"events": {}, "nonce": "n"}), false);
    check(&stage, "ids", json!("logout+jwt"), json!({}), false);
}

#[test]
fn a_token_names_its_default_workspace() {
    let stage = Harness::new();
    let caller = |others: Value| {
        stage
            .bearer(&stage.es256.sign(&with(claims("usual"), others)))
            .unwrap()
            .default_workspace
            .clone()
    };
    assert_eq!(caller(json!({"home": "payments"})).as_deref(), Some("payments"));
    for none in [json!({}), json!({"home": 1}), json!({"home": ["payments"]}), json!({"home": ""})]
    {
        assert_eq!(caller(none), None);
    }
}
