//! A cache of verified tokens, so that each is verified once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;

use super::{Caller, Found, Opaque, Source, keys::Key};
use crate::{Label, Now, types::sha256};

/// Verified tokens, and the groups of callers whose token does not name them. Bounded. Tokens themselves are
/// not stored, only their SHA-256.
pub struct Tokens {
    verified: Cache<TokenKey, Arc<Entry>>,
    groups: Cache<(Source, Label), Groups>,
    /// Opaque tokens.
    pub opaque: Opaque,
    next: AtomicU64,
}

/// A caller's groups, and until when (since the start) they are valid.
type Groups = (Duration, Arc<[Label]>);

const TOKENS_MAX: u64 = 10_000;

pub(super) type TokenKey = [u8; 32];

/// A verified token.
pub(super) struct Entry {
    pub(super) caller: Arc<Caller>,
    signed_by: Vec<Arc<Key>>,
    version: u64,
    /// In seconds since 1970.
    until: u64,
}

/// The cache key of a token. It includes the place and the listener: a token that is valid in a cookie is
/// not valid as a bearer token, nor one of a proxy's header elsewhere, nor one of a listener on another.
pub(super) fn key(found: &Found<'_>, listener: usize) -> TokenKey {
    let mut key: TokenKey = sha256::of(found.text.as_bytes());
    key[0] ^= found.proof as u8;
    let places = [listener, found.header.map_or(0, |header| header + 1)];
    for (at, place) in places.into_iter().enumerate() {
        let bytes = place.to_be_bytes();
        let place = &mut key[8 * (at + 1)..8 * (at + 2)];
        place.iter_mut().zip(bytes).for_each(|(byte, other)| *byte ^= other);
    }
    key
}

impl Entry {
    pub(super) fn new(
        caller: Caller,
        signed_by: Vec<Arc<Key>>,
        version: u64,
        leeway: &Duration,
    ) -> Self {
        let until = caller.expires.saturating_add(leeway.as_secs());
        Self { caller: Arc::new(caller), signed_by, version, until }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            verified: Cache::builder()
                .max_capacity(TOKENS_MAX)
                .time_to_idle(Duration::from_secs(3600))
                .build(),
            groups: Cache::builder()
                .max_capacity(TOKENS_MAX)
                .time_to_live(Duration::from_secs(3600))
                .build(),
            opaque: Opaque::default(),
            next: AtomicU64::new(0),
        }
    }
}

impl Tokens {
    /// Stores a caller's groups for some time.
    pub fn set_groups(
        &self,
        source: &Source,
        subject: &Label,
        groups: &[Label],
        now: Now,
        valid_for: Duration,
    ) {
        let until = now.elapsed + valid_for;
        self.groups.insert((source.clone(), subject.clone()), (until, groups.into()));
    }

    /// The number of cached tokens.
    pub fn len(&self) -> u64 {
        self.verified.run_pending_tasks();
        self.verified.entry_count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn groups(&self, source: &Source, subject: &Label, now: Now) -> Option<Vec<Label>> {
        let (until, groups) = self.groups.get(&(source.clone(), subject.clone()))?;
        (now.elapsed < until).then(|| groups.to_vec())
    }

    pub(super) fn get(&self, key: &TokenKey, version: u64, now: Now) -> Option<Arc<Caller>> {
        let entry = self.verified.get(key)?;
        let good = entry.version == version
            && now.unix_seconds() < entry.until
            && !entry.signed_by.iter().any(|key| key.is_withdrawn());
        if good {
            return Some(Arc::clone(&entry.caller));
        }
        self.verified.invalidate(key);
        None
    }

    pub(super) fn put(&self, key: TokenKey, entry: Entry) {
        self.verified.insert(key, Arc::new(entry));
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
