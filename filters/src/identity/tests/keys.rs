//! Key rotation, and cached tokens.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    signer::{SECRET, Signer, jwks},
    stage::{Harness, NOW, identity, label, orbit, with},
};
use crate::{
    Denial,
    denial::{Lack, TokenFault as T},
    identity::KeySet,
};

fn strict(signer: &Signer) -> String {
    let claims =
        json!({"iss": "https://strict.example", "aud": "a", "sub": "ada", "exp": NOW + 9000});
    let header = json!({"alg": signer.algorithm, "typ": "at+jwt"});
    signer.sign_as(&with(header, json!({"kid": signer.kid})), &claims)
}

fn set(keys: Value) -> Result<KeySet, String> {
    KeySet::from_jwks(json!({"keys": keys}).to_string().as_bytes())
}

#[test]
fn every_algorithm_verifies_what_its_key_signed() {
    let stage = Harness::new();
    for name in ["RS256", "PS512", "ES256", "ES384", "EdDSA"] {
        let signer = Signer::new(name, "k");
        stage.fetch("strict", None, jwks(&[&signer]));
        stage.bearer(&strict(&signer)).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
    }
    for name in ["HS256", "HS384", "HS512"] {
        stage.bearer(&Signer::new(name, "k").sign(&orbit())).unwrap();
    }
}

#[test]
fn a_new_key_is_believed_once_it_is_fetched() {
    let stage = Harness::new();
    let new = Signer::new("ES256", "new");
    let refusal = stage.bearer(&strict(&new)).unwrap_err();
    assert!(matches!(refusal.lack, Some(Lack::Keys { plugin: None, .. })));
    stage.fetch("strict", None, jwks(&[&stage.es256, &new]));
    stage.bearer(&strict(&new)).unwrap();
    stage.bearer(&strict(&stage.es256)).unwrap();
}

#[test]
fn a_withdrawn_key_takes_the_tokens_it_verified_with_it() {
    let stage = Harness::new();
    let token = strict(&stage.es256);
    stage.bearer(&token).unwrap();
    stage.fetch("strict", None, jwks(&[&stage.rs256]));
    let refusal = stage.bearer(&token).unwrap_err();
    assert_eq!(refusal.denial, Denial::Token(T::KeyUnknown { issuer: label("strict") }));
    // They are valid again if the key returns.
    stage.fetch("strict", None, jwks(&[&stage.rs256, &stage.es256]));
    stage.bearer(&token).unwrap();
}

#[test]
fn another_key_of_the_same_name_withdraws_the_first() {
    let stage = Harness::new();
    let token = strict(&stage.es256);
    stage.bearer(&token).unwrap();
    stage.fetch("strict", None, jwks(&[&Signer::new("ES256", "ec")]));
    stage.refuses(&token, &T::SignatureWrong);
}

#[test]
fn tokens_of_a_key_that_stays_remain_cached() {
    let stage = Harness::new();
    let token = strict(&stage.es256);
    let first = stage.bearer(&token).unwrap();
    stage.fetch("strict", None, jwks(&[&stage.es256, &Signer::new("ES256", "new")]));
    assert!(Arc::ptr_eq(&first, &stage.bearer(&token).unwrap()));
}

#[test]
fn an_issuer_that_is_dropped_takes_its_tokens_with_it() {
    let stage = Harness::new();
    let token = strict(&stage.es256);
    stage.bearer(&token).unwrap();
    stage.keys.keep(|source| &*source.issuer != "strict");
    let refusal = stage.bearer(&token).unwrap_err();
    assert_eq!(refusal.denial, Denial::KeysUnavailable { issuer: label("strict") });
}

#[test]
fn keys_are_trusted_only_for_the_location_they_were_fetched_from() {
    let mut stage = Harness::new();
    let token = strict(&stage.es256);
    for (written, believed) in [
        ("issuer: 'https://strict.example', keys: {refresh: 1m, age_max: 2h}", true),
        ("issuer: 'https://strict.example', leeway: 1s", true),
        ("issuer: 'https://strict.example', keys: {url: 'https://strict.example/jwks'}", false),
        ("issuer: 'https://strict.example', keys: {ca: ca.crt}", false),
    ] {
        let rest = "audiences: [a], algorithms: [ES256]";
        stage.identity = identity(&format!("{{strict: {{{rest}, {written}}}}}"));
        assert_eq!(stage.bearer(&token).is_ok(), believed, "{written}");
    }
}

