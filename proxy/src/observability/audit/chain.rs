//! The chain as this process writes it: a digest on each line, and a checkpoint where one is due.

use std::time::Duration;

use certs::LoadError;
use filters::audit::{
    chain::Link,
    checkpoint::{PublicKey, Signer},
};

use crate::clock;

/// Seals lines.
pub(super) struct Chain {
    signing: Option<Signing>,
    /// Its end. Lines that could not be written are not in the chain: then this stays unchanged.
    pub(super) place: Place,
}

/// Where a chain is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The digest of the last line.
    pub(super) link: Link,
    /// How many lines this process wrote.
    pub(super) lines: u64,
    /// The number of lines at the last checkpoint, and when that was.
    pub(super) signed: u64,
    signed_at: Duration,
}

/// Lines that were sealed, and what that makes of the chain once they are written.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) place: Place,
    /// How many bytes of the lines it contains.
    pub(super) taken: usize,
}

/// Longer than any checkpoint. This much is reserved at the end of a segment while one is due there.
const CHECKPOINT_MAX: usize = 512;

/// What signs, and when.
pub struct Signing {
    signer: Signer,
    lines_max: u64,
    interval: Duration,
}

impl Signing {
    /// With the key that a config names.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn new(written: &config::Checkpoints) -> Result<Self, LoadError> {
        let signer = Signer::of_pkcs8(&certs::pkcs8(&written.key_file)?);
        Ok(Self {
            signer: signer.ok_or_else(|| LoadError {
                file: written.key_file.value.clone(),
                cause:
                    "it is not an Ed25519 key; make one with `openssl genpkey -algorithm ed25519`"
                        .to_owned(),
            })?,
            lines_max: written.lines_max.get().into(),
            interval: *written.interval,
        })
    }
}

impl Chain {
    /// Continues from a line.
    pub(super) fn new(signing: Option<Signing>, link: Link) -> Self {
        let signed_at = clock::elapsed();
        Self { signing, place: Place { link, lines: 0, signed: 0, signed_at } }
    }

    pub(super) fn key(&self) -> Option<&PublicKey> {
        self.signing.as_ref().map(|signing| signing.signer.public_key())
    }

    /// Lines with their digests, and where the chain is after them.
    pub(super) fn seal(&self, lines: &[u8]) -> (Vec<u8>, Place) {
        let piece = self.seal_within(lines, usize::MAX);
        (piece.bytes, piece.place)
    }

    /// Seals as many lines as fit, with room for the checkpoint that they may need.
    pub(super) fn seal_within(&self, lines: &[u8], room: usize) -> Piece {
        let capacity = (lines.len() + lines.len() / 4).min(room);
        let mut piece = Piece { bytes: Vec::with_capacity(capacity), place: self.place, taken: 0 };
        while let Some(line) = first_line(&lines[piece.taken..]) {
            let (written, before) = (piece.bytes.len(), piece.place);
            self.add(line, &mut piece);
            let checkpoint = match &self.signing {
                Some(_) if piece.place.lines > piece.place.signed => CHECKPOINT_MAX,
                _ => 0,
            };
            if piece.bytes.len() > room.saturating_sub(checkpoint) {
                piece.bytes.truncate(written);
                piece.place = before;
                break;
            }
            piece.taken += line.len();
        }
        piece
    }

    /// The first of the lines, however long it is.
    pub(super) fn seal_one(&self, lines: &[u8]) -> Piece {
        let mut piece = Piece { bytes: Vec::new(), place: self.place, taken: 0 };
        if let Some(line) = first_line(lines) {
            piece.taken = line.len();
            self.add(line, &mut piece);
        }
        piece
    }

    fn add(&self, line: &[u8], piece: &mut Piece) {
        let Piece { bytes, place, .. } = piece;
        place.link = place.link.seal(line, bytes);
        place.lines += 1;
        if let Some(signing) = &self.signing
            && place.lines - place.signed >= signing.lines_max
        {
            *place = signing.sign(*place, bytes);
        }
    }

    /// A checkpoint over lines that have none yet, and the end of the chain after it.
    pub(super) fn checkpoint(&self) -> Option<(Vec<u8>, Place)> {
        let signing = self.signing.as_ref().filter(|_| self.place.lines > self.place.signed)?;
        let mut out = Vec::new();
        let place = signing.sign(self.place, &mut out);
        debug_assert!(out.len() <= CHECKPOINT_MAX, "{} bytes", out.len());
        Some((out, place))
    }

    /// Whether lines have waited long enough for a checkpoint.
    pub(super) fn is_due(&self) -> bool {
        let waited = clock::elapsed().saturating_sub(self.place.signed_at);
        self.signing.as_ref().is_some_and(|signing| waited >= signing.interval)
            && self.place.lines > self.place.signed
    }
}

/// The first line with its end. Found many bytes at a time: every record passes here.
fn first_line(lines: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', lines).map_or(lines.len(), |at| at + 1);
    lines.get(..end).filter(|line| !line.is_empty())
}

impl Signing {
    fn sign(&self, place: Place, out: &mut Vec<u8>) -> Place {
        let now = clock::now();
        let mut line = Vec::with_capacity(512);
        self.signer.write(&mut line, now, &place.link, place.lines, self.lines_max);
        let lines = place.lines + 1;
        Place { link: place.link.seal(&line, out), lines, signed: lines, signed_at: now.elapsed }
    }
}
