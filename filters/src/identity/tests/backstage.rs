//! The three tokens of a Backstage backend.

use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};

use super::{
    signer::{Signer, jwks},
    stage::{Harness, NOW, headers, label, labels, plain, with},
};
use crate::{
    Denial, Secret,
    denial::{Lack, TokenFault as T},
    identity::{CallerKind, Presented, Proof},
};

fn sign(signer: &Signer, kind: &str, claims: &Value) -> String {
    let typ = format!("vnd.backstage.{kind}");
    signer.sign_as(&json!({"typ": typ, "alg": "ES256", "kid": signer.kid}), claims)
}

fn user_claims() -> Value {
    json!({
        "iss": "https://portal.example/api/auth", "sub": "user:default/alice", "aud": "backstage",
        "iat": NOW, "exp": NOW + 3600, "uip": "c2lnbmF0dXJl",
    })
}

fn plugin_claims() -> Value {
    json!({"sub": "scaffolder", "aud": "catalog", "iat": NOW, "exp": NOW + 3600})
}

/// Alice's limited user token.
pub(super) fn limited(stage: &Harness) -> String {
    let claims = json!({"sub": "user:default/alice", "iat": NOW, "exp": NOW + 3600});
    sign(&stage.user, "limited-user", &claims)
}

pub(super) fn know_alice(stage: &Harness) {
    let groups = labels(&["group:default/payments"]);
    let alice = label("user:default/alice");
    stage.tokens.set_groups(&stage.source("backstage", None), &alice, &groups, stage.now, HOUR);
}

