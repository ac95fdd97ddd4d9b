//! Callers that prove themselves by an opaque token. Its digest is looked up under a random key, so that the
//! time of a lookup reveals nothing about any token.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use arc_swap::ArcSwap;
use config::{Config, Located, Name, StaticToken};
use ring::{hmac, rand::SystemRandom};

use super::{Caller, CallerKind, Proof};
use crate::{Label, types::sha256};

/// The SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// The valid opaque tokens, by caller. Replaced from outside, all together.
pub struct Opaque {
    key: hmac::Key,
    tags: ArcSwap<HashMap<[u8; 32], Label>>,
    /// Whether there are any, so that other requests pay nothing.
    any: AtomicBool,
}

/// Their callers, by the token's name in the config.
#[derive(Debug)]
pub(super) struct ByOpaqueToken(HashMap<Label, (Arc<Caller>, Vec<usize>)>);

/// The tag of a token's digest.
fn tag(key: &hmac::Key, digest: &[u8]) -> [u8; 32] {
    sha256::array(hmac::sign(key, digest).as_ref())
}

impl Default for Opaque {
    fn default() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.expect("there are random numbers");
        Self { key, tags: ArcSwap::default(), any: AtomicBool::new(false) }
    }
}

impl Opaque {
    /// Replaces all tokens: for each name in the config, the digests of its tokens.
    pub fn replace<'a>(&self, all: impl Iterator<Item = (&'a Label, &'a [TokenDigest])>) {
        let tags = all.flat_map(|(name, digests)| {
            digests.iter().map(|digest| (tag(&self.key, digest), name.clone()))
        });
        let tags: HashMap<_, _> = tags.collect();
        self.any.store(!tags.is_empty(), std::sync::atomic::Ordering::Release);
        self.tags.store(Arc::new(tags));
    }

    /// The name of a token's caller.
    fn name(&self, token: &str) -> Option<Label> {
        if !self.any.load(std::sync::atomic::Ordering::Acquire) {
            return None;
        }
        let tag = tag(&self.key, &sha256::of(token.as_bytes()));
        self.tags.load().get(&tag).cloned()
    }
}

impl ByOpaqueToken {
    pub(super) fn new(config: &Config) -> Self {
        let all = config.identity.tokens.iter();
        let all = all.map(|(name, written)| {
            let on = super::numbers(config, &written.listeners);
            (Label::from(name), (Arc::new(caller(name, written)), on))
        });
        Self(all.collect())
    }

    /// The caller of this token, if it counts on this listener.
    pub(super) fn caller(
        &self,
        token: &str,
        opaque: &Opaque,
        listener: usize,
    ) -> Option<Arc<Caller>> {
        let (caller, on) = self.0.get(&opaque.name(token)?)?;
        (on.is_empty() || on.contains(&listener)).then(|| Arc::clone(caller))
    }

    /// The caller of this name, as if its token had been presented.
    pub(super) fn of_subject(&self, subject: &str) -> Option<Arc<Caller>> {
        let mut all = self.0.values().map(|(caller, _)| caller);
        all.find(|caller| *caller.subject == *subject).map(Arc::clone)
    }
}

fn caller(name: &Name, written: &Located<StaticToken>) -> Caller {
    let labels = |texts: &[String]| texts.iter().map(|text| Label::lossy(text)).collect();
    // Derived from the config, so that after a reload no caller has another's number.
    let text = serde_json::to_vec(&(name, &written.value)).expect("a config is data");
    Caller {
        kind: CallerKind::Service,
        proof: Proof::StaticToken,
        issuer: Label::lossy("static-token"),
        roles: labels(&written.roles),
        groups: labels(&written.groups),
        workspaces: written.workspaces.iter().map(Label::from).collect(),
        // The upper half: those of tokens count up from 0.
        id: sha256::number(&text) | 1 << 63,
        ..Caller::supposed(Label::lossy(&written.caller))
    }
}
