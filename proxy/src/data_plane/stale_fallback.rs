//! Responses stored for when the upstream fails.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use filters::fallback::{Key, Rules, Varied};
use http::{HeaderMap, StatusCode};
use moka::{Expiry, sync::Cache};

use crate::data_plane::coalescing::StoredResponse;

/// The stored responses, within a memory limit.
pub struct StaleResponses(Cache<Key, Arc<Stored>>);

struct Stored {
    varied: Varied,
    answer: Arc<StoredResponse>,
}

/// A response that is being read, to be stored.
pub struct ResponseBuffer {
    key: Key,
    rules: Rules,
    varied: Varied,
    status: StatusCode,
    headers: HeaderMap,
    body: BytesMut,
}

impl StaleResponses {
    /// An empty store of at most this many bytes.
    pub fn new(bytes_max: u64) -> Self {
        let weigh = |_: &Key, kept: &Arc<Stored>| kept.answer.weight();
        let cache = Cache::builder().max_capacity(bytes_max).weigher(weigh);
        Self(cache.expire_after(Ttl).build())
    }

    /// What may be given to this request.
    pub fn get(&self, key: &Key, asked: &HeaderMap) -> Option<Arc<StoredResponse>> {
        let kept = self.0.get(key).filter(|kept| kept.varied.fits(asked))?;
        Some(Arc::clone(&kept.answer))
    }

    /// Stores a complete response. Not one without a body: a stopping upstream may send that, and it would
    /// replace the last good one.
    pub fn keep(&self, read: ResponseBuffer) {
        let ResponseBuffer { key, rules, varied, status, headers, body } = read;
        if body.is_empty() {
            return;
        }
        let answer = Arc::new(StoredResponse::new(status, headers, body.freeze(), rules.ttl));
        self.0.insert(key, Arc::new(Stored { varied, answer }));
    }

    /// The approximate size of all stored responses.
    pub fn bytes(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.weighted_size()
    }
}

impl ResponseBuffer {
    /// Begins to read a response.
    pub fn new(
        key: Key,
        rules: Rules,
        varied: Varied,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Self {
        let headers = StoredResponse::shared_headers(headers);
        Self { key, rules, varied, status, headers, body: BytesMut::new() }
    }

    /// Adds a part of the body; `None` once it is too large to be stored.
    pub fn read(mut self, part: &Bytes) -> Option<Self> {
        self.body.extend_from_slice(part);
        (self.body.len() <= self.rules.bytes_max).then_some(self)
    }
}

/// Each is stored for its route's `ttl`.
struct Ttl;

impl Expiry<Key, Arc<Stored>> for Ttl {
    fn expire_after_create(
        &self,
        _: &Key,
        kept: &Arc<Stored>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(kept.answer.left())
    }

    fn expire_after_update(
        &self,
        _: &Key,
        kept: &Arc<Stored>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.answer.left())
    }
}
