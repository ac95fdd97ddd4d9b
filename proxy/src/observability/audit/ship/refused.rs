//! Records that a sink would never accept, set aside so that later ones are delivered.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde_json::value::RawValue;

/// The maximum size of the file: then an operator must look at it.
const BYTES_MAX: u64 = 8 << 20;

/// Sets a record aside. `false` if there is no more room.
pub(super) fn set_aside(file: &Path, line: &[u8], cause: &str) -> io::Result<bool> {
    #[derive(serde::Serialize)]
    struct Refused<'a> {
        cause: &'a str,
        record: &'a RawValue,
    }
    let mut to = File::options().create(true).append(true).mode(0o640).open(file)?;
    if to.metadata()?.len() + line.len() as u64 > BYTES_MAX {
        return Ok(false);
    }
    let mut text = match serde_json::from_slice::<&RawValue>(line) {
        Ok(record) => serde_json::to_vec(&Refused { cause, record })?,
        Err(_) => serde_json::to_vec(&(cause, String::from_utf8_lossy(line)))?,
    };
    text.push(b'\n');
    to.write_all(&text)?;
    to.sync_data()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_set_aside_unchanged_while_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("refused");
        assert!(set_aside(&file, b"{\"b\":1, \"a\":2}", "400").unwrap());
        assert!(set_aside(&file, b"{", "400").unwrap());
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, "{\"cause\":\"400\",\"record\":{\"b\":1, \"a\":2}}\n[\"400\",\"{\"]\n");
        File::options().write(true).open(&file).unwrap().set_len(BYTES_MAX).unwrap();
        assert!(!set_aside(&file, b"{}", "400").unwrap());
    }
}
