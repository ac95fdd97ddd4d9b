//! Tokens in a proxy's header, and audiences in another claim than `aud`.

use base64::{Engine, prelude::BASE64_URL_SAFE as PADDED};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::stage::{Harness, NOW, headers, label, plain, with};
use crate::{
    Denial,
    denial::TokenFault as T,
    identity::{Caller, Presented, Proof, Refusal},
};

const IAP: HeaderName = HeaderName::from_static("x-goog-iap-jwt-assertion");
const ALB: HeaderName = HeaderName::from_static("x-amzn-oidc-data");

fn of_iap(stage: &Harness) -> String {
    let claims = json!({"iss": "https://iap.example", "aud": "a", "sub": "ada", "exp": NOW + 60});
    stage.es256.sign(&claims)
}

/// As AWS's load balancer makes them: padded, and signed over the padding.
fn of_alb(stage: &Harness, header: Value, claims: Value) -> String {
    let header = with(json!({"alg": "ES256", "kid": "ec", "signer": "arn:aws:elb:1"}), header);
    let claims = with(json!({"iss": "https://alb.example", "sub": "ada", "exp": NOW + 60}), claims);
    let mut claims = claims.to_string();
    // Long enough to need padding, whatever it says.
    while claims.len() % 3 != 1 {
        claims.push(' ');
    }
    let mut header = header.to_string();
    while header.len() % 3 != 2 {
        header.push(' ');
    }
    let message = format!("{}.{}", PADDED.encode(header), PADDED.encode(claims));
    assert!(message.contains("=."));
    format!("{message}.{}", PADDED.encode(stage.es256.signature(message.as_bytes())))
}

fn ask(
    stage: &Harness,
    lines: &[(HeaderName, &str)],
    trusted: bool,
) -> Result<std::sync::Arc<Caller>, Refusal> {
    let headers = headers(lines);
    let mut map = HeaderMap::new();
    for (name, value) in &headers {
        map.append(name, value.clone());
    }
    let from_proxy = if trusted { stage.identity.headers() } else { &[] };
    stage.authenticate(&Presented { from_proxy, ..plain(&map) })
}

#[test]
fn a_proxys_token_counts_from_proxies_that_are_trusted_and_in_its_header_alone() {
    let stage = Harness::new();
    let token = of_iap(&stage);
    let caller = ask(&stage, &[(IAP, &token)], true).unwrap();
    assert_eq!((&*caller.subject, caller.proof), ("ada", Proof::ProxyHeader));
    // Cached by now, but still only valid in its own header.
    let refusal = ask(&stage, &[(IAP, &token)], false).unwrap_err();
    assert_eq!(refusal.denial, Denial::CallerMissing);
    stage.refuses(&token, &T::IssuerUnknown { seen: None });
    let refusal = ask(&stage, &[(ALB, &token)], true).unwrap_err();
    assert_eq!(refusal.denial.code(), "token_issuer_unknown");
    // Nor is a token of others taken there.
    let other = stage.hs256.sign(&super::stage::orbit());
    stage.bearer(&other).unwrap();
    let refusal = ask(&stage, &[(IAP, &other)], true).unwrap_err();
    assert_eq!(refusal.denial.code(), "token_issuer_unknown");
}

#[test]
fn a_bearer_token_precedes_the_proxys_and_two_of_the_proxys_count_as_none() {
    let stage = Harness::new();
    let token = of_iap(&stage);
    let bearer = format!("Bearer {}", stage.hs256.sign(&super::stage::orbit()));
    let caller = ask(&stage, &[(IAP, &token), (AUTHORIZATION, &bearer)], true).unwrap();
    assert_eq!(&*caller.subject, "user-1");
    // An `Authorization` for the upstream does not replace the proxy's token.
    let caller = ask(&stage, &[(IAP, &token), (AUTHORIZATION, "Basic eDp5")], true).unwrap();
    assert_eq!(&*caller.subject, "ada");
    let refusal = ask(&stage, &[(IAP, &token), (AUTHORIZATION, "Basic eDp5")], false).unwrap_err();
    assert_eq!(refusal.denial, Denial::CallerMissing);
    for lines in [[(IAP, &*token), (IAP, &token)], [(IAP, &token), (ALB, &token)]] {
        let refusal = ask(&stage, &lines, true).unwrap_err();
        assert_eq!(refusal.denial, Denial::AuthorizationAmbiguous);
    }
    for text in ["", &format!("Bearer {token}"), &format!("{token}, {token}"), "nonsense"] {
        let refusal = ask(&stage, &[(IAP, text)], true).unwrap_err();
        assert_eq!(refusal.denial.code(), "token_malformed", "{text}");
    }
}

