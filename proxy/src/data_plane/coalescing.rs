//! Coalesces identical requests in flight: one goes to the upstream, the others get its response.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use filters::coalesce::{Key, Rules};
use http::{HeaderMap, StatusCode, header};
use moka::{Expiry, sync::Cache};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock;

/// Requests in flight that others may join, and responses that are stored briefly.
pub struct Coalescing {
    in_flight: Mutex<HashMap<Key, watch::Receiver<Landing>>>,
    kept: Cache<Key, Arc<StoredResponse>>,
    waiting: AtomicUsize,
    /// For those who lead one.
    this: Weak<Self>,
}

/// A response that several requests get.
pub struct StoredResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those of a single exchange.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When it was received.
    at: Duration,
    keep: Duration,
}

/// How a flight ended, or that it has not.
#[derive(Clone)]
enum Landing {
    Flying,
    /// The response cannot be shared: each request is sent by itself.
    Lost,
    Answered(Arc<StoredResponse>),
}

/// The role of a request among identical ones.
pub enum Role {
    /// It goes to the upstream.
    Leads(Leader),
    /// Another did; it may be waited for.
    Follows(Following),
    /// A recent response.
    Kept(Arc<StoredResponse>),
}

/// The request that is sent upstream for the others too. If it is dropped, the others are sent by
/// themselves.
pub struct Leader {
    key: Key,
    sender: watch::Sender<Landing>,
    coalescing: Arc<Coalescing>,
}

/// A request that waits for another's response.
pub struct Following {
    landing: watch::Receiver<Landing>,
    coalescing: Arc<Coalescing>,
}

/// A response that is being read, to be shared.
pub struct Capture {
    lead: Leader,
    rules: Rules,
    status: StatusCode,
    headers: HeaderMap,
    body: BytesMut,
}

/// The maximum size of all stored responses.
const KEPT_BYTES_MAX: u64 = 64 << 20;

impl Coalescing {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            in_flight: Mutex::default(),
            kept: Cache::builder()
                .max_capacity(KEPT_BYTES_MAX)
                .weigher(|_, answer: &Arc<StoredResponse>| answer.weight())
                .expire_after(Keep)
                .build(),
            waiting: AtomicUsize::new(0),
            this: Weak::clone(this),
        })
    }

    /// How many requests wait for the response to another.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn shared(&self) -> Arc<Self> {
        self.this.upgrade().expect("it is borrowed, so it is there")
    }

    /// Joins the requests with this key.
    pub fn join(&self, key: Key) -> Role {
        if let Some(answer) = self.kept.get(&key) {
            return Role::Kept(answer);
        }
        let mut in_flight = self.in_flight.lock();
        if let Some(flying) = in_flight.get(&key) {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            return Role::Follows(Following { landing: flying.clone(), coalescing: self.shared() });
        }
        let (sender, receiver) = watch::channel(Landing::Flying);
        in_flight.insert(key, receiver);
        Role::Leads(Leader { key, sender, coalescing: self.shared() })
    }
}

impl Following {
    /// Waits for the response. `None` if it cannot be shared.
    pub async fn answer(mut self) -> Option<Arc<StoredResponse>> {
        let landed = self.landing.wait_for(|landing| !matches!(landing, Landing::Flying)).await;
        match landed.ok().as_deref() {
            Some(Landing::Answered(answer)) => Some(Arc::clone(answer)),
            _ => None,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.coalescing.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Leader {
    /// Begins to read a response for the others too.
    pub fn capture(self, status: StatusCode, headers: &HeaderMap, rules: Rules) -> Capture {
        let headers = StoredResponse::shared_headers(headers);
        Capture { lead: self, rules, status, headers, body: BytesMut::new() }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Later requests get a new leader; then the waiting ones are notified.
        self.coalescing.in_flight.lock().remove(&self.key);
        self.sender.send_if_modified(|landing| {
            let lost = matches!(landing, Landing::Flying);
            if lost {
                *landing = Landing::Lost;
            }
            lost
        });
    }
}

impl Capture {
    /// Adds a part of the body; `None` once it is too large to be shared.
    pub fn read(mut self, part: &Bytes) -> Option<Self> {
        self.body.extend_from_slice(part);
        (self.body.len() <= self.rules.bytes_max).then_some(self)
    }

    /// Passes the whole response to all waiting requests, and stores it for slightly later ones.
    pub fn finish(self) {
        let Self { lead, rules, status, headers, body } = self;
        let keep = rules.keeps(status.as_u16());
        let answer = Arc::new(StoredResponse::new(status, headers, body.freeze(), keep));
        if !keep.is_zero() {
            lead.coalescing.kept.insert(lead.key, Arc::clone(&answer));
        }
        lead.sender.send_replace(Landing::Answered(answer));
    }
}

impl StoredResponse {
    /// A response received now.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes, keep: Duration) -> Self {
        Self { status, headers, body, at: clock::elapsed(), keep }
    }

    /// The headers of a response without those of a single exchange.
    pub fn shared_headers(headers: &HeaderMap) -> HeaderMap {
        let mut headers = headers.clone();
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        headers
    }

    /// How old it is.
    pub fn age(&self) -> Duration {
        clock::elapsed().saturating_sub(self.at)
    }

    /// How long it is given to others yet.
    pub fn left(&self) -> Duration {
        self.keep.saturating_sub(self.age())
    }

    /// Its approximate size in bytes.
    pub fn weight(&self) -> u32 {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        u32::try_from(self.body.len() + headers.sum::<usize>() + 256).unwrap_or(u32::MAX)
    }
}

/// Each is stored for its route's time.
struct Keep;

impl Expiry<Key, Arc<StoredResponse>> for Keep {
    fn expire_after_create(
        &self,
        _: &Key,
        answer: &Arc<StoredResponse>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(answer.keep)
    }
}
