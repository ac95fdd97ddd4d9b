//! One request at a time for each caller, idempotency key and path.
//!
//! DXCP's own check is not atomic: two deploys with one key, sent together, both run. Here the
//! second waits its turn by being told to come back.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use crate::{Denial, Head, identity::Caller, normal_form::NormalPath};

/// The keys of requests under way. Bounded by the connections there can be.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<Digest>>>);

type Digest = [u8; 32];

/// A request's place among those with the same key; it is given up when this is dropped.
pub struct Running {
    key: Digest,
    all: InFlight,
}

const KEY_LENGTH_MAX: usize = 255;

impl InFlight {
    /// Begins a request. Without an `Idempotency-Key` there is nothing to begin.
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
        let key: Digest = digest(&SHA256, &text).as_ref().try_into().expect("SHA-256 has 32 bytes");
        if !self.0.lock().insert(key) {
            return Err(Denial::IdempotencyInFlight);
        }
        Ok(Some(Running { key, all: self.clone() }))
    }

    /// How many requests with a key are under way.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Running {
    /// What it is kept by: of caller, key, method and path, the same on all replicas.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.key);
    }
}
