//! Bytes as hex digits in lower case.

use data_encoding::HEXLOWER;

/// Two digits for each byte.
pub fn write(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Appends two digits for each byte.
pub fn append(bytes: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    out.resize(begin + 2 * bytes.len(), 0);
    HEXLOWER.encode_mut(bytes, &mut out[begin..]);
}

/// Exactly `BYTES` bytes. `None` for any other length, and for anything but digits in lower case.
pub fn read<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    // The decoder takes no output of another length.
    if text.len() != 2 * BYTES {
        return None;
    }
    HEXLOWER.decode_mut(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        assert_eq!(super::write(&[0, 0x1f, 0xa0, 0xff]), "001fa0ff");
        let mut line = b"x=".to_vec();
        super::append(&[0, 0x1f, 0xa0, 0xff], &mut line);
        assert_eq!(line, b"x=001fa0ff");
        assert_eq!(super::read(b"001fa0ff"), Some([0, 0x1f, 0xa0, 0xff]));
        for wrong in ["001FA0FF", "001fa0f", "001fa0ff0", "001fa0fg", ""] {
            assert_eq!(super::read::<4>(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
