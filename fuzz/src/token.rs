//! What we take apart as a JWT, jsonwebtoken takes apart with the same algorithm, key and type, and serde_json
//! reads the same claims in it. A text that is taken is the only spelling of what it says.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use config::Padding;
use filters::identity::fuzz::{Unverified, unverified};
use serde_json::{Map, Value};

pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Some(ours) = unverified(text, Padding::Refused) else { return };
    assert_eq!(
        unverified(text, Padding::Allowed).as_ref(),
        Some(&ours),
        "padding that is not there matters"
    );

    let Unverified { algorithm, key_id, kind, claims } = ours;
    // The one that jsonwebtoken does not know.
    if algorithm != "ES512" {
        let theirs = jsonwebtoken::decode_header(text).expect("jsonwebtoken takes what we take");
        assert_eq!(format!("{:?}", theirs.alg), algorithm);
        assert_eq!((theirs.kid, theirs.typ), (key_id, kind));
    }

    let parts: Vec<&str> = text.split('.').collect();
    assert_eq!(parts.len(), 3);
    let decoded = |part: &str| {
        let bytes = BASE64URL.decode(part).expect("base64url");
        assert_eq!(BASE64URL.encode(&bytes), part, "another spelling says the same");
        bytes
    };
    parts.iter().for_each(|part| drop(decoded(part)));
    let read: Map<String, Value> = serde_json::from_slice(&decoded(parts[1])).expect("JSON");
    assert_eq!(read, claims);
}
