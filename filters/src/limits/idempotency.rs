//! One request at a time for each caller, idempotency key and path.
//!
//! DXCP's own check is not atomic: two deploys with one key, sent together, both run. Here the second is
//! refused, and may be retried.

use std::{collections::HashSet, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use ring::hmac;

use crate::{
    Denial, Head,
    identity::Caller,
    request::{header_name::folded, normal_form::NormalPath},
    types::sha256,
};

/// The keys of requests in progress. Bounded by the number of connections.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<Digest>>>);

type Digest = [u8; 32];

/// A request's claim on its key, released on drop.
pub struct Running {
    key: Digest,
    all: InFlight,
}

/// Scopes keys to their caller, so that no caller can use another's key.
pub struct Scope(hmac::Key);

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The same minimum as for the shared secret of tokens.
const SECRET_LENGTH_MIN: usize = 32;
/// Separates these keys from any other use of the same secret.
const PURPOSE: &[u8] = b"stagedoor idempotency key 1";
const KEY_LENGTH_MAX: usize = 255;

impl InFlight {
    /// Claims a request's key. A request without an `Idempotency-Key` has none to claim.
    ///
    /// # Errors
    /// [`Denial::IdempotencyInFlight`] and [`Denial::IdempotencyKeyInvalid`].
    pub fn begin(
        &self,
        head: &Head<'_>,
        path: &NormalPath,
        caller: &Caller,
    ) -> Result<Option<Running>, Denial> {
        let mut values = head.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() || value.is_empty() || value.len() > KEY_LENGTH_MAX {
            return Err(Denial::IdempotencyKeyInvalid);
        }
        let mut text = Vec::with_capacity(256);
        // Each part ends with a byte that no part can hold, so parts cannot run into each other.
        for part in [
            caller.issuer.as_bytes(),
            caller.subject.as_bytes(),
            head.method.as_str().as_bytes(),
            path.as_str().as_bytes(),
            value.as_bytes(),
        ] {
            text.extend_from_slice(part);
            text.push(b'\n');
        }
        let key: Digest = sha256::of(&text);
        if !self.0.lock().insert(key) {
            return Err(Denial::IdempotencyInFlight);
        }
        Ok(Some(Running { key, all: self.clone() }))
    }

    /// How many requests with a key are in progress.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Running {
    /// Its digest over caller, key, method and path, the same on all replicas.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

impl Scope {
    /// With a secret that all replicas have.
    ///
    /// # Errors
    /// If it is too short.
    pub fn new(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < SECRET_LENGTH_MIN {
            let length = secret.len();
            return Err(format!(
                "it has {length} bytes; a secret has at least {SECRET_LENGTH_MIN}, for example of `openssl rand -base64 32`"
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Replaces the received key with the caller's own, and removes other spellings of the header.
    pub fn narrow(&self, headers: &mut HeaderMap, caller: Option<&Caller>) {
        let key = headers.get(&HEADER).is_some().then(|| self.key(headers, caller));
        let is_one = |name: &&HeaderName| {
            let name = name.as_str().as_bytes();
            name.len() == HEADER.as_str().len() && *folded(name) == *HEADER.as_str().as_bytes()
        };
        let spelled: Vec<HeaderName> = headers.keys().filter(is_one).cloned().collect();
        for name in spelled {
            headers.remove(name);
        }
        if let Some(key) = key {
            headers.insert(HEADER, key);
        }
    }

    fn key(&self, headers: &HeaderMap, caller: Option<&Caller>) -> HeaderValue {
        let mut text = hmac::Context::with_key(&self.0);
        // Each part ends with a line feed, so that it cannot run into the next.
        let mut part = |bytes: &[u8]| {
            text.update(bytes);
            text.update(b"\n");
        };
        part(PURPOSE);
        part(caller.map_or(b"", |caller| caller.issuer.as_bytes()));
        part(caller.map_or(b"", |caller| caller.subject.as_bytes()));
        headers.get_all(&HEADER).iter().for_each(|value| part(value.as_bytes()));
        let key = URL_SAFE_NO_PAD.encode(text.sign());
        HeaderValue::from_str(&key).expect("base64 can stand in a header")
    }
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scope")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Label;

    fn narrowed(scope: &Scope, caller: &str, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let caller = Caller::supposed(Label::lossy(caller));
        let named = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        let mut map: HeaderMap = headers.iter().map(named).collect();
        scope.narrow(&mut map, Some(&caller));
        map.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_key_is_the_same_for_its_caller_and_another_for_each_other() {
        let scope = Scope::new(&[7; 32]).unwrap();
        let key = |scope: &Scope, caller: &str, key: &str| {
            let found = narrowed(scope, caller, &[("idempotency-key", key)]);
            assert_eq!((found.len(), &*found[0].0), (1, "idempotency-key"));
            found[0].1.clone()
        };
        let own = key(&scope, "ada", "k-1");
        assert_eq!((own.len(), &own), (43, &key(&scope, "ada", "k-1")));
        assert_ne!(own, key(&scope, "bo", "k-1"));
        assert_ne!(own, key(&scope, "ada", "k-2"));
        assert_ne!(own, key(&Scope::new(&[8; 32]).unwrap(), "ada", "k-1"));
        assert_ne!(
            own,
            key(&scope, "bo", &own),
            "nor is the key that the upstream saw worth anything"
        );
    }

    #[test]
    fn no_spelling_of_the_header_is_left_beside_it() {
        let scope = Scope::new(&[7; 32]).unwrap();
        let left = narrowed(
            &scope,
            "ada",
            &[("Idempotency_Key", "theirs"), ("idempotency.key", "theirs"), ("accept", "*/*")],
        );
        assert_eq!(left, [("accept".to_owned(), "*/*".to_owned())]);
        let left = narrowed(
            &scope,
            "ada",
            &[("idempotency-key", "a"), ("idempotency-key", "b"), ("idempotency_key", "c")],
        );
        assert_eq!(left.len(), 1);
        assert!(!["a", "b", "c"].contains(&&*left[0].1));
    }

    #[test]
    fn a_short_secret_is_none() {
        assert!(Scope::new(&[7; 31]).unwrap_err().contains("at least 32"));
        assert_eq!(format!("{:?}", Scope::new(&[7; 32]).unwrap()), "Scope");
    }
}