#[test]
fn a_padded_token_is_verified_as_received_where_that_is_allowed() {
    let stage = Harness::new();
    let token = of_alb(&stage, json!({}), json!({}));
    let caller = ask(&stage, &[(ALB, &token)], true).unwrap();
    assert_eq!(&*caller.subject, "ada");
    // Without its padding it is another text, which was not signed.
    let refusal = ask(&stage, &[(ALB, &token.replace('=', ""))], true).unwrap_err();
    assert_eq!(refusal.denial, Denial::Token(T::SignatureWrong));
    assert_eq!(stage.finds_malformed(&token), "a part is not base64url");
    let refusal = ask(&stage, &[(IAP, &token)], true).unwrap_err();
    assert_eq!(refusal.denial.code(), "token_malformed");
    for odd in [token.replacen("=.", "==.", 1), token.replacen("=.", "=x.", 1), format!("={token}")]
    {
        let refusal = ask(&stage, &[(ALB, &odd)], true).unwrap_err();
        assert_eq!(refusal.denial.code(), "token_malformed", "{odd}");
    }
}

/// Every refusal of bearer tokens also applies in a proxy's header.
#[test]
fn a_proxys_token_is_as_strictly_read_as_any() {
    let stage = Harness::new();
    let code = |header: Value, claims: Value| {
        let token = of_alb(&stage, header, claims);
        ask(&stage, &[(ALB, &token)], true).map_or_else(|r| r.denial.code(), |_| "ok")
    };
    assert_eq!(code(json!({}), json!({})), "ok");
    assert_eq!(code(json!({"crit": ["exp"]}), json!({})), "token_header_refused");
    assert_eq!(code(json!({"jku": "https://evil.example"}), json!({})), "token_header_refused");
    assert_eq!(code(json!({"alg": "none"}), json!({})), "token_algorithm_refused");
    assert_eq!(code(json!({"alg": "HS256"}), json!({})), "token_algorithm_refused");
    assert_eq!(code(json!({"typ": "dpop+jwt"}), json!({})), "token_type_wrong");
    assert_eq!(code(json!({}), json!({"exp": "1900000000"})), "token_malformed");
    assert_eq!(code(json!({}), json!({"exp": NOW - 31})), "token_expired");
    assert_eq!(code(json!({}), json!({"exp": null})), "token_claim_missing");
    assert_eq!(code(json!({"signer": "arn:aws:elb:2"}), json!({})), "token_audience_wrong");
    assert_eq!(code(json!({"signer": null}), json!({})), "token_audience_wrong");
    assert_eq!(code(json!({"signer": {"a": 1}}), json!({})), "token_malformed");
    // The claim of that name says nothing.
    let claim = json!({"signer": "arn:aws:elb:1", "aud": "arn:aws:elb:1"});
    assert_eq!(code(json!({"signer": null}), claim), "token_audience_wrong");
    assert_eq!(code(json!({}), json!({"aud": "other"})), "token_audience_wrong");
    let twice = r#"{"alg":"ES256","signer":"x","signer":"arn:aws:elb:1"}"#;
    let token = stage.es256.sign_text(twice, "{}");
    let refusal = ask(&stage, &[(ALB, &token)], true).unwrap_err();
    assert_eq!(refusal.denial.code(), "token_malformed");
}

#[test]
fn an_audience_in_another_claim_is_as_strict_as_aud() {
    let stage = Harness::new();
    let cognito = json!({
        "iss": "https://cognito.example", "sub": "ada", "client_id": "app-1", "token_use": "access",
        "scope": "openid", "exp": NOW + 60, "workspaces": ["payments"],
    });
    let token = |others: Value| stage.es256.sign(&with(cognito.clone(), others));
    stage.bearer(&token(json!({}))).unwrap();
    stage.bearer(&token(json!({"aud": "app-1"}))).unwrap();
    let wrong = T::AudienceWrong { issuer: label("cognito"), seen: None };
    for others in [
        json!({"client_id": null}),
        json!({"client_id": "app-2"}),
        json!({"client_id": "app-1 "}),
        json!({"client_id": []}),
        json!({"client_id": null, "aud": "app-1"}),
        // It is for another audience, whoever requested it.
        json!({"aud": "other"}),
    ] {
        stage.refuses(&token(others), &wrong);
    }
    stage.finds_malformed(&token(json!({"client_id": 1})));
    stage.finds_malformed(&token(json!({"client_id": {"app-1": 1}})));
    // An ID token of the same app, which has `aud`.
    let claim = T::ClaimWrong { issuer: label("cognito"), claim: label("token_use") };
    for others in
        [json!({"token_use": null}), json!({"token_use": ["id"]}), json!({"token_use": 1})]
    {
        stage.refuses(&token(others), &claim);
    }
    stage.refuses(&token(json!({"token_use": "id"})), &T::TypeWrong { seen: label("x") });
    stage.bearer(&token(json!({"token_use": ["x", "access"]}))).unwrap();
}

#[test]
fn a_refusal_names_what_was_found() {
    let stage = Harness::new();
    let claims =
        json!({"iss": "https://usual.example", "aud": "other", "sub": "ada", "exp": NOW + 60});
    let told = |others: Value| {
        let token = stage.es256.sign(&with(claims.clone(), others));
        stage.bearer(&token).unwrap_err().denial.to_string()
    };
    let seen = told(json!({}));
    assert!(seen.contains("`other` is not among the `audiences` of issuer `usual`"), "{seen}");
    let seen = told(json!({"iss": "https://evil.example/\n\u{202e}x"}));
    assert!(seen.contains("the token's `iss` `https://evil.example/??x`"), "{seen}");
    assert!(told(json!({"iss": "x".repeat(5000)})).len() < 500);
}
