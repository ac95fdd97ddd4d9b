//! A chunked body that we take ends where httparse ends it, and where it ends does not depend on how it came.

use httparse::{EMPTY_HEADER, Status, parse_chunk_size, parse_headers};

use super::chunked::Chunks;

/// The first byte says how long the pieces are in which the rest comes.
pub fn check(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first() else { return };
    let whole = ours(body, body.len());
    assert_eq!(ours(body, usize::from(*length)), whole, "it depends on how it came");
    if let Some((taken, true)) = whole {
        assert_eq!(theirs(body), Some(taken), "httparse ends it elsewhere");
    }
}

/// How many bytes belong to the body, and whether that is all of it; `None` if it is broken.
fn ours(body: &[u8], length: usize) -> Option<(usize, bool)> {
    let mut chunks = Chunks::default();
    let mut taken = 0;
    for piece in body.chunks(length.max(1)) {
        taken += chunks.take(piece).ok()?;
        if chunks.is_over() {
            break;
        }
    }
    Some((taken, chunks.is_over()))
}

fn theirs(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(Status::Complete((line, size))) = parse_chunk_size(&body[at..]) else { return None };
        at += line;
        if size == 0 {
            let mut trailers = vec![EMPTY_HEADER; 4096];
            let Ok(Status::Complete((length, _))) = parse_headers(&body[at..], &mut trailers)
            else {
                return None;
            };
            return Some(at + length);
        }
        at += usize::try_from(size).ok()?;
        at += body.get(at..)?.starts_with(b"\r\n").then_some(2)?;
    }
}
