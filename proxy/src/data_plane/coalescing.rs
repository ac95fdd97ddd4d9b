//! Requests that are the same, under way: one goes to the upstream, the others get its answer.

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

/// Requests under way that others may join, and answers that are kept for a moment.
pub struct Coalescing {
    in_flight: Mutex<HashMap<Key, watch::Receiver<Landing>>>,
    kept: Cache<Key, Arc<StoredResponse>>,
    waiting: AtomicUsize,
    /// For those who lead one.
    this: Weak<Self>,
}

/// An answer that is given to several.
pub struct StoredResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, those of one exchange aside.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When it came.
    at: Duration,
    keep: Duration,
}

/// How a flight ended, or that it has not.
#[derive(Clone)]
enum Landing {
    Flying,
    /// The answer cannot be shared: each asks for itself.
    Lost,
    Answered(Arc<StoredResponse>),
}

/// A request's place among those that are the same.
pub enum Role {
    /// It goes to the upstream.
    Leads(Leader),
    /// Another did; it may be waited for.
    Follows(Following),
    /// It was answered a moment ago.
    Kept(Arc<StoredResponse>),
}

/// Whoever goes to the upstream, for others too. What it drops, the others ask for themselves.
pub struct Leader {
    key: Key,
    sender: watch::Sender<Landing>,
    coalescing: Arc<Coalescing>,
}

/// Whoever waits for another's answer.
pub struct Following {
    landing: watch::Receiver<Landing>,
    coalescing: Arc<Coalescing>,
}

/// An answer that is being read, to be shared.
pub struct Capture {
    lead: Leader,
    rules: Rules,
    status: StatusCode,
    headers: HeaderMap,
    body: BytesMut,
}

/// Answers that are kept, all together.
const KEPT_BYTES_MAX: u64 = 64 << 20;

impl Coalescing {
    /// None yet.
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

    /// How many requests wait for the answer to another.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn shared(&self) -> Arc<Self> {
        self.this.upgrade().expect("it is borrowed, so it is there")
    }

    /// Takes a place among the requests with this key.
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
    /// Waits for the answer. `None` if there is none to share.
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
    /// Begins to read an answer that is meant for others, too.
    pub fn capture(self, status: StatusCode, headers: &HeaderMap, rules: Rules) -> Capture {
        let headers = StoredResponse::shared_headers(headers);
        Capture { lead: self, rules, status, headers, body: BytesMut::new() }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Whoever asks from now on leads another; then those who wait are told.
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
    /// Takes a part of the body; `None` once it is too large to be shared.
    pub fn read(mut self, part: &Bytes) -> Option<Self> {
        self.body.extend_from_slice(part);
        (self.body.len() <= self.rules.bytes_max).then_some(self)
    }

    /// Gives the whole answer to all who wait, and keeps it for those who ask a moment later.
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
    /// One that came just now.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes, keep: Duration) -> Self {
        Self { status, headers, body, at: clock::elapsed(), keep }
    }

    /// The headers of an answer that are not of one exchange alone.
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

    /// How many bytes it takes, about.
    pub fn weight(&self) -> u32 {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        u32::try_from(self.body.len() + headers.sum::<usize>() + 256).unwrap_or(u32::MAX)
    }
}

/// Each is kept for as long as its route says.
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
