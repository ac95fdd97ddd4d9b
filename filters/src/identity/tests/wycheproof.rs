//! Project Wycheproof's JWS and JWK vectors, see `tests/vectors/wycheproof/NOTICE.md`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};

use crate::identity::{KeySet, crypto, keys, token::Jws};

const SIGNATURES: &str =
    include_str!("../../../../tests/vectors/wycheproof/json_web_signature_test.json");
const KEYS: &str = include_str!("../../../../tests/vectors/wycheproof/json_web_key_test.json");

/// Verdicts on signatures that we do not share, and what we say instead.
const SIGNATURES_OURS: &[(u64, bool)] = &[
    // Signed with PS384 by a key that says it is for PS256.
    (346, false),
    (350, false),
    // Invalid by name, but letter for letter the valid 357: the padding they speak of was lost.
    (367, true),
    (370, true),
    // Valid by verdict, with a `?` in the middle of base64url.
    (372, false),
    (373, false),
];

/// The same for keys.
const KEYS_OURS: &[(u64, bool)] = &[
    // A modulus from a generator that was broken (ROCA). Whose keys to believe is the issuer's
    // choice; what ring accepts as a key, we do.
    (7, true),
];

#[test]
fn signatures_are_judged_as_wycheproof_judges_them() {
    run(SIGNATURES, 401, SIGNATURES_OURS, |group| {
        let jwk = group.get("public").or(group.get("private")).unwrap();
        vec![jwk.clone()]
    });
}

#[test]
fn keys_are_judged_as_wycheproof_judges_them() {
    run(KEYS, 26, KEYS_OURS, |group| {
        let set = group.get("public").or(group.get("private")).unwrap();
        set["keys"].as_array().unwrap().clone()
    });
}

fn run(text: &str, count: usize, ours: &[(u64, bool)], keys: impl Fn(&Value) -> Vec<Value>) {
    crate::identity::install_crypto();
    let vectors: Value = serde_json::from_str(text).unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        let keys = keys(group);
        for test in group["tests"].as_array().unwrap() {
            seen += 1;
            let id = test["tcId"].as_u64().unwrap();
            let theirs = test["result"] == "valid";
            let expected = ours.iter().find(|(own, _)| *own == id).map_or(theirs, |own| own.1);
            if accepts(&keys, test["jws"].as_str().unwrap()) != expected {
                wrong.push((id, test["comment"].clone()));
            }
        }
    }
    assert_eq!((wrong, seen), (vec![], count));
}

/// As an issuer with these keys and their algorithms would.
fn accepts(jwks: &[Value], text: &str) -> bool {
    let Some(set) = key_set(jwks) else { return false };
    let allowed: Vec<_> = jwks.iter().filter_map(algorithm).collect();
    Jws::read(text, config::Padding::Refused).is_ok_and(|jws| {
        // Where no key says what it is for, the operator allows what the token wants.
        let allowed = allowed.is_empty() || allowed.contains(&jws.algorithm);
        let keys = set.choose(jws.algorithm, jws.key_id.as_deref());
        let signed = |key| crypto::verify(jws.algorithm, key, jws.message, jws.signature);
        allowed && keys.into_iter().any(|key| signed(key))
    })
}

fn key_set(jwks: &[Value]) -> Option<KeySet> {
    if jwks.iter().all(|jwk| jwk["kty"] != "oct") {
        let keys: Vec<Value> = jwks.iter().map(spelt).collect();
        return KeySet::from_jwks(json!({"keys": keys}).to_string().as_bytes()).ok();
    }
    // A secret is not fetched, and an issuer has one and nothing else. Where a set has two, the
    // first is the operator's choice, unless that is none.
    let (first, others) = jwks.split_first()?;
    let another = |other: &Value| other["kty"] == "oct" && other["kid"] != first["kid"];
    if !others.iter().all(another) || !algorithm(first)?.is_hmac() {
        return None;
    }
    KeySet::from_secret(&BASE64URL.decode(first["k"].as_str()?).ok()?).ok()
}

fn algorithm(jwk: &Value) -> Option<config::Algorithm> {
    keys::algorithm(spelt(jwk)["alg"].as_str()?)
}

/// The authors write ES521 where they mean ES512, the algorithm of P-521.
fn spelt(jwk: &Value) -> Value {
    let mut jwk = jwk.clone();
    if jwk["alg"] == "ES521" && jwk["crv"] == "P-521" {
        jwk["alg"] = "ES512".into();
    }
    jwk
}

#[test]
fn a_point_off_the_curve_verifies_nothing() {
    use config::Algorithm::{ES256, ES384, ES512};
    crate::identity::install_crypto();
    for (algorithm, curve, width) in
        [(ES256, "P-256", 32), (ES384, "P-384", 48), (ES512, "P-521", 66)]
    {
        let one = BASE64URL.encode(vec![1; width]);
        let jwks = json!({"keys": [{"kty": "EC", "crv": curve, "x": one, "y": one}]});
        let set = KeySet::from_jwks(jwks.to_string().as_bytes()).unwrap();
        let key = set.choose(algorithm, None)[0];
        let signature = BASE64URL.encode(vec![1; 2 * width]);
        assert!(!crypto::verify(algorithm, key, b"message", &signature), "{curve}");
    }
}