#[test]
fn missing_or_stale_keys_are_fetched() {
    let mut stage = Harness::new();
    stage.now = stage.now.plus(Duration::from_secs(3600));
    stage.bearer(&strict(&stage.es256)).unwrap();
    stage.now = stage.now.plus(Duration::from_secs(1));
    let refusal = stage.bearer(&strict(&stage.rs256)).unwrap_err();
    assert_eq!(refusal.denial, Denial::KeysUnavailable { issuer: label("strict") });
    let (issuer, kid) = (label("strict"), Some(label("rsa")));
    assert_eq!(refusal.lack, Some(Lack::Keys { issuer, plugin: None, kid }));
    assert!(!refusal.suspect);
    let source = stage.source("strict", None);
    assert_eq!(stage.keys.age(&source, stage.now), Some(Duration::from_secs(3601)));
    assert_eq!(stage.keys.age(&source.of_plugin(label("nobody")), stage.now), None);
}

#[test]
fn without_a_key_id_there_must_be_only_one_key_that_fits() {
    let mut stage = Harness::new();
    stage.es256.kid = None;
    let token = strict(&stage.es256);
    // One EC key beside an RSA key is not a choice.
    stage.bearer(&token).unwrap();
    let other = Signer::new("ES256", "other");
    stage.fetch("strict", None, jwks(&[&stage.es256, &other]));
    let refusal = stage.bearer(&token).unwrap_err();
    assert_eq!(refusal.denial, Denial::Token(T::KeyUnknown { issuer: label("strict") }));
    assert!(matches!(refusal.lack, Some(Lack::Keys { kid: None, .. })));
}

#[test]
fn a_key_id_is_looked_up_exactly_beside_keys_without_one() {
    let stage = Harness::new();
    let mut nameless = Signer::new("ES256", "");
    nameless.kid = None;
    stage.fetch("strict", None, jwks(&[&nameless, &stage.es256]));
    stage.bearer(&strict(&stage.es256)).unwrap();
    let unknown = Signer::new("ES256", "EC");
    assert!(matches!(
        stage.bearer(&strict(&unknown)).unwrap_err().denial,
        Denial::Token(T::KeyUnknown { .. })
    ));
}

#[test]
fn a_token_is_verified_once_until_it_ends() {
    let mut stage = Harness::new();
    let token = stage.hs256.sign(&orbit());
    let first = stage.bearer(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &stage.bearer(&token).unwrap()));
    stage.now = stage.now.plus(Duration::from_secs(630));
    stage.refuses(&token, &T::Expired);
    assert_eq!(stage.tokens.len(), 0);
}

#[test]
fn a_remembered_token_is_judged_again_by_other_rules() {
    let mut stage = Harness::new();
    let token = stage.hs256.sign(&orbit());
    let first = stage.bearer(&token).unwrap();
    let written = "
  orbit: {issuer: orbit, audiences: [AUD], algorithms: [HS256], keys: {secret_file: secret}}
";
    stage.identity = identity(&written.replace("AUD", "stagedoor"));
    let second = stage.bearer(&token).unwrap();
    assert!(!Arc::ptr_eq(&first, &second) && first.id != second.id);
    stage.identity = identity(&written.replace("AUD", "other"));
    stage.refuses(&token, &T::AudienceWrong { issuer: label("x"), seen: None });
}

#[test]
fn only_so_many_tokens_are_remembered() {
    let stage = Harness::new();
    for n in 0..10_500 {
        stage.bearer(&stage.hs256.sign(&with(orbit(), json!({"jti": n})))).unwrap();
    }
    assert!(stage.tokens.len() <= 10_000, "{}", stage.tokens.len());
}

