//! SHA-256 (FIPS 180-4), as an array of its bytes.

use ring::digest::{self, Context, SHA256};

/// A digest of several parts.
pub(crate) struct Sha256(Context);

impl Sha256 {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a part with its length, so that parts cannot run into each other.
    pub(crate) fn part(&mut self, part: &[u8]) {
        self.update(&(part.len() as u64).to_be_bytes());
        self.update(part);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        array(self.0.finish().as_ref())
    }
}

/// The digest of a text.
pub(crate) fn of(bytes: &[u8]) -> [u8; 32] {
    array(digest::digest(&SHA256, bytes).as_ref())
}

/// Its first eight bytes, as a number.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    of(bytes)[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The first `N` bytes of a digest.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_digest_of_the_standard_whole_or_in_parts() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(crate::types::hex::write(&of(b"abc")), abc);
        let mut parts = Sha256::new();
        ["a", "b", "c"].iter().for_each(|part| parts.update(part.as_bytes()));
        assert_eq!(crate::types::hex::write(&parts.finish()), abc);
        assert_eq!(number(b"abc"), 0xba78_16bf_8f01_cfea);
        let joined = |all: [&str; 2]| {
            let mut parts = Sha256::new();
            all.iter().for_each(|part| parts.part(part.as_bytes()));
            parts.finish()
        };
        assert_ne!(joined(["a", "bc"]), joined(["ab", "c"]));
    }
}
