//! Checkpoints: signed lines of the chain (Ed25519, RFC 8032), so that someone who can write the segments
//! still cannot rewrite what precedes a checkpoint.
//!
//! What is signed is [`CONTEXT`], the digest of the line before (32 bytes), and the line's own bytes up
//! to the comma before `"signature"`. As that digest is over all lines before, so is the signature.

use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

use super::{Line, chain::Link};
use crate::{Now, types::hex};

/// The domain separator: a signature over something else is never valid for records.
pub const CONTEXT: &[u8] = b"stagedoor audit checkpoint v1\n";

const MEMBER: &[u8] = b",\"signature\":\"";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// RFC 8410: what precedes the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo`.
const SPKI_PREFIX: &[u8] =
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs checkpoints.
pub struct Signer {
    pair: Ed25519KeyPair,
    key: PublicKey,
}

/// Verifies checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its fingerprint: the first half of the SHA-256 of its 32 bytes, in hex.
    pub id: String,
    bytes: [u8; KEY_BYTES],
}

/// What a checkpoint says.
#[derive(Debug, serde::Deserialize)]
pub struct Checkpoint {
    /// How many lines its process wrote before it.
    pub lines: u64,
    /// The number of lines after which the next is due.
    pub due: u64,
    /// The fingerprint of its key.
    pub key: String,
}

impl Signer {
    /// From a private key in PKCS #8. `None` if it is no Ed25519 key.
    pub fn of_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let key = PublicKey::new(pair.public_key().as_ref())?;
        Some(Self { pair, key })
    }

    /// The key that verifies its checkpoints.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Appends a checkpoint to `out`, as one line: `lines` were written before it, and after `due`
    /// more there will be another.
    pub fn write(&self, out: &mut Vec<u8>, at: Now, previous: &Link, lines: u64, due: u64) {
        let begin = out.len();
        let mut line = Line(out);
        line.open();
        line.text("kind", "checkpoint");
        line.time("time", at.unix);
        line.number("lines", lines);
        line.number("due", due);
        line.text("key", &self.key.id);
        let signature = self.pair.sign(&signed(previous, &out[begin..]));
        let mut line = Line(out);
        line.text("signature", &hex::write(signature.as_ref()));
        line.close();
    }
}

impl PublicKey {
    /// From the 32 bytes of a key.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let id = hex::write(&digest(&SHA256, bytes).as_ref()[..16]);
        Some(Self { id, bytes: bytes.try_into().ok()? })
    }

    /// From a `SubjectPublicKeyInfo` (RFC 8410). `None` if it is no Ed25519 key.
    pub fn of_spki(der: &[u8]) -> Option<Self> {
        Self::new(der.strip_prefix(SPKI_PREFIX)?)
    }

    /// As a `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX, &self.bytes].concat()
    }

    /// Whether this line, which follows `previous` in the chain, was signed with this key. `body` ends
    /// before its digest.
    pub fn verifies(&self, previous: &Link, body: &[u8]) -> bool {
        let Some((own, signature)) = split(body) else { return false };
        let key = UnparsedPublicKey::new(&ED25519, &self.bytes);
        key.verify(&signed(previous, own), &signature).is_ok()
    }
}

impl Checkpoint {
    /// Parses a whole line. `None` if it is not a checkpoint.
    pub fn of(line: &[u8]) -> Option<Self> {
        line.starts_with(b"{\"kind\":\"checkpoint\"").then(|| serde_json::from_slice(line).ok())?
    }
}

/// The signed part of a body, and its signature.
fn split(body: &[u8]) -> Option<(&[u8], [u8; SIGNATURE_BYTES])> {
    let rest = body.strip_suffix(b"\"")?;
    let (own, digits) = rest.split_at_checked(rest.len().checked_sub(2 * SIGNATURE_BYTES)?)?;
    Some((own.strip_suffix(MEMBER)?, hex::read(digits)?))
}

fn signed(previous: &Link, own: &[u8]) -> Vec<u8> {
    [CONTEXT, previous.bytes(), own].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 7.1, test 1: the seed and its public key.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn signer() -> Signer {
        let prefix = hex::read::<16>(b"302e020100300506032b657004220420").unwrap();
        let seed = hex::read::<32>(SEED.as_bytes()).unwrap();
        Signer::of_pkcs8(&[&prefix[..], &seed].concat()).unwrap()
    }

    fn body(previous: &Link) -> Vec<u8> {
        let mut line = Vec::new();
        signer().write(&mut line, Now::default(), previous, 7, 100);
        line.truncate(line.len() - 2);
        line
    }

    #[test]
    fn a_checkpoint_is_verified_by_its_key_at_its_place_and_not_otherwise() {
        let key = PublicKey::new(&hex::read::<32>(PUBLIC.as_bytes()).unwrap()).unwrap();
        assert_eq!(signer().public_key(), &key);
        assert_eq!(PublicKey::of_spki(&key.spki()), Some(key.clone()));
        let previous = Link::START.next(b"before");
        let body = body(&previous);
        assert!(key.verifies(&previous, &body));
        assert!(!key.verifies(&Link::START, &body), "after another line");
        let other = PublicKey::new(&[9; 32]).unwrap();
        assert!(!other.verifies(&previous, &body));
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert!(!key.verifies(&previous, &changed), "byte {at}");
        }
    }

    #[test]
    fn it_has_the_number_of_its_lines_and_when_the_next_is_due() {
        let line = [&body(&Link::START)[..], b"}"].concat();
        let read = Checkpoint::of(&line).unwrap();
        assert_eq!((read.lines, read.due, read.key), (7, 100, signer().public_key().id.clone()));
        assert!(Checkpoint::of(b"{\"kind\":\"gap\",\"lost\":1}").is_none());
    }
}