/// That they are missing, and can be fetched with this token.
fn alices_groups(token: &str) -> Lack {
    let (issuer, subject) = (label("backstage"), label("user:default/alice"));
    Lack::Groups { issuer, subject, token: Secret::new(token) }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_user_token_needs_groups_that_must_be_fetched_from_backstage() {
    let stage = Harness::new();
    let token = sign(&stage.user, "user", &user_claims());
    let refusal = stage.bearer(&token).unwrap_err();
    let issuer = label("backstage");
    assert_eq!(refusal.denial, Denial::GroupsUnavailable { issuer: issuer.clone() });
    assert_eq!(refusal.lack, Some(alices_groups(&token)));
    assert!(!refusal.suspect);
    know_alice(&stage);
    let caller = stage.bearer(&token).unwrap();
    assert_eq!(&*caller.subject, "user:default/alice");
    assert_eq!(caller.groups, labels(&["group:default/payments"]));
    assert_eq!((caller.kind, &*caller.issuer), (CallerKind::User, "backstage"));
}

#[test]
fn groups_are_cached_for_their_time() {
    let mut stage = Harness::new();
    know_alice(&stage);
    stage.now = stage.now.plus(HOUR);
    let token = sign(&stage.user, "user", &with(user_claims(), json!({"exp": NOW + 7200})));
    assert!(matches!(stage.bearer(&token).unwrap_err().lack, Some(Lack::Groups { .. })));
}

#[test]
fn a_user_token_that_names_its_groups_needs_no_question() {
    let stage = Harness::new();
    let claims = with(user_claims(), json!({"ent": ["user:default/alice", "group:default/ops"]}));
    let caller = stage.bearer(&sign(&stage.user, "user", &claims)).unwrap();
    assert_eq!(caller.groups, labels(&["user:default/alice", "group:default/ops"]));
}

#[test]
fn a_user_token_passes_as_the_protocol_of_a_web_socket() {
    let stage = Harness::new();
    know_alice(&stage);
    let token = sign(&stage.user, "user", &user_claims());
    let headers = headers(&[(SEC_WEBSOCKET_PROTOCOL, &token)]);
    let caller = stage.authenticate(&Presented { upgrade: true, ..plain(&headers) }).unwrap();
    assert_eq!(caller.proof, Proof::WebSocketProtocol);
}

#[test]
fn a_user_token_is_held_to_its_issuer_audience_and_algorithm() {
    let stage = Harness::new();
    know_alice(&stage);
    let token = |others| sign(&stage.user, "user", &with(user_claims(), others));
    stage.refuses(
        &token(json!({"iss": "http://127.0.0.1:7007/api/auth"})),
        &T::IssuerUnknown { seen: None },
    );
    stage.refuses(&token(json!({"iss": null})), &T::ClaimMissing { claim: "iss" });
    stage.refuses(
        &token(json!({"aud": "catalog"})),
        &T::AudienceWrong { issuer: label("x"), seen: None },
    );
    stage.refuses(
        &token(json!({"aud": null})),
        &T::AudienceWrong { issuer: label("x"), seen: None },
    );
    stage.refuses(&token(json!({"exp": NOW - 60})), &T::Expired);
    let header = json!({"typ": "vnd.backstage.user", "alg": "HS256", "kid": "user"});
    stage.refuses(&stage.hs256.sign_as(&header, &user_claims()), &T::AlgorithmRefused);
    let thief = Signer::new("ES256", "user");
    stage.refuses(&sign(&thief, "user", &user_claims()), &T::SignatureWrong);
}

#[test]
fn a_type_of_backstage_does_not_make_a_token_of_another_issuer_its_own() {
    let stage = Harness::new();
    let header = json!({"typ": "vnd.backstage.user", "alg": "RS256", "kid": "rsa"});
    let claims = json!({
        "iss": "https://dxcp.eu.auth0.example/", "aud": "https://dxcp-api", "sub": "user:default/alice",
        "exp": NOW + 60,
    });
    stage.refuses(&stage.rs256.sign_as(&header, &claims), &T::IssuerUnknown { seen: None });
}

#[test]
fn backstages_issuer_vouches_only_by_tokens_of_backstages_types() {
    let stage = Harness::new();
    stage.refuses(&stage.user.sign(&user_claims()), &T::IssuerUnknown { seen: None });
}

#[test]
fn a_limited_user_token_passes_in_its_cookie_and_nowhere_else() {
    let stage = Harness::new();
    let token = limited(&stage);
    stage.refuses(&token, &T::TypeWrong { seen: label("x") });
    let by_cookie = |token: &str| {
        let headers = headers(&[(COOKIE, &format!("backstage-auth={token}"))]);
        stage.authenticate(&Presented { cookie_allowed: true, ..plain(&headers) })
    };
    assert_eq!(by_cookie(&token).unwrap_err().lack, Some(alices_groups(&token)));
    know_alice(&stage);
    let caller = by_cookie(&token).unwrap();
    assert_eq!((&*caller.subject, caller.proof), ("user:default/alice", Proof::Cookie));
    assert_eq!(caller.groups, labels(&["group:default/payments"]));
    // A token that was valid as a cookie is still not valid as a bearer token.
    stage.refuses(&token, &T::TypeWrong { seen: label("x") });
    for other in [
        sign(&stage.user, "user", &user_claims()),
        sign(&stage.plugin, "plugin", &plugin_claims()),
        stage.hs256.sign(&super::stage::orbit()),
    ] {
        assert_eq!(by_cookie(&other).unwrap_err().denial.code(), "token_type_wrong");
    }
    let thief = Signer::new("ES256", "user");
    let forged = sign(&thief, "limited-user", &json!({"sub": "user:default/root", "exp": NOW + 9}));
    assert_eq!(by_cookie(&forged).unwrap_err().denial, Denial::Token(T::SignatureWrong));
}

/// A user token carries the signature of its limited form: the two must come out the same user.
#[test]
fn the_limited_form_of_a_user_token_verifies_by_its_uip() {
    let stage = Harness::new();
    know_alice(&stage);
    let whole = limited(&stage);
    let (message, uip) = whole.rsplit_once('.').unwrap();
    let user = sign(&stage.user, "user", &with(user_claims(), json!({"uip": uip, "ent": []})));
    let rebuilt = format!("{message}.{uip}");
    let headers = headers(&[(COOKIE, &format!("backstage-auth={rebuilt}"))]);
    let cookie =
        stage.authenticate(&Presented { cookie_allowed: true, ..plain(&headers) }).unwrap();
    assert_eq!(stage.bearer(&user).unwrap().subject, cookie.subject);
}

#[test]
fn a_bearer_beside_the_cookie_is_the_one_that_counts() {
    let stage = Harness::new();
    let token = sign(&stage.plugin, "plugin", &plugin_claims());
    let headers = headers(&[
        (COOKIE, &format!("backstage-auth={}", limited(&stage))),
        (AUTHORIZATION, &format!("Bearer {token}")),
    ]);
    let caller =
        stage.authenticate(&Presented { cookie_allowed: true, ..plain(&headers) }).unwrap();
    assert_eq!(&*caller.subject, "plugin:scaffolder");
}

#[test]
fn a_plugin_token_is_verified_by_its_plugins_own_keys() {
    let stage = Harness::new();
    let caller = stage.bearer(&sign(&stage.plugin, "plugin", &plugin_claims())).unwrap();
    assert_eq!((&*caller.subject, caller.kind), ("plugin:scaffolder", CallerKind::Service));
    assert_eq!((&*caller.issuer, caller.on_behalf_of.as_ref()), ("backstage", None));
    // Another plugin, whose keys have not been fetched.
    let jenkins = Signer::new("ES256", "j");
    let token = sign(&jenkins, "plugin", &with(plugin_claims(), json!({"sub": "jenkins"})));
    let refusal = stage.bearer(&token).unwrap_err();
    let issuer = label("backstage");
    assert_eq!(refusal.denial, Denial::KeysUnavailable { issuer: issuer.clone() });
    let (plugin, kid) = (Some(label("jenkins")), Some(label("j")));
    assert_eq!(refusal.lack, Some(Lack::Keys { issuer, plugin, kid }));
    stage.fetch("backstage", Some("jenkins"), jwks(&[&jenkins]));
    stage.bearer(&token).unwrap();
    // Its key is valid for its own name only.
    let posing = sign(&jenkins, "plugin", &plugin_claims());
    assert!(matches!(
        stage.bearer(&posing).unwrap_err().denial,
        Denial::Token(T::KeyUnknown { .. })
    ));
    let as_user = sign(&jenkins, "user", &with(user_claims(), json!({"ent": []})));
    assert!(stage.bearer(&as_user).is_err());
}

#[test]
fn a_plugin_token_is_for_a_plugin_that_may_be_called_here() {
    let stage = Harness::new();
    let token = |others| sign(&stage.plugin, "plugin", &with(plugin_claims(), others));
    stage.refuses(
        &token(json!({"aud": "kubernetes"})),
        &T::AudienceWrong { issuer: label("x"), seen: None },
    );
    stage.refuses(
        &token(json!({"aud": null})),
        &T::AudienceWrong { issuer: label("x"), seen: None },
    );
    stage.refuses(&token(json!({"exp": NOW - 60})), &T::Expired);
}

/// The plugin's name becomes part of a URL that is fetched.
#[test]
fn a_plugin_id_cannot_lead_anywhere_else() {
    let stage = Harness::new();
    let long = "x".repeat(65);
    for sub in ["../auth", "a/b", "a%2fb", "a?b", "a#b", "A", "a b", "a.b", "", &long, "a\n", "ä"]
    {
        let token = sign(&stage.plugin, "plugin", &with(plugin_claims(), json!({"sub": sub})));
        stage.finds_malformed(&token);
    }
}

#[test]
fn a_plugin_may_act_for_a_user_whose_groups_then_count() {
    let stage = Harness::new();
    let obo = limited(&stage);
    let token = sign(&stage.plugin, "plugin", &with(plugin_claims(), json!({"obo": obo})));
    // Backstage does not return them for the plugin's own token.
    assert_eq!(stage.bearer(&token).unwrap_err().lack, Some(alices_groups(&obo)));
    know_alice(&stage);
    let caller = stage.bearer(&token).unwrap();
    assert_eq!(&*caller.subject, "plugin:scaffolder");
    assert_eq!(caller.on_behalf_of, Some(label("user:default/alice")));
    assert_eq!(caller.groups, labels(&["group:default/payments"]));
}

#[test]
fn a_plugin_cannot_make_up_the_user_it_acts_for() {
    let stage = Harness::new();
    let token =
        |obo: Value| sign(&stage.plugin, "plugin", &with(plugin_claims(), json!({"obo": obo})));
    let alice = json!({"sub": "user:default/alice", "iat": NOW, "exp": NOW + 3600});
    let own = Signer::new("ES256", "user");
    stage.refuses(&token(sign(&own, "limited-user", &alice).into()), &T::SignatureWrong);
    let expired = with(alice, json!({"exp": NOW - 60}));
    stage.refuses(&token(sign(&stage.user, "limited-user", &expired).into()), &T::Expired);
    let whole = sign(&stage.user, "user", &user_claims());
    stage.refuses(&token(whole.into()), &T::TypeWrong { seen: label("x") });
    for obo in [json!("user:default/alice"), json!(1), json!({})] {
        stage.finds_malformed(&token(obo));
    }
}

#[test]
fn acting_for_a_user_ends_when_either_token_does() {
    let mut stage = Harness::new();
    know_alice(&stage);
    let alice = json!({"sub": "user:default/alice", "iat": NOW, "exp": NOW + 60});
    let obo = sign(&stage.user, "limited-user", &alice);
    let token = sign(&stage.plugin, "plugin", &with(plugin_claims(), json!({"obo": obo})));
    assert_eq!(stage.bearer(&token).unwrap().expires, NOW + 60);
    stage.now = stage.now.plus(Duration::from_secs(90));
    stage.refuses(&token, &T::Expired);
}

#[test]
fn an_opaque_static_token_is_malformed() {
    let stage = Harness::new();
    stage.finds_malformed("a-static-token-of-an-external-caller");
}
