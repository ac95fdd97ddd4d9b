//! Opaque tokens, as Backstage's static ones.

use http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use ring::digest::{SHA256, digest};

use super::stage::{Harness, headers, label, labels, plain};
use crate::identity::{CallerKind, Presented, Proof, TokenDigest};

const TOKEN: &str = "8f3ca9d1e7b24c5f9a0d";

fn of(token: &str) -> TokenDigest {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap()
}

fn know(stage: &Harness, all: &[(&str, &[&str])]) {
    let all: Vec<_> = all
        .iter()
        .map(|(name, tokens)| (label(name), tokens.iter().map(|t| of(t)).collect::<Vec<_>>()))
        .collect();
    stage.tokens.opaque.replace(all.iter().map(|(name, digests)| (name, &**digests)));
}

#[test]
fn its_caller_is_the_configured_one() {
    let stage = Harness::new();
    assert_eq!(stage.finds_malformed(TOKEN), "it does not have three parts");
    know(&stage, &[("ci", &[TOKEN])]);
    let caller = stage.bearer(TOKEN).unwrap();
    assert_eq!((&*caller.subject, caller.proof), ("external:ci", Proof::StaticToken));
    assert_eq!((caller.kind, &*caller.issuer), (CallerKind::Service, "static-token"));
    assert_eq!(caller.workspaces, labels(&["payments"]));
    assert_eq!(caller.groups, labels(&["ci"]));
}

#[test]
fn nothing_but_the_whole_token_is_one_and_only_as_a_bearer() {
    let stage = Harness::new();
    know(&stage, &[("ci", &[TOKEN])]);
    for text in [&TOKEN[1..], &TOKEN[..19], "8F3CA9D1E7B24C5F9A0D", "8f3ca9d1e7b24c5f9a0dx"] {
        stage.finds_malformed(text);
        assert!(stage.bearer(text).unwrap_err().suspect);
    }
    // Its digest is not it.
    stage.finds_malformed(&crate::types::hex::write(&of(TOKEN)));
    let cookie = headers(&[(COOKIE, &format!("backstage-auth={TOKEN}"))]);
    let asked = Presented { cookie_allowed: true, ..plain(&cookie) };
    assert_eq!(stage.authenticate(&asked).unwrap_err().denial.code(), "token_malformed");
    let spoken = headers(&[(SEC_WEBSOCKET_PROTOCOL, TOKEN)]);
    let asked = Presented { upgrade: true, ..plain(&spoken) };
    assert_eq!(stage.authenticate(&asked).unwrap_err().denial.code(), "caller_missing");
    let basic = headers(&[(AUTHORIZATION, &format!("Basic {TOKEN}"))]);
    let refusal = stage.authenticate(&plain(&basic)).unwrap_err();
    assert_eq!(refusal.denial.code(), "caller_missing");
}

#[test]
fn it_is_good_until_it_is_replaced_and_two_are_while_they_change() {
    let stage = Harness::new();
    know(&stage, &[("ci", &[TOKEN, "the-next-one-of-16-bytes"])]);
    stage.bearer(TOKEN).unwrap();
    stage.bearer("the-next-one-of-16-bytes").unwrap();
    know(&stage, &[("ci", &["the-next-one-of-16-bytes"])]);
    stage.finds_malformed(TOKEN);
    stage.bearer("the-next-one-of-16-bytes").unwrap();
    know(&stage, &[]);
    stage.finds_malformed("the-next-one-of-16-bytes");
}

#[test]
fn it_counts_on_its_listeners_and_where_others_are_taken() {
    let stage = Harness::new();
    know(&stage, &[("ci", &[TOKEN]), ("other", &["another-of-16-bytes"])]);
    let headers = headers(&[(AUTHORIZATION, &format!("Bearer {TOKEN}"))]);
    // A listener that takes Orbit's tokens takes nothing else.
    let refusal = stage.authenticate(&Presented { listener: 1, ..plain(&headers) }).unwrap_err();
    assert_eq!(refusal.denial.code(), "token_malformed");
    stage.finds_malformed("another-of-16-bytes");
}

#[test]
fn a_token_that_looks_like_a_jwt_is_one_only_if_it_is_known() {
    let stage = Harness::new();
    know(&stage, &[("ci", &["ab.cd.ef-0123456789"])]);
    stage.bearer("ab.cd.ef-0123456789").unwrap();
    assert_eq!(stage.finds_malformed("ab.cd.ef-0123456780"), "a part is not base64url");
}
