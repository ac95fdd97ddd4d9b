//! The passwords of callers on forward listeners, compared in constant time.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use ring::{hmac, rand::SystemRandom};

use crate::Label;

/// The passwords of callers, by name. Replaced from outside, all together. Stored as tags under a random
/// key.
pub struct Passwords {
    key: hmac::Key,
    tags: ArcSwap<HashMap<Label, hmac::Tag>>,
}

/// A shorter password could be guessed.
pub const PASSWORD_MIN: usize = 16;

impl Default for Passwords {
    fn default() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self { key: key.expect("there are random numbers"), tags: ArcSwap::default() }
    }
}

impl Passwords {
    /// Replaces all passwords.
    pub fn replace<'a>(&self, all: impl Iterator<Item = (Label, &'a [u8])>) {
        let tags = all.map(|(name, password)| (name, hmac::sign(&self.key, password))).collect();
        self.tags.store(std::sync::Arc::new(tags));
    }

    /// Whether `password` is that of `name`.
    pub fn fits(&self, name: &str, password: &[u8]) -> bool {
        let tags = self.tags.load();
        tags.get(name).is_some_and(|tag| hmac::verify(&self.key, password, tag.as_ref()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_caller_until_it_is_replaced() {
        let passwords = Passwords::default();
        let name = Label::lossy("catalog");
        passwords.replace([(name.clone(), b"first".as_slice())].into_iter());
        assert!(passwords.fits("catalog", b"first"));
        assert!(!passwords.fits("catalog", b"firs"));
        assert!(!passwords.fits("argocd", b"first"));
        passwords.replace([(name, b"second".as_slice())].into_iter());
        assert!(!passwords.fits("catalog", b"first"));
    }
}
