//! Finds pseudo-headers in HTTP/2 header blocks (RFC 7541), and parses no more than that takes.

use std::collections::VecDeque;

/// The dynamic table of one connection, without the text of its entries.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    size: usize,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    is_pseudo: bool,
    length: usize,
}

/// We announce no other (RFC 9113 6.5.2).
const SIZE_MAX: usize = 4096;
/// The name lengths of the static table (RFC 7541 A); the first fourteen are pseudo-headers.
const STATIC: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];
const PSEUDO: usize = 14;

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, size_max: SIZE_MAX }
    }
}

impl Table {
    /// Reads a whole header block: whether it has a pseudo-header. `None` if it cannot be parsed, and so
    /// nothing after it can.
    pub(super) fn read(&mut self, mut block: &[u8]) -> Option<bool> {
        let mut found = false;
        while let Some(first) = block.first() {
            match first {
                0x80.. => {
                    let index = number(&mut block, 7)?;
                    found |= self.name(index)?.is_pseudo;
                }
                0x40..=0x7f => {
                    let name = self.literal_name(&mut block, 6)?;
                    let value = text(&mut block)?;
                    found |= name.is_pseudo;
                    self.insert(Entry { name, size: name.length + value.length() + 32 });
                }
                0x20..=0x3f => {
                    self.size_max = number(&mut block, 5)?.min(SIZE_MAX);
                    self.evict(0);
                }
                _ => {
                    found |= self.literal_name(&mut block, 4)?.is_pseudo;
                    text(&mut block)?;
                }
            }
        }
        Some(found)
    }

    fn literal_name(&self, block: &mut &[u8], bits: u32) -> Option<Name> {
        match number(block, bits)? {
            0 => {
                let name = text(block)?;
                Some(Name { is_pseudo: name.begins_with_colon(), length: name.length() })
            }
            index => self.name(index),
        }
    }

    fn name(&self, index: usize) -> Option<Name> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some(length) => Some(Name { is_pseudo: index < PSEUDO, length: usize::from(*length) }),
            None => self.entries.get(index - STATIC.len()).map(|entry| entry.name),
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.evict(entry.size);
        if entry.size <= self.size_max {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    /// Makes room.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.size_max {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
        }
    }
}

/// An integer whose first byte has `bits` of it (5.1).
fn number(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(*first) & most;
    if number == most {
        // More is no length of anything here.
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(number);
            }
        }
        return None;
    }
    *block = rest;
    Some(number)
}

/// A string literal (5.2).
struct Text<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

fn text<'a>(block: &mut &'a [u8]) -> Option<Text<'a>> {
    let is_huffman = block.first()? & 0x80 != 0;
    let length = number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(Text { bytes, is_huffman })
}

impl Text<'_> {
    fn begins_with_colon(&self) -> bool {
        let first = self.bytes.first();
        // In Huffman's code a colon is 1011100.
        first.is_some_and(|b| if self.is_huffman { b >> 1 == 0b101_1100 } else { *b == b':' })
    }

    /// Decoded.
    fn length(&self) -> usize {
        if self.is_huffman { huffman_length(self.bytes) } else { self.bytes.len() }
    }
}

/// Where the codes of a length end, of those before which all are shorter (RFC 7541 B): Huffman's code
/// there is in order.
const ENDS: [(u32, u64); 21] = [
    (5, 0xa),
    (6, 0x2e),
    (7, 0x7c),
    (8, 0xfe),
    (10, 0x3fd),
    (11, 0x7fd),
    (12, 0xffc),
    (13, 0x1ffe),
    (14, 0x3ffe),
    (15, 0x7fff),
    (19, 0x7fff3),
    (20, 0xfffee),
    (21, 0x1f_ffe9),
    (22, 0x3f_ffec),
    (23, 0x7f_fff5),
    (24, 0xff_fff6),
    (25, 0x1ff_fff0),
    (26, 0x3ff_ffef),
    (27, 0x7ff_fff1),
    (28, 0xfff_ffff),
    (30, 0x4000_0000),
];

