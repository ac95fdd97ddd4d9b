//! A batch as Standard Webhooks post it.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::{
    digest::{SHA256, digest},
    hmac,
};

/// `{"records":[...]}`.
pub(super) fn body(records: impl Iterator<Item = String>) -> Vec<u8> {
    let mut out = b"{\"records\":[".to_vec();
    for (index, record) in records.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(record.as_bytes());
    }
    out.extend_from_slice(b"]}");
    out
}

/// The headers of a batch: an id, which is the same for the same records however often they are sent, and a
/// signature.
pub(super) fn headers(body: &[u8], key: Option<&[u8]>, unix: Duration) -> HeaderMap {
    let digest = digest(&SHA256, body);
    let id = format!("msg_{}", HEXLOWER.encode(&digest.as_ref()[..16]));
    let seconds = unix.as_secs().to_string();
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let mut context = hmac::Context::with_key(&key);
        for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
            context.update(part);
        }
        let signature = format!("v1,{}", BASE64.encode(context.sign()));
        put(&mut headers, "webhook-signature", &signature);
    }
    put(&mut headers, "webhook-id", &id);
    put(&mut headers, "webhook-timestamp", &seconds);
    headers
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).expect("digits and letters are a header's value");
    headers.insert(HeaderName::from_static(name), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_one_id_and_a_signature_over_it_its_time_and_its_body() {
        let body = body(["{\"n\":1}".to_owned(), "{\"n\":2}".to_owned()].into_iter());
        assert_eq!(body, b"{\"records\":[{\"n\":1},{\"n\":2}]}");
        let at = |seconds| headers(&body, Some(b"key"), Duration::from_secs(seconds));
        let (first, later) = (at(1), at(2));
        assert_eq!(first["webhook-id"], later["webhook-id"]);
        assert_ne!(first["webhook-signature"], later["webhook-signature"]);
        // printf 'msg_....1.{...}' | openssl dgst -sha256 -hmac key -binary | base64
        let signed = format!(
            "{}.1.{}",
            first["webhook-id"].to_str().unwrap(),
            String::from_utf8(body.clone()).unwrap()
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let expected = format!("v1,{}", BASE64.encode(hmac::sign(&key, signed.as_bytes())));
        assert_eq!(first["webhook-signature"], expected);
        assert!(headers(&body, None, Duration::ZERO).get("webhook-signature").is_none());
    }
}
