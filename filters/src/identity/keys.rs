//! The keys that issuers sign with.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use config::Algorithm;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use smallvec::SmallVec;

use crate::{Label, Now, types::sha256};

/// The keys of all issuers. Replaced from outside, whole sets at a time.
#[derive(Default)]
pub struct Keys(ArcSwap<HashMap<Source, Arc<CachedKeys>>>);

/// Whose keys: an issuer's; or for Backstage, those of one plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The issuer's name in the config.
    pub issuer: Label,
    /// The Backstage plugin.
    pub plugin: Option<Label>,
    /// A hash of the configured location of its keys. Keys from another location do not count, even if they
    /// arrive after the reload that changed it.
    at: u64,
}

/// A set of keys, and when it was fetched.
#[derive(Debug)]
pub(super) struct CachedKeys {
    pub(super) set: KeySet,
    fetched: Now,
    /// When the last fetch failed, in milliseconds since the start, plus 1; 0 if it did not.
    failed: AtomicU64,
}

/// One issuer's keys.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    /// Key ids that several matching keys share.
    repeated: Vec<Label>,
}

/// How the keys of a source changed. A key without an id is reported as `?`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Ids of keys that are new.
    pub added: Vec<Label>,
    /// Ids of keys that are no longer trusted.
    pub removed: Vec<Label>,
}

impl Rotation {
    /// Whether nothing changed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// One key, for one family of algorithms. A public key can never be used as a secret.
pub(super) struct Key {
    pub(super) id: Option<String>,
    algorithm: Option<Algorithm>,
    kind: Kind,
    pub(super) decoding: DecodingKey,
    /// The key's own bytes, to see whether another set still has it.
    material: Vec<u8>,
    withdrawn: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
    Secret,
}

/// A key as reported to an operator.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// Whose it is.
    pub source: Source,
    /// Its id.
    pub id: Option<String>,
    /// Its algorithm, or its kind.
    pub kind: &'static str,
    /// When it was fetched last.
    pub fetched: Now,
    /// Whether another key has its id, so that each is tried.
    pub repeated: bool,
}

const KEYS_MAX: usize = 100;
const BYTES_MAX: usize = 512 << 10;
const SECRET_MIN: usize = 32;
/// The maximum of keys with one id. If there are more, none is trusted.
const OF_ONE_NAME_MAX: usize = 4;
/// The maximum of sources: plugins are named by unverified tokens.
const SOURCES_MAX: usize = 1000;

impl Source {
    /// The keys of an issuer as the operator wrote it.
    pub fn new(issuer: Label, written: &config::Issuer, plugin: Option<Label>) -> Self {
        let any = config::Keys::default();
        let keys =
            config::Keys { refresh: any.refresh, age_max: any.age_max, ..written.keys.clone() };
        let text = serde_json::to_vec(&(written.kind, &written.issuer, keys));
        let at = sha256::number(&text.expect("a config is data"));
        Self { issuer, plugin, at }
    }

    /// The keys of one of its plugins.
    #[must_use]
    pub fn of_plugin(&self, plugin: Label) -> Self {
        Self { plugin: Some(plugin), ..self.clone() }
    }

    /// Whether both are the same issuer's, whatever their plugins.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.at == other.at
    }
}

