//! Where a token may be, and where it does not count.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
};

use super::{
    backstage::{know_alice, limited},
    signer::SECRET,
    stage::{Harness, headers, label, labels, orbit, plain},
};
use crate::{
    Denial, State,
    denial::TokenFault,
    identity::{
        CallerKind, ClientCertificate, KeySet, Presented, Proof, ProxyCredentials,
        assertion::Assertions,
    },
};

#[test]
fn a_bearer_token_is_taken_whatever_the_case_of_its_scheme() {
    let stage = Harness::new();
    let token = stage.hs256.sign(&orbit());
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let caller = stage.ask(&[(AUTHORIZATION, &format!("{scheme} {token}"))]).unwrap();
        assert_eq!(caller.proof, Proof::Token);
    }
}

#[test]
fn more_than_one_space_may_precede_a_token() {
    let stage = Harness::new();
    let token = stage.hs256.sign(&orbit());
    for spaces in [" ", "  ", "          "] {
        let line = format!("Bearer{spaces}{token}");
        stage.ask(&[(AUTHORIZATION, &line)]).unwrap();
        // On a forward listener it is `Proxy-Authorization`.
        let state = State::new(Assertions::with_new_key());
        state.keys.replace(
            &stage.source("orbit", None),
            KeySet::from_secret(SECRET).unwrap(),
            stage.now,
        );
        let lines = [line.as_bytes()];
        let shown = ProxyCredentials { authorization: &lines, certificate: None, listener: 0 };
        let authenticator = state.authenticator(&stage.identity, stage.now);
        assert!(authenticator.call(&shown).unwrap().is_some());
    }
}

#[test]
fn without_a_token_there_is_no_caller() {
    let stage = Harness::new();
    let check = |lines: &[(HeaderName, &str)]| {
        let refusal = stage.ask(lines).unwrap_err();
        assert_eq!(refusal.denial, Denial::CallerMissing, "{lines:?}");
        assert!(!refusal.suspect);
    };
    check(&[]);
    check(&[(AUTHORIZATION, "Basic YWRhOnNlY3JldA==")]);
    check(&[(AUTHORIZATION, "")]);
    // Not on this route, and not for this request.
    check(&[(COOKIE, &format!("backstage-auth={}", limited(&stage)))]);
    check(&[(SEC_WEBSOCKET_PROTOCOL, &stage.hs256.sign(&orbit()))]);
}

#[test]
fn two_tokens_are_none() {
    let stage = Harness::new();
    let token = stage.hs256.sign(&orbit());
    let bearer = format!("Bearer {token}");
    let refusal = stage.ask(&[(AUTHORIZATION, &bearer), (AUTHORIZATION, &bearer)]).unwrap_err();
    assert_eq!(refusal.denial, Denial::AuthorizationAmbiguous);
    let refusal =
        stage.ask(&[(AUTHORIZATION, "Basic eDp5"), (AUTHORIZATION, &bearer)]).unwrap_err();
    assert_eq!(refusal.denial, Denial::AuthorizationAmbiguous);
}

#[test]
fn a_header_that_is_not_one_scheme_and_one_token_is_malformed() {
    let stage = Harness::new();
    let token = stage.hs256.sign(&orbit());
    let check = |text: &str| {
        let refusal = stage.ask(&[(AUTHORIZATION, text)]).unwrap_err();
        let malformed = matches!(refusal.denial, Denial::Token(TokenFault::Malformed { .. }));
        assert!(malformed && refusal.suspect, "{text}");
    };
    check("Bearer");
    check("Bearer ");
    check("Bearer   ");
    check(&format!("Bearer \t{token}"));
    check(&format!("Bearer {token} "));
    check(&format!("Bearer {token} {token}"));
    check(&format!("Bearer {token}, Bearer {token}"));
    check(&format!("Bearer {token},"));
    check("Bearer \u{e9}");
}

#[test]
fn a_web_socket_may_present_its_token_as_a_protocol() {
    let stage = Harness::new();
    let upgrade = |lines: &[(HeaderName, &str)]| {
        let headers = headers(lines);
        stage.authenticate(&Presented { upgrade: true, ..plain(&headers) })
    };
    let token = stage.hs256.sign(&orbit());
    let caller = upgrade(&[(SEC_WEBSOCKET_PROTOCOL, &token)]).unwrap();
    assert_eq!(caller.proof, Proof::WebSocketProtocol);
    assert!(upgrade(&[(SEC_WEBSOCKET_PROTOCOL, &format!("v4.channel.k8s.io, {token}"))]).is_ok());
    let refusal = upgrade(&[(SEC_WEBSOCKET_PROTOCOL, "graphql-ws")]).unwrap_err();
    assert_eq!(refusal.denial, Denial::CallerMissing);
}