#[test]
fn only_so_many_sources_of_keys_are_held() {
    let stage = Harness::new();
    for n in 0..1100 {
        stage.fetch("backstage", Some(&format!("plugin-{n}")), jwks(&[]));
    }
    assert_eq!(stage.keys.sources().len(), 1000);
    // Existing ones can still be renewed.
    stage.fetch("strict", None, jwks(&[&Signer::new("ES256", "renewed")]));
    assert!(stage.keys.describe().iter().any(|key| key.id.as_deref() == Some("renewed")));
}

#[test]
fn a_jwks_is_taken_without_the_keys_that_are_of_no_use() {
    let ec = Signer::new("ES256", "k").jwk();
    let rsa = Signer::new("RS256", "k").jwk();
    let check = |jwk: Value, kept: usize| {
        let found = set(json!([jwk])).unwrap().len();
        assert_eq!(found, kept, "{jwk}");
    };
    check(ec.clone(), 1);
    check(rsa.clone(), 1);
    check(with(ec.clone(), json!({"alg": "ES256", "use": "sig", "key_ops": ["verify"]})), 1);
    check(with(ec.clone(), json!({"use": "enc"})), 0);
    check(with(ec.clone(), json!({"key_ops": ["sign"]})), 0);
    check(with(ec.clone(), json!({"key_ops": []})), 0);
    check(with(ec.clone(), json!({"alg": "ECDH-ES"})), 0);
    check(with(ec.clone(), json!({"crv": "secp256k1"})), 0);
    check(with(ec.clone(), json!({"crv": "P-384"})), 0);
    check(with(ec.clone(), json!({"crv": null})), 0);
    check(with(ec.clone(), json!({"x": "AAAA"})), 0);
    check(with(ec.clone(), json!({"y": 1})), 0);
    check(with(ec, json!({"kty": "XX"})), 0);
    check(with(rsa.clone(), json!({"alg": "RSA-OAEP", "use": "enc"})), 0);
    check(with(rsa.clone(), json!({"n": null})), 0);
    // 2040 bits, and 2040 that look like 2048.
    check(with(rsa.clone(), json!({"n": "_".repeat(340)})), 0);
    check(with(rsa, json!({"n": format!("AP{}", "_".repeat(339))})), 0);
    check(
        json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}),
        0,
    );
    check(json!("key"), 0);
}

#[test]
fn a_key_for_one_algorithm_verifies_no_other() {
    let stage = Harness::new();
    let jwk = with(stage.rs256.jwk(), json!({"alg": "RS256"}));
    stage.fetch("strict", None, set(json!([jwk])).unwrap());
    stage.bearer(&strict(&stage.rs256)).unwrap();
    let ps = Signer::new("PS512", "rsa");
    assert!(matches!(
        stage.bearer(&strict(&ps)).unwrap_err().denial,
        Denial::Token(T::KeyUnknown { .. })
    ));
}

/// Providers rotate badly: that is no reason to refuse what the other keys signed.
#[test]
fn a_name_of_two_keys_spoils_nothing_else() {
    let stage = Harness::new();
    let (good, one, two) =
        (Signer::new("ES256", "good"), Signer::new("ES256", "x"), Signer::new("ES256", "x"));
    let keys = set(json!([good.jwk(), one.jwk(), two.jwk()])).unwrap();
    assert_eq!(keys.repeated(), [label("x")]);
    stage.fetch("strict", None, keys);
    for signer in [&good, &one, &two] {
        stage.bearer(&strict(signer)).unwrap();
    }
    stage.refuses(&strict(&Signer::new("ES256", "x")), &T::SignatureWrong);
    let told: Vec<_> =
        stage.keys.describe().into_iter().filter(|key| key.repeated).map(|key| key.id).collect();
    assert_eq!(told, [Some("x".to_owned()), Some("x".to_owned())]);
    // One is withdrawn: its tokens end, those of the other stay valid.
    let token = strict(&one);
    stage.bearer(&token).unwrap();
    stage.fetch("strict", None, jwks(&[&good, &two]));
    stage.refuses(&token, &T::SignatureWrong);
    stage.bearer(&strict(&two)).unwrap();
}