impl Keys {
    /// Replaces the keys of a source. Tokens verified by a key that is no longer in the set are no longer
    /// trusted.
    pub fn replace(&self, source: &Source, set: KeySet, now: Now) -> Rotation {
        let before = self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            let mut set = set.clone();
            if let Some(last) = all.get(source) {
                for key in &mut set.keys {
                    if let Some(same) = last.set.keys.iter().find(|old| old.is_same(key)) {
                        *key = Arc::clone(same);
                    }
                }
            }
            if all.len() < SOURCES_MAX || all.contains_key(source) {
                let failed = AtomicU64::new(0);
                all.insert(source.clone(), Arc::new(CachedKeys { set, fetched: now, failed }));
            }
            all
        });
        let before = before.get(source).map_or(&[][..], |held| &held.set.keys[..]);
        let others = |these: &[Arc<Key>], those: &[Arc<Key>]| -> Vec<Arc<Key>> {
            let is_new = |key: &&Arc<Key>| !those.iter().any(|other| other.is_same(key));
            these.iter().filter(is_new).cloned().collect()
        };
        let (added, removed) = (others(&set.keys, before), others(before, &set.keys));
        removed.iter().for_each(|key| key.withdraw());
        let ids = |keys: Vec<Arc<Key>>| {
            keys.iter().map(|key| Label::lossy(key.id.as_deref().unwrap_or("?"))).collect()
        };
        Rotation { added: ids(added), removed: ids(removed) }
    }

    /// Removes the keys of issuers that are no longer configured.
    pub fn keep(&self, configured: impl Fn(&Source) -> bool) {
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.retain(|source, held| {
                let keep = configured(source);
                if !keep {
                    held.set.keys.iter().for_each(|key| key.withdraw());
                }
                keep
            });
            all
        });
    }

    /// How old the keys of a source are; `None` if there are none.
    pub fn age(&self, source: &Source, now: Now) -> Option<Duration> {
        let all = self.0.load();
        Some(now.elapsed.saturating_sub(all.get(source)?.fetched.elapsed))
    }

    /// Records that the keys of a source could not be fetched.
    pub fn fail(&self, source: &Source, now: Now) {
        let millis = u64::try_from(now.elapsed.as_millis()).unwrap_or(u64::MAX - 1);
        if let Some(held) = self.0.load().get(source) {
            held.failed.store(millis + 1, Ordering::Relaxed);
        }
    }

    /// How long ago the last fetch of a source's keys failed; `None` if it succeeded.
    pub fn failed(&self, source: &Source, now: Now) -> Option<Duration> {
        self.0.load().get(source)?.failed(now)
    }

    /// All keys, for an operator.
    pub fn describe(&self) -> Vec<KeyFacts> {
        let all = self.0.load();
        let facts = all.iter().flat_map(|(source, held)| {
            held.set.keys.iter().map(|key| KeyFacts {
                source: source.clone(),
                id: key.id.clone(),
                kind: key.kind.name(),
                fetched: held.fetched,
                repeated: held.set.is_repeated(key),
            })
        });
        let mut facts: Vec<_> = facts.collect();
        facts.sort_by(|a, b| (&a.source, &a.id).cmp(&(&b.source, &b.id)));
        facts
    }

    /// The sources that have keys.
    pub fn sources(&self) -> Vec<Source> {
        self.0.load().keys().cloned().collect()
    }

    pub(super) fn of(&self, source: &Source) -> Option<Arc<CachedKeys>> {
        self.0.load().get(source).cloned()
    }
}

impl CachedKeys {
    pub(super) fn age(&self, now: Now) -> Duration {
        now.elapsed.saturating_sub(self.fetched.elapsed)
    }

    /// How long ago the last fetch failed; `None` if it succeeded.
    pub(super) fn failed(&self, now: Now) -> Option<Duration> {
        let failed = self.failed.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.elapsed.saturating_sub(Duration::from_millis(failed)))
    }
}

impl KeySet {
    /// After a failed fetch, the keys are not fetched again within this time.
    pub const FETCHED_JUST_NOW: Duration = Duration::from_secs(1);

