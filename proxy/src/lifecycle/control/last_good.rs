//! The last good response on disk, written atomically, for a start while the source is unreachable.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use config::ControlDocument;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::status::{Confirmed, StoredResponse};
use crate::clock;

const VERSION: &str = "stagedoor/kept-v1";
const BYTES_MAX: u64 = 64 << 20;

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDocument {
    version: String,
    url: String,
    /// `shape` in files of the version before.
    #[serde(alias = "shape")]
    format: String,
    /// Those it was read for.
    plugins: Vec<String>,
    etag: Option<String>,
    /// When it was confirmed, in seconds since 1970.
    confirmed: u64,
    /// SHA-256 of the response, in hex.
    digest: String,
    answer: Box<RawValue>,
}

/// The stored response of this source; `None` if there is none.
pub(super) fn read(
    file: &Path,
    control: &config::Control,
) -> Result<Option<StoredResponse>, String> {
    let shown = file.display();
    let wrong = |cause: &str| {
        let told = format!("control: the response kept in `{shown}` is not used: {cause}");
        tracing::warn!("{told}");
        told
    };
    let mut bytes = Vec::new();
    match File::open(file).and_then(|open| open.take(BYTES_MAX).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error.to_string())),
    }
    let kept: SavedDocument = serde_json::from_slice(&bytes).map_err(|_| wrong("it is damaged"))?;
    if kept.version != VERSION {
        return Err(wrong("another version wrote it"));
    }
    if (kept.url, &*kept.format) != (control.url.to_string(), control.format.name()) {
        return Err(wrong("it is from another source"));
    }
    let answer = ControlDocument::read_kept(control, kept.answer.get().as_bytes());
    let answer = answer.map_err(|_| wrong("it is damaged"))?;
    if hash(&answer.text()) != kept.digest {
        return Err(wrong("it is damaged"));
    }
    let at = clock::now();
    let before = at.unix.saturating_sub(Duration::from_secs(kept.confirmed));
    let confirmed = Confirmed { at, before };
    // A response for another list of plugins must not be revalidated by its `ETag`.
    let etag = kept.etag.filter(|_| kept.plugins == plugins(control));
    Ok(Some(StoredResponse { of: control.clone(), answer, etag, confirmed }))
}

/// Stores a response.
pub(super) fn write(file: &Path, held: &StoredResponse) -> Result<(), String> {
    let text = held.answer.text();
    let digest = hash(&text);
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    let kept = SavedDocument {
        version: VERSION.to_owned(),
        url: held.of.url.to_string(),
        format: held.of.format.name().to_owned(),
        plugins: plugins(&held.of),
        etag: held.etag.clone(),
        confirmed: held.confirmed.unix_seconds(),
        digest,
        answer: RawValue::from_string(text).expect("an answer is JSON"),
    };
    let bytes = serde_json::to_vec(&kept).expect("what is kept is JSON");
    replace(file, &bytes).map_err(|error| format!("cannot write `{}`: {error}", file.display()))
}

/// A concurrent reader, or one after a crash, finds the old or the new content.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Readable only by us (0600).
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    File::open(folder)?.sync_all()
}

fn plugins(control: &config::Control) -> Vec<String> {
    control.plugins.iter().map(|name| name.value.to_string()).collect()
}

fn hash(bytes: &[u8]) -> String {
    filters::hex::write(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn control(more: &str) -> config::Control {
        let text = format!(
            "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
             control: {{url: 'https://orbit.example/c'{more}}}\n"
        );
        let loaded = config::parse("t", &text).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.config.control.unwrap().value
    }

    #[test]
    fn a_stored_document_is_found_again_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kept.json");
        let of = control("");
        assert!(read(&file, &of).unwrap().is_none());

        let answer = r#"{"version": "stagedoor/control-v1", "plugins": {"argocd": {"enabled_percent": 10}}}"#;
        let answer = ControlDocument::read(&of, answer.as_bytes()).unwrap();
        let confirmed = Confirmed { at: clock::now(), before: Duration::from_secs(100) };
        let held =
            StoredResponse { of: of.clone(), answer, etag: Some("\"a\"".to_owned()), confirmed };
        write(&file, &held).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let found = read(&file, &of).unwrap().unwrap();
        assert_eq!((&found.answer, &found.etag), (&held.answer, &held.etag));
        let age = found.confirmed.age(clock::now()).as_secs();
        assert!((100..110).contains(&age), "{age}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

        let mut other = of.clone();
        other.plugins.push(config::Located::nowhere(config::Name::new("argocd").unwrap()));
        assert_eq!(read(&file, &other).unwrap().unwrap().etag, None);

        let refused = |of: &config::Control| read(&file, of).err().unwrap();
        assert!(refused(&control(", format: orbit, plugins: [a]")).contains("another source"));
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, whole.replace("\"format\"", "\"shape\"")).unwrap();
        assert_eq!(read(&file, &of).unwrap().unwrap().answer, held.answer, "by an older version");
        let check = |text: &str, cause: &str| {
            fs::write(&file, text).unwrap();
            let told = refused(&of);
            assert!(told.contains(cause), "{text}: {told}");
        };
        check(&whole.replace("\"enabled_percent\":10", "\"enabled_percent\":99"), "damaged");
        check(&whole[..whole.len() / 2], "damaged");
        check("", "damaged");
        check("{}", "damaged");
        check(&whole.replace("kept-v1", "kept-v2"), "another version");
        check(&whole.replace("orbit.example", "other.example"), "another source");
    }
}