#[test]
fn a_name_of_too_many_keys_is_nobodys() {
    let stage = Harness::new();
    let good = Signer::new("ES256", "good");
    let many: Vec<Signer> = (0..5).map(|_| Signer::new("ES256", "x")).collect();
    let all = many.iter().chain([&good]).map(Signer::jwk).collect();
    let keys = set(all).unwrap();
    assert_eq!((keys.len(), keys.repeated()), (1, &[label("x")][..]));
    stage.fetch("strict", None, keys);
    stage.bearer(&strict(&good)).unwrap();
    let refusal = stage.bearer(&strict(&many[0])).unwrap_err();
    assert_eq!(refusal.denial, Denial::Token(T::KeyUnknown { issuer: label("strict") }));
}

#[test]
fn a_name_may_be_shared_by_keys_that_no_token_could_confuse() {
    let one = Signer::new("ES256", "k").jwk();
    let rsa = Signer::new("RS256", "k").jwk();
    let same = set(json!([one, one])).unwrap();
    assert_eq!((same.len(), same.repeated().len()), (1, 0));
    let both = set(json!([one, rsa])).unwrap();
    assert_eq!((both.len(), both.repeated().len()), (2, 0));
}

/// It is unknown whether the issuer has that key by now.
#[test]
fn an_unknown_key_of_an_unreachable_issuer_is_not_the_tokens_fault() {
    let mut stage = Harness::new();
    let new = strict(&Signer::new("ES256", "new"));
    let source = stage.source("strict", None);
    stage.keys.fail(&source, stage.now);
    let refusal = stage.bearer(&new).unwrap_err();
    let unavailable = Denial::KeysUnavailable { issuer: label("strict") };
    assert_eq!((&refusal.denial, refusal.lack, refusal.suspect), (&unavailable, None, false));
    // Tokens signed with known keys pass.
    stage.bearer(&strict(&stage.es256)).unwrap();
    stage.now = stage.now.plus(Duration::from_secs(2));
    let refusal = stage.bearer(&new).unwrap_err();
    assert_eq!(refusal.denial, unavailable);
    assert!(refusal.lack.is_some(), "it is worth another fetch");
    // It is reachable again, and does not have that key.
    stage.fetch("strict", None, jwks(&[&stage.es256]));
    let refusal = stage.bearer(&new).unwrap_err();
    assert_eq!(refusal.denial, Denial::Token(T::KeyUnknown { issuer: label("strict") }));
    assert!(refusal.suspect);
}

#[test]
fn what_is_no_jwks_or_too_large_is_refused() {
    for text in ["", "[]", "{}", "null", r#"{"keys":{}}"#, r#"{"keys":[]"#, "<html>"] {
        assert!(KeySet::from_jwks(text.as_bytes()).is_err(), "{text}");
    }
    assert!(KeySet::from_jwks(br#"{"keys":[],"more":1}"#).unwrap().is_empty());
    assert!(set(json!(vec![json!({}); 100])).is_ok());
    assert!(set(json!(vec![json!({}); 101])).is_err());
    assert!(KeySet::from_jwks(&vec![b' '; (512 << 10) + 1]).is_err());
}

#[test]
fn a_secret_is_as_long_as_what_it_makes() {
    let stage = Harness::new();
    assert!(KeySet::from_secret(&SECRET[..31]).is_err());
    // It is not printed either.
    let secret = KeySet::from_secret(&SECRET[..32]).unwrap();
    assert!(!format!("{secret:?}").contains("97, 32"), "{secret:?}");
    stage.fetch("orbit", None, secret);
    let refusal = stage.bearer(&Signer::new("HS512", "any").sign(&orbit())).unwrap_err();
    assert!(matches!(refusal.denial, Denial::Token(T::KeyUnknown { .. })));
    // Another secret than the one that signed, for the algorithm it is long enough for.
    stage.refuses(&stage.hs256.sign(&orbit()), &T::SignatureWrong);
}