#[test]
fn a_web_socket_with_two_tokens_has_none() {
    let stage = Harness::new();
    let upgrade = |lines: &[(HeaderName, &str)]| {
        let headers = headers(lines);
        stage.authenticate(&Presented { upgrade: true, ..plain(&headers) })
    };
    let one = stage.hs256.sign(&orbit());
    let two = stage.hs256.sign_text(r#"{"alg":"HS256"}"#, &orbit().to_string());
    let bearer = format!("Bearer {one}");
    // The same token twice is one.
    let both = upgrade(&[(AUTHORIZATION, &bearer), (SEC_WEBSOCKET_PROTOCOL, &one)]);
    assert_eq!(both.unwrap().proof, Proof::Token);
    let ambiguous = [
        upgrade(&[(AUTHORIZATION, &bearer), (SEC_WEBSOCKET_PROTOCOL, &two)]),
        upgrade(&[(SEC_WEBSOCKET_PROTOCOL, &format!("{one}, {two}"))]),
        upgrade(&[(SEC_WEBSOCKET_PROTOCOL, &one), (SEC_WEBSOCKET_PROTOCOL, &two)]),
    ];
    for refusal in ambiguous {
        assert_eq!(refusal.unwrap_err().denial, Denial::AuthorizationAmbiguous);
    }
}

#[test]
fn a_cookie_counts_only_once_and_cannot_be_hidden() {
    let stage = Harness::new();
    know_alice(&stage);
    let token = limited(&stage);
    let by_cookie = |lines: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
        }
        stage.authenticate(&Presented { cookie_allowed: true, ..plain(&headers) })
    };
    let pair = format!("backstage-auth={token}");
    let among = format!("a=b; {pair}; c=d");
    assert_eq!(by_cookie(&[among.as_bytes()]).unwrap().proof, Proof::Cookie);
    assert_eq!(by_cookie(&[b"a=b", pair.as_bytes()]).unwrap().proof, Proof::Cookie);
    assert_eq!(by_cookie(&[b"xbackstage-auth=1"]).unwrap_err().denial, Denial::CallerMissing);
    for hidden in [&b"backstage-auth=x"[..], b"backstage-auth =x", b"\xff=1; backstage-auth=x"] {
        let refusal = by_cookie(&[hidden, pair.as_bytes()]).unwrap_err();
        assert_eq!(refusal.denial, Denial::AuthorizationAmbiguous);
    }
    let refusal = by_cookie(&[b"backstage-auth=\xff"]).unwrap_err();
    assert!(matches!(refusal.denial, Denial::Token(TokenFault::Malformed { .. })));
}

#[test]
fn a_certificate_counts_by_its_names_and_by_its_common_name_only_without_them() {
    let stage = Harness::new();
    let check = |shown: ClientCertificate, subject: Option<&str>| {
        let headers = HeaderMap::new();
        let asked = Presented { certificate: Some(&shown), ..plain(&headers) };
        match (stage.authenticate(&asked), subject) {
            (Ok(caller), Some(subject)) => assert_eq!(&*caller.subject, subject),
            (Err(refusal), None) => assert_eq!(refusal.denial, Denial::CallerMissing),
            (outcome, _) => panic!("{shown:?}: {outcome:?}"),
        }
    };
    let none = ClientCertificate::default;
    let ops = || Some(label("ops.example"));
    check(ClientCertificate { uris: labels(&["spiffe://mesh/ci"]), ..none() }, Some("service:ci"));
    check(ClientCertificate { dns: labels(&["ops.example"]), ..none() }, Some("service:ops"));
    check(ClientCertificate { common_name: ops(), ..none() }, Some("service:ops"));
    check(ClientCertificate { common_name: ops(), dns: labels(&["x"]), ..none() }, None);
    check(ClientCertificate { uris: labels(&["spiffe://mesh/ci/x"]), ..none() }, None);
    check(none(), None);
}

#[test]
fn a_certificates_caller_is_a_service_with_what_is_written_for_it() {
    let stage = Harness::new();
    let headers = HeaderMap::new();
    let shown =
        ClientCertificate { uris: labels(&["spiffe://mesh/ci"]), ..ClientCertificate::default() };
    let asked = Presented { certificate: Some(&shown), ..plain(&headers) };
    let caller = stage.authenticate(&asked).unwrap();
    assert_eq!((caller.kind, caller.proof), (CallerKind::Service, Proof::ClientCertificate));
    assert_eq!(caller.roles, labels(&["publisher"]));
    assert_eq!(caller.workspaces, labels(&["payments"]));
    assert_eq!(caller.expires, u64::MAX);
}

#[test]
fn a_token_beside_a_certificate_is_the_one_that_counts() {
    let stage = Harness::new();
    let shown =
        ClientCertificate { uris: labels(&["spiffe://mesh/ci"]), ..ClientCertificate::default() };
    let ask = |token: &str| {
        let headers = headers(&[(AUTHORIZATION, &format!("Bearer {token}"))]);
        stage.authenticate(&Presented { certificate: Some(&shown), ..plain(&headers) })
    };
    assert_eq!(&*ask(&stage.hs256.sign(&orbit())).unwrap().subject, "user-1");
    assert!(ask("nonsense").is_err());
}
