//! Orbit's tokens, as its design writes them: they name neither issuer nor audience.

use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::{
    signer::{SECRET, Signer},
    stage::{Harness, NOW, headers, labels, orbit, plain, with},
};
use crate::{
    Denial,
    denial::TokenFault as T,
    identity::{Caller, ClientCertificate, Presented, Refusal},
};

/// The listener that accepts nothing else.
const OWN: usize = 1;

fn design() -> Value {
    json!({
        "sub": "user-123", "email": "user@example.com", "workspaces": ["ws-abc", "ws-xyz"],
        "role": "developer", "permissions": {"ws-abc": ["read"]}, "exp": NOW + 600, "iat": NOW,
    })
}

fn at(stage: &Harness, listener: usize, token: &str) -> Result<std::sync::Arc<Caller>, Refusal> {
    let headers = headers(&[(AUTHORIZATION, &format!("Bearer {token}"))]);
    stage.authenticate(&Presented { listener, ..plain(&headers) })
}

#[track_caller]
fn refuses(stage: &Harness, listener: usize, token: &str, code: &str) {
    assert_eq!(at(stage, listener, token).unwrap_err().denial.code(), code);
}

#[test]
fn it_passes_on_a_listener_of_its_own_and_nowhere_else() {
    let stage = Harness::new();
    let token = stage.hs256.sign(&design());
    let caller = at(&stage, OWN, &token).unwrap();
    assert_eq!((&*caller.subject, &*caller.issuer), ("user-123", "design"));
    assert_eq!(caller.workspaces, labels(&["ws-abc", "ws-xyz"]));
    assert_eq!(caller.roles, labels(&["developer"]));
    // Cached by now, but still not valid elsewhere.
    refuses(&stage, 0, &token, "token_claim_missing");
    // golang-jwt writes no `typ` of its own, and this one.
    let plain = stage.hs256.sign_as(&json!({"alg": "HS256"}), &design());
    at(&stage, OWN, &plain).unwrap();
}

#[test]
fn nothing_else_passes_there() {
    let stage = Harness::new();
    let other = stage.hs256.sign(&orbit());
    at(&stage, 0, &other).unwrap();
    refuses(&stage, OWN, &other, "token_issuer_unknown");
    let strict = json!({"iss": "https://usual.example", "aud": "a", "sub": "ada", "exp": NOW + 60});
    let strict = stage.es256.sign(&strict);
    at(&stage, 0, &strict).unwrap();
    refuses(&stage, OWN, &strict, "token_issuer_unknown");
    let user = stage.user.sign_as(
        &json!({"alg": "ES256", "typ": "vnd.backstage.user", "kid": "user"}),
        &json!({"sub": "user:default/a", "exp": NOW + 60}),
    );
    refuses(&stage, OWN, &user, "token_algorithm_refused");
    // It has an audience, and none is configured for us.
    for others in [json!({"aud": "stagedoor"}), json!({"aud": ["orbit"]}), json!({"aud": []})] {
        let token = stage.hs256.sign(&with(design(), others));
        refuses(&stage, OWN, &token, "token_audience_wrong");
    }
    let token = stage.hs256.sign(&with(design(), json!({"iss": ["orbit"]})));
    refuses(&stage, OWN, &token, "token_issuer_unknown");
}

#[test]
fn it_is_as_strictly_read_as_any() {
    let stage = Harness::new();
    let code = |header: Value, claims: Value| {
        let header = with(json!({"alg": "HS256", "typ": "JWT"}), header);
        let token = stage.hs256.sign_as(&header, &with(design(), claims));
        at(&stage, OWN, &token).map_or_else(|refusal| refusal.denial.code(), |_| "ok")
    };
    assert_eq!(code(json!({}), json!({})), "ok");
    assert_eq!(code(json!({}), json!({"exp": null})), "token_claim_missing");
    assert_eq!(code(json!({}), json!({"exp": NOW - 31})), "token_expired");
    assert_eq!(code(json!({}), json!({"exp": (NOW + 60).to_string()})), "token_malformed");
    assert_eq!(code(json!({}), json!({"sub": null})), "token_claim_missing");
    assert_eq!(code(json!({"alg": "none"}), json!({})), "token_algorithm_refused");
    assert_eq!(code(json!({"alg": "HS512"}), json!({})), "token_algorithm_refused");
    assert_eq!(code(json!({"alg": "ES256"}), json!({})), "token_algorithm_refused");
    assert_eq!(code(json!({"crit": ["exp"]}), json!({})), "token_header_refused");
    assert_eq!(code(json!({"typ": "logout+jwt"}), json!({})), "token_type_wrong");
    let twice = format!(r#"{{"sub":"a","sub":"root","exp":{}}}"#, NOW + 60);
    let token = stage.hs256.sign_text(r#"{"alg":"HS256"}"#, &twice);
    refuses(&stage, OWN, &token, "token_malformed");
    let mut other = SECRET.to_vec();
    other[0] ^= 1;
    stage.fetch("design", None, crate::identity::KeySet::from_secret(&other).unwrap());
    let refusal = at(&stage, OWN, &stage.hs256.sign(&design())).unwrap_err();
    assert_eq!(refusal.denial, Denial::Token(T::SignatureWrong));
}

#[test]
fn it_may_be_bound_to_a_certificate() {
    let stage = Harness::new();
    let digest = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k";
    let hex = "abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789";
    let shown = |hex: &str| ClientCertificate {
        fingerprint: crate::Label::new(hex),
        ..ClientCertificate::default()
    };
    let ask = |token: &str, certificate: Option<&ClientCertificate>| {
        let headers = headers(&[(AUTHORIZATION, &format!("Bearer {token}"))]);
        stage.authenticate(&Presented { listener: OWN, certificate, ..plain(&headers) })
    };
    let bound = |cnf: Value| stage.hs256.sign(&with(design(), json!({"cnf": cnf})));
    let token = bound(json!({"x5t#S256": digest}));
    ask(&token, Some(&shown(hex))).unwrap();
    // Cached by now, but still not valid for anyone else.
    assert_eq!(ask(&token, None).unwrap_err().denial, Denial::Token(T::Bound));
    let other = shown(&hex.replace('a', "b"));
    assert_eq!(ask(&token, Some(&other)).unwrap_err().denial, Denial::Token(T::Bound));
    for cnf in [
        json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
        json!({"x5t#S256": digest, "jkt": "x"}),
        json!({"x5t#S256": "AAAA"}),
        json!({"x5t#S256": 1}),
        json!({"jwk": {}}),
        json!({}),
        json!("x"),
    ] {
        let token = bound(cnf.clone());
        let refusal = ask(&token, Some(&shown(hex))).unwrap_err();
        assert_eq!(refusal.denial, Denial::Token(T::Bound), "{cnf}");
        assert!(!refusal.suspect);
    }
}

#[test]
fn a_password_of_a_listener_that_takes_others_is_none_there() {
    let stage = Harness::new();
    // A signer with another algorithm, and the same secret.
    let token = Signer::new("HS384", "any").sign(&design());
    refuses(&stage, OWN, &token, "token_algorithm_refused");
}
