//! What the process before left behind: where its chain ended, and actions of which nobody knows what
//! came of them.

use std::{collections::BTreeMap, io, path::Path};

use filters::audit::chain::{Link, Sealed};

use super::read::{self, Lines, segments};

/// What was found in a folder.
pub(super) struct Found {
    /// The digest of the last line.
    pub(super) link: Link,
    /// The ids of actions without an outcome.
    pub(super) unknown: Vec<String>,
    /// Bytes of a last line that was not written whole.
    pub(super) torn_bytes: u64,
}

/// Intents are looked for in so many segments: an action does not last longer.
const LOOKED_AT: usize = 2;
/// More ids than this are not told one by one.
const UNKNOWN_MAX: usize = 10_000;

#[derive(serde::Deserialize)]
struct Line {
    kind: Option<String>,
    id: Option<String>,
    #[serde(default)]
    intended: bool,
    #[serde(default)]
    unknown: Vec<String>,
}

impl Found {
    /// Looks into a folder.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn look(folder: &Path) -> io::Result<Self> {
        let all = segments(folder)?;
        let (mut begun, mut link, mut torn_bytes) = (BTreeMap::new(), Link::START, 0);
        for path in &all[all.len().saturating_sub(LOOKED_AT)..] {
            torn_bytes = 0;
            let mut lines = Lines::open(path)?;
            while let Some(line) = lines.next()? {
                let whole = match line {
                    read::Line::Whole(whole) => whole,
                    read::Line::TooLong => continue,
                    read::Line::Torn(part) => {
                        torn_bytes = part.len() as u64;
                        break;
                    }
                };
                if let Some(sealed) = Sealed::of(whole) {
                    link = sealed.link;
                }
                let Ok(read) = serde_json::from_slice::<Line>(whole) else { continue };
                match (read.kind.as_deref(), read.id) {
                    // Clients choose ids, and may choose one twice.
                    (Some("intent"), Some(id)) if begun.len() < UNKNOWN_MAX => {
                        *begun.entry(id).or_insert(0_usize) += 1;
                    }
                    (None, Some(id)) if read.intended => end(&mut begun, &id),
                    (Some("recovery"), _) => read.unknown.iter().for_each(|id| end(&mut begun, id)),
                    _ => {}
                }
            }
        }
        let unknown = begun.into_iter().flat_map(|(id, times)| std::iter::repeat_n(id, times));
        Ok(Self { link, unknown: unknown.collect(), torn_bytes })
    }
}

fn end(begun: &mut BTreeMap<String, usize>, id: &str) {
    match begun.get_mut(id) {
        Some(1) => _ = begun.remove(id),
        Some(times) => *times -= 1,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_and_not_ended_is_found_and_so_is_where_the_chain_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (mut out, mut link) = (Vec::new(), Link::START);
        for line in [
            r#"{"kind":"segment","version":1}"#,
            r#"{"kind":"intent","id":"a"}"#,
            r#"{"kind":"intent","id":"b"}"#,
            r#"{"id":"a","code":"ok","intended":true}"#,
            r#"{"id":"b","code":"ok"}"#,
            r#"{"kind":"intent","id":"c"}"#,
            r#"{"kind":"recovery","unknown":["c"]}"#,
        ] {
            link = link.seal(format!("{line}\n").as_bytes(), &mut out);
        }
        out.extend_from_slice(b"{\"kind\":\"int");
        std::fs::write(folder.path().join("audit-1-1.jsonl"), &out).unwrap();
        let found = Found::look(folder.path()).unwrap();
        assert_eq!((found.unknown, found.torn_bytes), (vec!["b".to_owned()], 12));
        assert_eq!(found.link, link);
        let empty = Found::look(tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!((empty.link, empty.unknown.len()), (Link::START, 0));
    }
}
