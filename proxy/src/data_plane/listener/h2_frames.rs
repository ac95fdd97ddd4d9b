//! Inspects the frames of an HTTP/2 connection before h2 reads them, for the one fault that h2 does not
//! detect: trailers with pseudo-headers (RFC 9113 8.1), which it would silently drop.

use std::collections::BTreeSet;

use super::hpack::Table;

/// A place in what a client sends.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of this frame that have not arrived yet. The preface counts as a frame.
    left: usize,
    /// Of a header block that begins a stream: this frame's part of it, with its flags.
    part: Option<(Vec<u8>, u8)>,
    /// The parts before it.
    block: Vec<u8>,
    /// Buffered bytes, which begin with a frame.
    buffered: Vec<u8>,
    last_stream: u32,
    /// Streams whose client has not ended them.
    open: BTreeSet<u32>,
    table: Option<Table>,
}

const PREFACE: usize = 24;
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// The largest frame that h2 accepts.
const FRAME_MAX: usize = 16 << 10;
/// Of trailers with all that frames add to them.
const TRAILERS_MAX: usize = FRAME_MAX - MALFORMED.len();
/// h2 refuses anything larger, so there is nothing more to inspect.
const BLOCK_MAX: usize = 256 << 10;
/// A client may leave streams open that we have ended. Beyond this number the oldest count as ended.
const OPEN_MAX: usize = 1024;
/// `connection: x`, a literal that no table remembers: it makes any header block malformed (8.2.2).
const MALFORMED: &[u8] = b"\x00\x0aconnection\x01x";

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            left: PREFACE,
            part: None,
            block: Vec::new(),
            buffered: Vec::new(),
            last_stream: 0,
            open: BTreeSet::new(),
            table: Some(Table::default()),
        }
    }

    /// Inspects received bytes; returns their replacement if h2 must not read them unchanged.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn inspect(&mut self, received: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        if self.buffered.is_empty() {
            return self.walk(received);
        }
        let mut all = std::mem::take(&mut self.buffered);
        all.extend_from_slice(received);
        Ok(Some(self.walk(&all)?.unwrap_or(all)))
    }

    /// The same for `bytes`, with nothing buffered before them. An incomplete rest is buffered in `buffered`.
    fn walk(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        // The replacement of everything before `from`.
        let mut replacement = Vec::new();
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.left > 0 {
                let here = self.left.min(rest.len());
                if let Some((part, _)) = &mut self.part {
                    part.extend_from_slice(&rest[..here]);
                }
                self.left -= here;
                at += here;
                self.part_ended();
                continue;
            }
            let Some(head) = Head::of(rest) else {
                self.buffered = rest.to_vec();
                break;
            };
            if head.kind == HEADERS && head.stream <= self.last_stream && self.table.is_some() {
                let length = whole(rest);
                if length.unwrap_or(rest.len()) > TRAILERS_MAX {
                    return Err("the trailers are too long");
                }
                let Some(length) = length else {
                    self.buffered = rest.to_vec();
                    break;
                };
                let block = joined(&rest[..length]);
                // Frames after the end of a stream are a fault that h2 detects.
                if self.has_pseudo(&block) && self.open.contains(&head.stream) {
                    replacement.extend_from_slice(&bytes[from..at]);
                    spoil(&head, &block, &mut replacement);
                    from = at + length;
                }
                self.note(&head);
                at += length;
                continue;
            }
            self.note(&head);
            self.left = head.length;
            if self.table.is_some() && matches!(head.kind, HEADERS | CONTINUATION) {
                self.last_stream = self.last_stream.max(head.stream);
                self.part =
                    Some((Vec::with_capacity(head.length.min(FRAME_MAX)), head.flags_of_part()));
            }
            at += HEAD;
            self.part_ended();
        }
        if from == 0 && self.buffered.is_empty() {
            return Ok(None);
        }
        replacement.extend_from_slice(&bytes[from..at]);
        Ok(Some(replacement))
    }

    /// Tracks which streams the client has begun and not ended.
    fn note(&mut self, head: &Head) {
        let ends = match head.kind {
            HEADERS | DATA => head.flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => return,
        };
        if ends {
            self.open.remove(&head.stream);
        } else if head.kind == HEADERS && head.stream > self.last_stream {
            self.open.insert(head.stream);
            if self.open.len() > OPEN_MAX {
                self.open.pop_first();
            }
        }
    }

    /// Reads a header block that begins a stream, when it is whole.
    fn part_ended(&mut self) {
        if self.left > 0 {
            return;
        }
        let Some((part, flags)) = self.part.take() else { return };
        let fragment = fragment(&part, flags).unwrap_or_default();
        let is_whole = flags & END_HEADERS != 0;
        // Usually all of it is in one frame.
        let understood = match (is_whole, self.block.is_empty()) {
            (true, true) => self.understand(fragment),
            _ => {
                self.block.extend_from_slice(fragment);
                let block = std::mem::take(&mut self.block);
                match is_whole {
                    true => self.understand(&block),
                    false => {
                        self.block = block;
                        self.block.len() <= BLOCK_MAX
                    }
                }
            }
        };
        if !understood {
            self.table = None;
            self.block = Vec::new();
        }
    }

    fn understand(&mut self, block: &[u8]) -> bool {
        self.table.as_mut().is_some_and(|table| table.read(block).is_some())
    }

    /// Whether trailers have a pseudo-header.
    fn has_pseudo(&mut self, block: &[u8]) -> bool {
        let found = self.table.as_mut().and_then(|table| table.read(block));
        if found.is_none() {
            self.table = None;
        }
        found == Some(true)
    }
}

