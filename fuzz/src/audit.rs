//! Segments are read back as they were written, from every line on, compressed or not; a chain that was
//! changed does not verify; whatever stands in a line, reading it as a record panics nowhere, and what is
//! taken for a record is JSON to serde_json.

#![allow(dead_code, reason = "the proxy uses the rest")]

use std::{fs, path::Path};

use filters::{
    audit::{
        chain::Link,
        verify::{Beginning, Fault, Verifier},
    },
    replay,
};

#[path = "../../proxy/src/observability/audit/read.rs"]
mod read;

use read::{Line, Lines};

/// Below it is either the file of a segment, or texts to seal and what to change in them.
pub fn check(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 2 {
        0 => segment(rest),
        _ => chain(rest),
    }
}

fn segment(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("audit-1.jsonl");
    fs::write(&plain, bytes).expect("a file");
    let places = lines(&plain, bytes);
    for (byte, line) in &places {
        let mut from = Lines::open_at(&plain, *byte as u64).expect("a file");
        match from.next_line().expect("a line") {
            Some(Line::Whole(text) | Line::Torn(text)) => assert_eq!(text, *line),
            other => panic!("{other:?}"),
        }
    }
    let packed = folder.path().join("audit-2.jsonl.zst");
    fs::write(&packed, zstd::encode_all(bytes, 1).expect("packed")).expect("a file");
    assert_eq!(lines(&packed, bytes).len(), places.len());
    // As if it were one: it may be broken anywhere.
    let broken = folder.path().join("audit-3.jsonl.zst");
    fs::write(&broken, bytes).expect("a file");
    if let Ok(mut lines) = Lines::open(&broken) {
        while let Ok(Some(_)) = lines.next_line() {}
    }
}

/// The lines of a file that holds these bytes, and where each begins.
fn lines<'a>(path: &Path, bytes: &'a [u8]) -> Vec<(usize, &'a [u8])> {
    let mut lines = Lines::open(path).expect("a file");
    let mut all = Vec::new();
    let mut at = 0;
    loop {
        assert_eq!((lines.number, lines.byte), (all.len() as u64 + 1, at as u64));
        let (text, next) = match lines.next_line().expect("a line") {
            None => break,
            Some(Line::Whole(text)) => (text, at + text.len() + 1),
            Some(Line::Torn(text)) => (text, at + text.len()),
            Some(Line::TooLong) => panic!("nothing here is so long"),
        };
        record(text);
        let end = at + text.len();
        assert_eq!(text, &bytes[at..end]);
        assert_eq!(next != end, bytes.get(end) == Some(&b'\n'));
        all.push((at, &bytes[at..end]));
        at = next;
        if next == end {
            break;
        }
    }
    assert_eq!(at, bytes.len());
    all
}

fn record(line: &[u8]) {
    let _ = Beginning::of(line);
    if replay::record::Record::read(line).is_some() {
        serde_json::from_slice::<serde_json::Value>(line).expect("JSON");
    }
}

/// Lines are sealed as texts between line feeds, the first one's bytes say which byte becomes what.
fn chain(bytes: &[u8]) {
    let [high, low, change, texts @ ..] = bytes else { return };
    let mut sealed = Vec::new();
    let begins =
        format!("{{\"kind\":\"segment\",\"run\":\"r\",\"previous\":\"{}\"}}\n", Link::START);
    let mut last = Link::START.seal(begins.as_bytes(), &mut sealed);
    for text in texts.split(|b| *b == b'\n') {
        last = last.seal(&[b"{\"kind\":\"", text, b"\"}\n"].concat(), &mut sealed);
    }
    let link = verified(&sealed).expect("a chain that nobody changed");
    assert_eq!(link, last);

    let at = usize::from(u16::from_be_bytes([*high, *low])) % sealed.len();
    if *change != 0 {
        sealed[at] ^= change;
        assert!(verified(&sealed).is_err(), "a changed byte is not noticed");
        sealed[at] ^= change;
    }
    // A line taken out, unless it is the last: how many there were the head says.
    let ends: Vec<usize> = memchr::memchr_iter(b'\n', &sealed).collect();
    let line = at % ends.len();
    if line + 1 < ends.len() {
        let begin = line.checked_sub(1).map_or(0, |before| ends[before] + 1);
        sealed.drain(begin..=ends[line]);
        assert!(verified(&sealed).is_err(), "a removed line is not noticed");
    }
}

fn verified(segment: &[u8]) -> Result<Link, Fault> {
    let lines = segment.strip_suffix(b"\n").ok_or(Fault::NotSealed)?;
    let mut lines = lines.split(|b| *b == b'\n');
    let first = lines.next().unwrap_or_default();
    let beginning = Beginning::of(first)?;
    let mut verifier = Verifier::new(std::iter::once(&beginning), Vec::new());
    verifier.begin(&beginning)?;
    verifier.line(first)?;
    lines.try_for_each(|line| verifier.line(line))?;
    Ok(verifier.last())
}