    /// The usable keys of a JWKS (RFC 7517). Keys for encryption, unknown kinds and weak keys are left out,
    /// and so are those whose id too many share.
    ///
    /// # Errors
    /// Why the text is not a JWKS.
    pub fn from_jwks(text: &[u8]) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("the JWKS is larger than {BYTES_MAX} bytes"));
        }
        let set: Jwks = serde_json::from_slice(text).map_err(|_| "not a JWKS".to_owned())?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("the JWKS has over {KEYS_MAX} keys"));
        }
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for key in set.keys.iter().filter_map(Key::from_jwk) {
            if keys.iter().any(|other| other.is_same(&key)) {
                continue;
            }
            keys.push(Arc::new(key));
        }
        // An id should be unique (RFC 7517 4.5), but issuers rotate badly. That is no reason to refuse the
        // tokens of the other keys, nor of these: all are the issuer's.
        let mut repeated: Vec<Label> = Vec::new();
        let mut too_many: Vec<Arc<Key>> = Vec::new();
        for key in &keys {
            let Some(id) = &key.id else { continue };
            let alike = keys.iter().filter(|other| other.is_mistakable_for(key)).count();
            let name = Label::lossy(id);
            if alike > 1 && !repeated.contains(&name) {
                repeated.push(name);
            }
            if alike > OF_ONE_NAME_MAX {
                too_many.push(Arc::clone(key));
            }
        }
        keys.retain(|key| !too_many.iter().any(|other| Arc::ptr_eq(key, other)));
        Ok(Self { keys, repeated })
    }

    /// Key ids that several matching keys share. Each key is tried, up to a maximum.
    pub fn repeated(&self) -> &[Label] {
        &self.repeated
    }

    fn is_repeated(&self, key: &Key) -> bool {
        key.id.as_deref().is_some_and(|id| {
            let name = Label::lossy(id);
            self.repeated.contains(&name)
        })
    }

    /// A shared secret, for HMAC.
    ///
    /// # Errors
    /// If it is shorter than 32 bytes.
    pub fn from_secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < SECRET_MIN {
            return Err(format!(
                "the secret has {} bytes; it needs at least {SECRET_MIN}",
                secret.len()
            ));
        }
        let key = Arc::new(Key {
            id: None,
            algorithm: None,
            kind: Kind::Secret,
            decoding: DecodingKey::from_secret(secret),
            material: secret.to_vec(),
            withdrawn: AtomicBool::new(false),
        });
        Ok(Self { keys: vec![key], repeated: Vec::new() })
    }

    /// The key for a token: one, unless its issuer gave several the same id. Without a key id there must be
    /// only one candidate; trying keys one by one would be guessing.
    pub(super) fn choose(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> SmallVec<[&Arc<Key>; OF_ONE_NAME_MAX]> {
        let fitting = self.keys.iter().filter(|key| key.fits(algorithm));
        match id {
            // A secret has no id, whatever the token's `kid`.
            Some(id) => fitting
                .filter(|key| key.kind == Kind::Secret || key.id.as_deref() == Some(id))
                .take(OF_ONE_NAME_MAX)
                .collect(),
            None => {
                let all: SmallVec<_> = fitting.take(2).collect();
                if all.len() == 1 { all } else { SmallVec::new() }
            }
        }
    }

    /// Whether one of its keys can verify one of these algorithms.
    pub fn serves(&self, algorithms: &[Algorithm]) -> bool {
        algorithms.iter().any(|wanted| self.keys.iter().any(|key| key.fits(*wanted)))
    }

    /// The algorithms of its keys. A key without `alg` counts with the usual one of its kind.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut all: Vec<Algorithm> = Vec::new();
        for key in &self.keys {
            let own = key.algorithm.unwrap_or_else(|| key.kind.usual());
            if !all.contains(&own) {
                all.push(own);
            }
        }
        all
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    fn from_jwk(jwk: &serde_json::Value) -> Option<Self> {
        let jwk = Jwk::deserialize(jwk).ok()?;
        let for_signatures = jwk.r#use.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures {
            return None;
        }
        let bytes = |part: &Option<String>| BASE64URL.decode(part.as_deref()?).ok();
        let (kind, decoding, material) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) => {
                let (n, e) = (bytes(&jwk.n)?, bytes(&jwk.e)?);
                let modulus = n.iter().position(|b| *b != 0).map_or(&[][..], |at| &n[at..]);
                // ring also refuses below 2048 bits, but only when it verifies.
                if modulus.len() < 256 {
                    return None;
                }
                (
                    Kind::Rsa,
                    DecodingKey::from_rsa_raw_components(modulus, &e),
                    [&n[..], &e].concat(),
                )
            }
            ("EC", Some(curve)) => {
                let (kind, width) = match curve {
                    "P-256" => (Kind::P256, 32),
                    "P-384" => (Kind::P384, 48),
                    "P-521" => (Kind::P521, 66),
                    _ => return None,
                };
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                if x.len() != width || y.len() != width {
                    return None;
                }
                let point = [&[4][..], &x, &y].concat();
                (kind, DecodingKey::from_ec_der(&point), point)
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes(&jwk.x)?;
                if x.len() != 32 {
                    return None;
                }
                (Kind::Ed25519, DecodingKey::from_ed_der(&x), x)
            }
            // "oct" above all: a secret that everyone can fetch is not one.
            _ => return None,
        };
        let algorithm = match jwk.alg {
            // A key for an unknown algorithm is left out.
            Some(name) => Some(algorithm(&name)?),
            None => None,
        };
        let withdrawn = AtomicBool::new(false);
        Some(Self { id: jwk.kid, algorithm, kind, decoding, material, withdrawn })
    }

    /// Whether it can verify this algorithm.
    fn fits(&self, wanted: Algorithm) -> bool {
        use Algorithm as A;
        let kind = match wanted {
            A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512 => Kind::Rsa,
            A::ES256 => Kind::P256,
            A::ES384 => Kind::P384,
            A::ES512 => Kind::P521,
            A::EdDSA => Kind::Ed25519,
            A::HS256 | A::HS384 | A::HS512 => Kind::Secret,
        };
        // At least as long as the signature (RFC 7518 3.2).
        let length_min = match wanted {
            A::HS384 => 48,
            A::HS512 => 64,
            _ => 0,
        };
        self.kind == kind
            && self.algorithm.is_none_or(|own| own == wanted)
            && self.material.len() >= length_min
    }

    /// Whether its issuer has withdrawn it.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.material
    }

    fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    /// Whether a token could refer to either.
    fn is_mistakable_for(&self, other: &Self) -> bool {
        let algorithms = self.algorithm.zip(other.algorithm);
        self.kind == other.kind
            && self.id == other.id
            && algorithms.is_none_or(|(own, others)| own == others)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.id == other.id
            && self.algorithm == other.algorithm
            && self.material == other.material
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Kind {
    fn usual(self) -> Algorithm {
        match self {
            Self::Rsa => Algorithm::RS256,
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
            Self::P521 => Algorithm::ES512,
            Self::Ed25519 => Algorithm::EdDSA,
            Self::Secret => Algorithm::HS256,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::P256 => "EC P-256",
            Self::P384 => "EC P-384",
            Self::P521 => "EC P-521",
            Self::Ed25519 => "Ed25519",
            Self::Secret => "secret",
        }
    }
}

/// The algorithm of this name (RFC 7518), if we know it. `none` is not one.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "ES512" => Algorithm::ES512,
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        _ => return None,
    })
}