/// The head of a frame.
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = *bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, l1, l2, l3]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]),
        })
    }

    /// A CONTINUATION has only one flag.
    fn flags_of_part(&self) -> u8 {
        if self.kind == HEADERS { self.flags } else { self.flags & END_HEADERS }
    }
}

/// Where the header block ends that begins with the first frame, if it is complete.
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let head = Head::of(bytes.get(at..)?)?;
        // Any other frame in between is a fault that h2 detects.
        let is_other = at > 0 && head.kind != CONTINUATION;
        at += HEAD + head.length;
        if at > bytes.len() {
            return None;
        }
        if head.flags & END_HEADERS != 0 || is_other {
            return Some(at);
        }
    }
}

/// A frame's part of a header block, without padding and priority.
fn fragment(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let (mut payload, mut padding) = (payload, 0);
    if flags & PADDED != 0 {
        let (length, rest) = payload.split_first()?;
        (payload, padding) = (rest, usize::from(*length));
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(padding)?)
}

/// The header block of whole frames.
fn joined(frames: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(frames.len() + MALFORMED.len());
    let mut rest = frames;
    while let Some(head) = Head::of(rest) {
        let (frame, after) = rest.split_at(HEAD + head.length);
        block.extend_from_slice(fragment(&frame[HEAD..], head.flags_of_part()).unwrap_or_default());
        rest = after;
    }
    block
}

