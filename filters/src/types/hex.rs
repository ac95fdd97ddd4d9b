//! Bytes as hex digits in lower case.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two digits for each byte.
pub fn write(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// So many bytes. `None` if there are more or fewer, or anything but lower case digits.
pub fn read<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        assert_eq!(super::write(&[0, 0x1f, 0xa0, 0xff]), "001fa0ff");
        assert_eq!(super::read(b"001fa0ff"), Some([0, 0x1f, 0xa0, 0xff]));
        for wrong in ["001FA0FF", "001fa0f", "001fa0ff0", "001fa0fg", ""] {
            assert_eq!(super::read::<4>(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
