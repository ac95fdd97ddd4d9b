//! Every token that must not pass.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    signer::Signer,
    stage::{Harness, NOW, label, orbit, with},
};
use crate::{
    Denial,
    denial::{Lack, TokenFault as T},
};

/// What the strict issuer would sign.
fn strict() -> Value {
    json!({"iss": "https://strict.example", "aud": "a", "sub": "ada", "exp": NOW + 60})
}

fn header(signer: &Signer, others: Value) -> Value {
    with(json!({"alg": signer.algorithm, "typ": "at+jwt", "kid": signer.kid}), others)
}

#[test]
fn a_text_that_is_no_jwt_is_malformed() {
    let stage = Harness::new();
    let good = stage.hs256.sign(&orbit());
    let parts: Vec<&str> = good.split('.').collect();
    let [head, claims, signature] = parts[..] else { panic!("{good}") };
    for text in [
        "x",
        "a.b",
        &format!("{head}.{claims}"),
        &format!("{good}."),
        &format!(".{good}"),
        // As of an encrypted token.
        &format!("{head}.{claims}.{claims}.{claims}.{signature}"),
    ] {
        assert_eq!(stage.finds_malformed(text), "it does not have three parts", "{text}");
    }
    // The same signature once more, but for bits that say nothing.
    let (start, last) = signature.split_at(signature.len() - 1);
    let next = char::from(last.as_bytes()[0] + 1);
    for text in [
        &format!("{head}=.{claims}.{signature}"),
        &format!("{head}.{claims}+.{signature}"),
        &format!("{head}.{claims}.{signature}="),
        &format!("{head}.{claims}.{start}{next}"),
    ] {
        assert_eq!(stage.finds_malformed(text), "a part is not base64url", "{text}");
    }
    assert_eq!(stage.finds_malformed(".."), "a part is not JSON");
    for (header, claims) in [
        ("[]", "{}"),
        (r#"{"alg":"HS256"}"#, "[]"),
        (r#"{"alg":"HS256"}"#, "\"iss\""),
        (r#"{"alg":"HS256"}"#, "{}x"),
        (r#"{"alg":"HS256"}"#, "\u{feff}{}"),
        (r#"{"alg":"HS256"} {}"#, "{}"),
        (r#"{"alg":["HS256"]}"#, "{}"),
        (r#"{"typ":"JWT"}"#, "{}"),
        (r#"{"alg":"HS256","kid":1}"#, "{}"),
        (r#"{"alg":"HS256","typ":null}"#, "{}"),
    ] {
        stage.finds_malformed(&stage.hs256.sign_text(header, claims));
    }
    let message = format!("{head}.{}", BASE64URL.encode(b"{\"iss\":\"\xff\"}"));
    stage.finds_malformed(&format!("{message}.{signature}"));
}

#[test]
fn a_duplicate_member_is_refused_at_every_level() {
    let stage = Harness::new();
    let exp = NOW + 60;
    let good = r#"{"alg":"HS256"}"#;
    let start = format!(r#""iss":"orbit","aud":"stagedoor","exp":{exp}"#);
    let texts = [
        (r#"{"alg":"none","alg":"HS256"}"#, format!(r#"{{{start},"sub":"a"}}"#)),
        (good, format!(r#"{{{start},"sub":"a","sub":"b"}}"#)),
        (good, format!(r#"{{{start},"sub":"a","s\u0075b":"b"}}"#)),
        (good, format!(r#"{{{start},"sub":"a","x":[{{"y":1,"y":1}}]}}"#)),
    ];
    for (header, claims) in texts {
        let why = stage.finds_malformed(&stage.hs256.sign_text(header, &claims));
        assert_eq!(why, "a member is repeated");
    }
}

#[test]
fn json_that_is_too_deep_is_refused() {
    let stage = Harness::new();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    stage.finds_malformed(&stage.hs256.sign_text(r#"{"alg":"HS256"}"#, &deep));
}

#[test]
fn a_token_over_32_kib_is_not_even_read() {
    let stage = Harness::new();
    let pad = |count: usize| stage.hs256.sign(&with(orbit(), json!({"pad": "x".repeat(count)})));
    assert!(pad(24_000).len() < 32 << 10);
    stage.bearer(&pad(24_000)).unwrap();
    stage.refuses(&pad(25_000), &T::TooLarge);
    assert!(stage.bearer(&"x".repeat((32 << 10) + 1)).unwrap_err().suspect);
}

#[test]
fn alg_none_is_refused_in_every_spelling() {
    let stage = Harness::new();
    for name in ["none", "None", "NONE", "nOnE", "", "HS1", "RS256 ", "rs256", "ES256K"] {
        let header = json!({"alg": name}).to_string();
        for issuer in ["orbit", "https://strict.example"] {
            let claims = with(orbit(), json!({"iss": issuer, "aud": ["a", "stagedoor"]}));
            let signed = stage.hs256.sign_text(&header, &claims.to_string());
            stage.refuses(&signed, &T::AlgorithmRefused);
            let (message, _) = signed.rsplit_once('.').unwrap();
            stage.refuses(&format!("{message}."), &T::AlgorithmRefused);
        }
    }
}

/// The attack on libraries that let the token choose: HMAC, with the public key as the secret.
#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let stage = Harness::new();
    let jwk = stage.rs256.jwk();
    let bytes = |part: &str| BASE64URL.decode(jwk[part].as_str().unwrap()).unwrap();
    let (n, e) = (bytes("n"), bytes("e"));
    let secrets = [
        n.clone(),
        [n, e].concat(),
        jwk.to_string().into_bytes(),
        stage.es256.jwk().to_string().into(),
    ];
    let claims = strict().to_string();
    for secret in secrets {
        for kid in [Value::Null, "rsa".into(), "ec".into()] {
            let header = header(&stage.hs256, json!({"kid": kid})).to_string();
            let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(&claims));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            let tag = ring::hmac::sign(&key, message.as_bytes());
            let token = format!("{message}.{}", BASE64URL.encode(tag));
            stage.refuses(&token, &T::AlgorithmRefused);
        }
    }
}

/// Should an operator allow both, against the check of the config, keys still know their kind.
#[test]
fn a_key_verifies_only_algorithms_of_its_own_kind() {
    let mut stage = Harness::new();
    let all = "
  any: {issuer: any, audiences: [a], algorithms: [RS256, PS512, ES256, ES384, ES512, EdDSA], keys: {file: f}}
";
    stage.identity = super::stage::identity(all);
    let claims = with(strict(), json!({"iss": "any"}));
    stage.fetch("any", None, super::signer::jwks(&[&stage.rs256]));
    for algorithm in ["ES256", "ES384", "ES512", "EdDSA"] {
        let header = json!({"alg": algorithm, "kid": "rsa"});
        let refusal = stage.bearer(&stage.rs256.sign_as(&header, &claims)).unwrap_err();
        assert!(matches!(refusal.denial, Denial::Token(T::KeyUnknown { .. })), "{algorithm}");
    }
    // Same key, same kind, another padding than the one that signed.
    let token = stage.rs256.sign_as(&json!({"alg": "PS512", "kid": "rsa"}), &claims);
    stage.refuses(&token, &T::SignatureWrong);
}

#[test]
fn a_token_may_not_bring_keys_or_rules_of_its_own() {
    let stage = Harness::new();
    let mine = Signer::new("ES256", "ec");
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("jku", "https://evil.example/jwks".into()),
        ("jwk", mine.jwk()),
        ("x5u", "https://evil.example/x5u".into()),
        ("x5c", json!(["MIIB"])),
        ("b64", false.into()),
        ("jku", Value::from(0)),
    ] {
        let mut extra = header(&mine, json!({}));
        extra[name] = value.clone();
        stage.refuses(&mine.sign_as(&extra, &strict()), &T::HeaderRefused { header: name });
        // Nor when the signature is the issuer's.
        let mut extra = header(&stage.es256, json!({}));
        extra[name] = value;
        stage.refuses(&stage.es256.sign_as(&extra, &strict()), &T::HeaderRefused { header: name });
    }
}

#[test]
fn a_signature_by_another_key_is_wrong() {
    let stage = Harness::new();
    let mine = Signer::new("ES256", "ec");
    let token = mine.sign_as(&header(&mine, json!({})), &strict());
    stage.refuses(&token, &T::SignatureWrong);
    assert!(stage.bearer(&token).unwrap_err().suspect);
    let good = stage.es256.sign_as(&header(&stage.es256, json!({})), &strict());
    stage.bearer(&good).unwrap();
    let (message, _) = good.rsplit_once('.').unwrap();
    stage.refuses(&format!("{message}."), &T::SignatureWrong);
    stage.refuses(&format!("{message}.{}", BASE64URL.encode([0; 64])), &T::SignatureWrong);
}

#[test]
fn an_unknown_key_is_worth_a_fetch() {
    let stage = Harness::new();
    let mine = Signer::new("ES256", "new");
    let refusal = stage.bearer(&mine.sign_as(&header(&mine, json!({})), &strict())).unwrap_err();
    let issuer = super::stage::label("strict");
    assert_eq!(refusal.denial, Denial::Token(T::KeyUnknown { issuer: issuer.clone() }));
    let kid = Some(super::stage::label("new"));
    assert_eq!(refusal.lack, Some(Lack::Keys { issuer, plugin: None, kid }));
    assert!(refusal.suspect);
}

#[test]
fn an_issuer_is_compared_exactly() {
    let stage = Harness::new();
    for iss in ["orbit/", "Orbit", "", "orbit ", "https://portal.example/api/auth"] {
        let token = stage.hs256.sign(&with(orbit(), json!({"iss": iss})));
        stage.refuses(&token, &T::IssuerUnknown { seen: None });
    }
    let none = stage.hs256.sign(&with(orbit(), json!({"iss": null})));
    stage.refuses(&none, &T::ClaimMissing { claim: "iss" });
    for iss in [json!(["orbit"]), json!(1), json!({"orbit": 1})] {
        stage.finds_malformed(&stage.hs256.sign(&with(orbit(), json!({"iss": iss}))));
    }
}

/// Two issuers, one key between them: a token of the one says nothing at the other.
#[test]
fn a_token_is_judged_by_the_rules_of_its_own_issuer() {
    let stage = Harness::new();
    let claims = json!({
        "iss": "https://dxcp.eu.auth0.example/", "aud": "account", "azp": "backstage",
        "sub": "ada", "exp": NOW + 60,
    });
    stage.refuses(&stage.rs256.sign(&claims), &T::AudienceWrong { issuer: label("x"), seen: None });
}

#[test]
fn an_audience_is_required_and_must_be_ours() {
    let stage = Harness::new();
    let token = |aud: Value| stage.hs256.sign(&with(orbit(), json!({"aud": aud})));
    for aud in
        [json!("other"), json!(["other"]), json!([]), json!(""), json!("stagedoor2"), Value::Null]
    {
        stage.refuses(&token(aud), &T::AudienceWrong { issuer: label("x"), seen: None });
    }
    for aud in [json!(1), json!({"stagedoor": 1}), json!(["stagedoor", 1])] {
        stage.finds_malformed(&token(aud));
    }
    for aud in [json!("stagedoor"), json!(["other", "stagedoor"])] {
        stage.bearer(&token(aud)).unwrap();
    }
    assert!(!stage.bearer(&token(json!("other"))).unwrap_err().suspect);
}

#[test]
fn a_time_is_a_number_within_reason() {
    let stage = Harness::new();
    let token = |others: Value| stage.hs256.sign(&with(orbit(), others));
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!((NOW + 60).to_string()),
            json!(-1),
            json!(true),
            json!([NOW]),
            json!(253_402_300_800_u64),
            json!((NOW + 60) * 1000),
            json!(1e300),
        ] {
            stage.finds_malformed(&token(json!({name: value})));
        }
    }
    let text = orbit().to_string().replace(&(NOW + 600).to_string(), "null");
    stage.finds_malformed(&stage.hs256.sign_text(r#"{"alg":"HS256"}"#, &text));
    stage.refuses(&token(json!({"exp": null})), &T::ClaimMissing { claim: "exp" });
    stage.bearer(&token(json!({"exp": NOW as f64 + 0.5}))).unwrap();
}

#[test]
fn a_token_is_good_from_its_start_to_its_end_give_or_take_the_leeway() {
    let stage = Harness::new();
    let token = |others: Value| stage.hs256.sign(&with(orbit(), others));
    stage.bearer(&token(json!({"exp": NOW - 29}))).unwrap();
    stage.refuses(&token(json!({"exp": NOW - 30})), &T::Expired);
    stage.refuses(&token(json!({"exp": 0})), &T::Expired);
    for name in ["nbf", "iat"] {
        stage.bearer(&token(json!({name: NOW + 30}))).unwrap();
        stage.refuses(&token(json!({name: NOW + 31})), &T::NotYetValid);
    }
}

/// A browser that slept over night is not an attacker, and must not cost its whole office the
/// share of strangers.
#[test]
fn an_expired_token_is_not_suspect_and_needs_no_key() {
    let stage = Harness::new();
    let unknown = Signer::new("ES256", "gone");
    let claims = with(strict(), json!({"exp": NOW - 3600}));
    let token = unknown.sign_as(&header(&unknown, json!({})), &claims);
    stage.refuses(&token, &T::Expired);
    assert!(!stage.bearer(&token).unwrap_err().suspect);
}

#[test]
fn a_type_is_compared_without_case_and_with_or_without_application() {
    let stage = Harness::new();
    let token =
        |typ: Value| stage.es256.sign_as(&header(&stage.es256, json!({"typ": typ})), &strict());
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        stage.bearer(&token(typ.into())).unwrap();
    }
    for typ in [json!("JWT"), json!("at+jwt "), json!("x/at+jwt"), json!(""), Value::Null] {
        stage.refuses(&token(typ), &T::TypeWrong { seen: label("x") });
    }
}

#[test]
fn a_subject_that_is_not_a_plain_name_is_refused_unchanged() {
    let stage = Harness::new();
    let long = "x".repeat(257);
    for sub in
        [json!(""), json!("a\nb"), json!(" a"), json!("ädä"), json!(1), json!(["a"]), json!(long)]
    {
        stage.finds_malformed(&stage.hs256.sign(&with(orbit(), json!({"sub": sub}))));
    }
    let none = stage.hs256.sign(&with(orbit(), json!({"sub": null})));
    stage.refuses(&none, &T::ClaimMissing { claim: "sub" });
}

#[test]
fn a_refusal_is_not_remembered_and_does_not_displace_what_is() {
    let stage = Harness::new();
    let good = stage.hs256.sign(&orbit());
    stage.bearer(&good).unwrap();
    for exp in 0..100 {
        stage.refuses(&stage.hs256.sign(&with(orbit(), json!({"exp": exp}))), &T::Expired);
    }
    assert_eq!(stage.tokens.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_token_with_any_one_byte_changed_is_refused(
        at in any::<prop::sample::Index>(),
        byte in 0x20_u8..0x7f,
        which in 0..3_usize,
    ) {
        thread_local! {
            static STAGE: (Harness, [String; 3]) = {
                let stage = Harness::new();
                let es256 = stage.es256.sign_as(&header(&stage.es256, json!({})), &strict());
                let rs256 = stage.rs256.sign_as(&header(&stage.rs256, json!({})), &strict());
                let tokens = [stage.hs256.sign(&orbit()), es256, rs256];
                // Known already, so that a change cannot slip past by being remembered either.
                tokens.iter().for_each(|token| drop(stage.bearer(token).unwrap()));
                (stage, tokens)
            };
        }
        STAGE.with(|(stage, tokens)| {
            let mut token = tokens[which].clone().into_bytes();
            let at = at.index(token.len());
            prop_assume!(token[at] != byte);
            token[at] = byte;
            let token = String::from_utf8(token).unwrap();
            prop_assert!(stage.bearer(&token).is_err(), "{}", token);
            Ok(())
        })?;
    }

    #[test]
    fn no_text_makes_it_panic_or_pass(text in "[ -~]{0,200}") {
        thread_local!(static STAGE: Harness = Harness::new());
        let refused = STAGE.with(|stage| stage.bearer(&text).is_err());
        prop_assert!(refused);
    }
}