/// Writes trailers that h2 finds malformed, in one frame: what tables remember of them stays.
fn spoil(head: &Head, block: &[u8], read: &mut Vec<u8>) {
    let length = u32::try_from(block.len() + MALFORMED.len()).expect("trailers are short");
    read.extend_from_slice(&length.to_be_bytes()[1..]);
    read.extend_from_slice(&[HEADERS, head.flags & END_STREAM | END_HEADERS]);
    read.extend_from_slice(&head.stream.to_be_bytes());
    read.extend_from_slice(block);
    read.extend_from_slice(MALFORMED);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    const END: u8 = END_HEADERS | 1;
    const REQUEST: &[u8] = b"\x83\x87\x44\x02/x\x41\x01a";

    /// Of a connection that begins with a POST.
    fn begun() -> Vec<u8> {
        let preface = vec![b'x'; PREFACE];
        [preface, frame(4, 0, 0, b""), frame(1, END_HEADERS, 1, REQUEST), frame(0, 0, 1, b"abc")]
            .concat()
    }

    /// What h2 reads of it, however it is split.
    fn read(bytes: &[u8]) -> Vec<u8> {
        let in_pieces = |size: usize| {
            let mut frames = Frames::new();
            let mut read = Vec::new();
            for piece in bytes.chunks(size) {
                match frames.inspect(piece).unwrap() {
                    Some(other) => read.extend(other),
                    None => read.extend_from_slice(piece),
                }
            }
            assert!(frames.table.is_some());
            read
        };
        let whole = in_pieces(bytes.len());
        for size in [1, 2, 7, 10, 31] {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn faultless_frames_are_read_unchanged() {
        let trailers: [Vec<u8>; 5] = [
            frame(1, END, 1, b"\x00\x01a\x01b"),
            frame(1, END, 1, b"\x40\x01a\x01b\xbe"),
            frame(1, END | PADDED, 1, b"\x02\x00\x01a\x01b\x82\x82"),
            [frame(1, 1, 1, b"\x00\x01"), frame(9, END_HEADERS, 1, b"a\x01b")].concat(),
            frame(1, END, 3, REQUEST),
        ];
        for trailers in trailers {
            let all = [begun(), trailers, frame(6, 0, 0, b"12345678")].concat();
            assert_eq!(read(&all), all);
        }
    }

    #[test]
    fn trailers_with_a_pseudo_header_are_malformed_to_every_reader() {
        let blocks: [&[u8]; 5] = [
            b"\x82",
            b"\x00\x05:path\x01/",
            b"\x00\x01a\x01b\x44\x02/y",
            // The path of the request, which only the table has.
            b"\xbf",
            b"\x0f\x30\x01/",
        ];
        for block in blocks {
            let after = frame(1, END, 3, b"\x82\x87\xbf\xbe");
            let all = [begun(), frame(1, END, 1, block), after.clone()].concat();
            let spoilt = frame(1, END, 1, &[block, MALFORMED].concat());
            let spoilt = [begun(), spoilt, after];
            assert_eq!(read(&all), spoilt.concat(), "{}", block.escape_ascii());
        }
        let padded = frame(1, END | PADDED | PRIORITY, 1, b"\x01\0\0\0\0\0\x82\0");
        let parts = [frame(1, 1, 1, b""), frame(9, END_HEADERS, 1, b"\x82")].concat();
        for trailers in [padded, parts] {
            let spoilt = [begun(), frame(1, END, 1, &[b"\x82", MALFORMED].concat())];
            assert_eq!(read(&[begun(), trailers].concat()), spoilt.concat());
        }
    }

    #[test]
    fn frames_after_the_end_of_a_stream_are_a_fault_that_h2_detects() {
        let pseudo = frame(1, END, 1, b"\x82");
        let reset = frame(RST_STREAM, 0, 1, b"\0\0\0\x08");
        let ended = frame(DATA, END_STREAM, 1, b"");
        let trailers = frame(1, END, 1, b"\x00\x01a\x01b");
        for end in [reset, ended, trailers] {
            let all = [begun(), end, pseudo.clone()].concat();
            assert_eq!(read(&all), all);
        }
        // A skipped stream, which counts as closed (5.1.1).
        let passed_over = [begun(), frame(1, END, 5, REQUEST), frame(1, END, 3, REQUEST)].concat();
        assert_eq!(read(&passed_over), passed_over);
    }

    #[test]
    fn streams_that_are_left_open_are_forgotten_at_some_time() {
        let mut frames = Frames::new();
        assert_eq!(frames.inspect(&begun()), Ok(None));
        for n in 1..5000 {
            assert_eq!(frames.inspect(&frame(1, END_HEADERS, 1 + 2 * n, REQUEST)), Ok(None));
        }
        assert_eq!(frames.open.len(), OPEN_MAX);
    }

    #[test]
    fn what_cannot_be_read_is_left_to_h2() {
        let mut frames = Frames::new();
        let bytes = [begun(), frame(1, END, 3, b"\xff\xff\xff\xff\xff"), frame(1, END, 1, b"\x82")];
        assert_eq!(frames.inspect(&bytes.concat()), Ok(None));
        assert!(frames.table.is_none());
    }

    #[test]
    fn trailers_that_do_not_end_are_not_buffered_forever() {
        let mut frames = Frames::new();
        assert_eq!(frames.inspect(&begun()), Ok(None));
        let mut error = None;
        for n in 0..40 {
            let kind = if n == 0 { HEADERS } else { CONTINUATION };
            error = error.or(frames.inspect(&frame(kind, 0, 1, &[b'x'; 1000])).err());
        }
        assert_eq!(error, Some("the trailers are too long"));
    }
}
