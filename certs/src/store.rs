//! Which certificate a client gets, by the server name it requests.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{CertificateInfo, Pair};

/// Certificates by name. Built whole; never changes.
#[derive(Debug)]
pub struct Store {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the domain after `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
    facts: Vec<CertificateInfo>,
}

/// The certificates of a listener. A changed set takes effect at the next handshake.
#[derive(Clone)]
pub struct Certificates(Arc<ArcSwap<Store>>);

impl Store {
    /// Indexes certificates by name. The first one serves clients without a name or with an unknown one.
    /// `None` if there are none.
    pub fn new(pairs: Vec<Pair>) -> Option<Self> {
        let first = Arc::clone(&pairs.first()?.certified);
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for pair in &pairs {
            for name in &pair.facts.names {
                let name = name.to_ascii_lowercase();
                let (names, name) = match name.strip_prefix("*.") {
                    Some(domain) => (&mut wildcard, domain.to_owned()),
                    None => (&mut exact, name),
                };
                names.entry(name).or_insert_with(|| Arc::clone(&pair.certified));
            }
        }
        let facts = pairs.into_iter().map(|pair| pair.facts).collect();
        Some(Self { exact, wildcard, first, facts })
    }

    /// The certificates as reported to operators.
    pub fn facts(&self) -> &[CertificateInfo] {
        &self.facts
    }

    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.first };
        let name = name.trim_end_matches('.');
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(name.split_once('.')?.1))
            .unwrap_or(&self.first)
    }
}

impl Certificates {
    /// Begins with this set.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(store)))
    }

    /// Serves this set from now on.
    pub fn swap(&self, store: Store) {
        self.0.store(Arc::new(store));
    }

    /// The set being served.
    pub fn current(&self) -> Arc<Store> {
        self.0.load_full()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.0.load().facts).finish()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.0.load().find(hello.server_name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::Authority;

    #[test]
    fn a_certificate_is_chosen_by_the_longest_right_name() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("test").unwrap();
        let mut n = 0;
        let mut pair = |names: &[&str]| {
            n += 1;
            let (cert, key) =
                (folder.path().join(format!("{n}.crt")), folder.path().join(format!("{n}.key")));
            authority.server(names).unwrap().write(&cert, &key).unwrap();
            crate::pair(&cert, &key).unwrap()
        };
        let (a, b, c) = (pair(&["first.example"]), pair(&["*.a.example"]), pair(&["x.a.example"]));
        let keys = [&a, &b, &c].map(|p| Arc::clone(&p.certified));
        let store = Store::new(vec![a, b, c]).unwrap();
        let check = |name: Option<&str>, expected: usize| {
            assert!(Arc::ptr_eq(store.find(name), &keys[expected]), "{name:?}");
        };
        check(None, 0);
        check(Some("other.example"), 0);
        check(Some("y.a.example"), 1);
        check(Some("Y.A.Example."), 1);
        check(Some("x.a.example"), 2);
        check(Some("x.y.a.example"), 0);
        check(Some("a.example"), 0);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("test").unwrap();
        let file = |name: &str| folder.path().join(name);
        authority.server(&["a.example"]).unwrap().write(&file("a.crt"), &file("a.key")).unwrap();
        authority.server(&["b.example"]).unwrap().write(&file("b.crt"), &file("b.key")).unwrap();
        let error = crate::pair(&file("a.crt"), &file("b.key")).unwrap_err().to_string();
        assert!(error.contains("b.key`: it is not the key of `"), "{error}");
        let error = crate::pair(&file("a.key"), &file("a.key")).unwrap_err().to_string();
        assert!(error.contains("it contains no certificate"), "{error}");
        let error = crate::pair(&file("a.crt"), &file("gone")).unwrap_err().to_string();
        assert!(error.contains("gone`: no such file"), "{error}");
    }
}