fn huffman_length(bytes: &[u8]) -> usize {
    let mut count = 0;
    // The remaining bits, from the highest on.
    let (mut ahead, mut bits) = (0_u64, 0);
    let mut bytes = bytes.iter();
    loop {
        while bits <= 56 {
            let Some(byte) = bytes.next() else { break };
            ahead |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        // Past the end there are ones, as in the padding.
        let filled = if bits == 64 { ahead } else { ahead | u64::MAX >> bits };
        let code = ENDS.iter().find(|(length, end)| filled >> (64 - length) < *end);
        match code {
            Some((length, _)) if *length <= bits => {
                ahead <<= length;
                bits -= length;
                count += 1;
            }
            _ => return count,
        }
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.replace(' ', "").as_bytes()).unwrap()
    }

    #[test]
    fn a_text_in_huffmans_code_has_the_length_of_its_characters() {
        for (hex, text) in [
            ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", "www.example.com"),
            ("a8eb 1064 9cbf", "no-cache"),
            ("25a8 49e9 5ba9 7d7f", "custom-key"),
            ("25a8 49e9 5bb8 e8b4 bf", "custom-value"),
            ("6402", "302"),
            ("aec3 771a 4b", "private"),
            (
                "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            ("9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3", "https://www.example.com"),
            (
                "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 \
                 03ed 4ee5 b106 3d50 07",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
            ("", ""),
        ] {
            assert_eq!(huffman_length(&bytes(hex)), text.len(), "{text}");
        }
    }

    /// RFC 7541 C.3 and C.4: the same three requests, plain and in Huffman's code.
    #[test]
    fn a_table_has_the_size_of_the_standard() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut table = Table::default();
            for (block, size) in blocks.iter().zip([57, 110, 164]) {
                assert_eq!(table.read(&bytes(block)), Some(true));
                assert_eq!(table.size, size);
            }
            let pseudo: Vec<bool> = table.entries.iter().map(|e| e.name.is_pseudo).collect();
            assert_eq!(pseudo, [false, false, true]);
            // The custom header; then the authority.
            assert_eq!(table.read(&[0xbe]), Some(false));
            assert_eq!(table.read(&[0xbe, 0xc0]), Some(true));
            assert_eq!(table.read(&[0xc1]), None);
        }
    }

    #[test]
    fn a_pseudo_header_is_one_in_every_representation() {
        let check = |block: &[u8], expected: Option<bool>| {
            assert_eq!(Table::default().read(block), expected, "{}", block.escape_ascii());
        };
        check(b"", Some(false));
        check(b"\x82", Some(true));
        check(b"\x8e", Some(true));
        check(b"\x8f", Some(false));
        check(b"\x00\x05:path\x01/", Some(true));
        check(b"\x10\x05:path\x01/", Some(true));
        check(b"\x40\x05:path\x01/", Some(true));
        check(b"\x04\x01/", Some(true));
        check(b"\x44\x01/", Some(true));
        check(b"\x00\x84\xb9\x58\xd3\x3f\x01/", Some(true));
        check(b"\x00\x01x\x05:path", Some(false));
        check(b"\x0f\x2c\x01/", Some(false));
        check(b"\x80", None);
        check(b"\x00\x05:p", None);
        check(b"\xff\xff\xff\xff\xff\xff", None);
        check(b"\xbe", None);
    }

    #[test]
    fn what_has_no_room_is_forgotten() {
        let mut table = Table::default();
        assert_eq!(table.read(b"\x40\x01a\x01b\x40\x01:\x01b"), Some(true));
        assert_eq!(table.read(b"\xbf"), Some(false));
        // Room for one.
        assert_eq!(table.read(b"\x3f\x03"), Some(false));
        assert_eq!((table.entries.len(), table.size), (1, 34));
        assert_eq!(table.read(b"\xbe"), Some(true));
        assert_eq!(table.read(b"\x20"), Some(false));
        assert_eq!((table.entries.len(), table.size), (0, 0));
        // It must not be larger than we announced.
        assert_eq!(table.read(b"\x3f\xff\xff\x3f"), Some(false));
        assert_eq!(table.size_max, SIZE_MAX);
    }
}
