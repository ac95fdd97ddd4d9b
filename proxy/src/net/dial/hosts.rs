//! The hosts file, which takes precedence over name servers. The kubelet writes a pod's `hostAliases` there.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The names in a hosts file, read again when it has changed.
pub(super) struct Hosts {
    path: PathBuf,
    last: Mutex<Option<Last>>,
}

struct Last {
    looked: Instant,
    version: Option<Version>,
    names: Arc<Names>,
}

/// Addresses by name, in lower case and without a dot at the end.
type Names = HashMap<String, Vec<IpAddr>>;

/// Inode, length, and when it was written.
type Version = (u64, u64, i64, i64);

/// How often the file is checked for changes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// More is not read.
const BYTES_MAX: u64 = 1 << 20;

impl Default for Hosts {
    fn default() -> Self {
        Self::at("/etc/hosts".into())
    }
}

impl Hosts {
    fn at(path: PathBuf) -> Self {
        Self { path, last: Mutex::default() }
    }

    /// All addresses that it has for a whole name, in its order.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let names = self.names();
        if names.is_empty() {
            return None;
        }
        names.get(&plain(name)).cloned()
    }

    fn names(&self) -> Arc<Names> {
        let mut last = self.last.lock();
        if let Some(last) = &*last
            && last.looked.elapsed() < POLL_INTERVAL
        {
            return Arc::clone(&last.names);
        }
        let looked = Instant::now();
        let version = self.version();
        let names = match last.take() {
            Some(last) if last.version == version => last.names,
            _ => Arc::new(self.read()),
        };
        *last = Some(Last { looked, version, names: Arc::clone(&names) });
        names
    }

    fn version(&self) -> Option<Version> {
        let metadata = std::fs::metadata(&self.path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    }

    /// A missing file counts as empty.
    fn read(&self) -> Names {
        let mut bytes = Vec::new();
        let file = File::open(&self.path);
        let read = file.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        if let Err(error) = read
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.path.display(), %error, "the hosts file cannot be read");
        }
        parsed(&String::from_utf8_lossy(&bytes))
    }
}

/// Lines of an address and its names; `#` begins a comment (hosts(5)).
fn parsed(text: &str) -> Names {
    let mut names = Names::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else { continue };
        for name in words {
            let addresses = names.entry(plain(name)).or_default();
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    names
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_all_the_addresses_of_its_lines() {
        let names = parsed(
            "127.0.0.1\tlocalhost\n# 10.0.0.1 commented.test\n10.9.9.9  GHES.corp.test ghes # ours\nfd00::9 ghes.corp.test.\n10.9.9.9 ghes.corp.test\nfe80::1%eth0 zone.test\nnonsense a\n10.0.0.2\n",
        );
        let check = |name: &str, expected: &[&str]| {
            let found = names.get(name).cloned().unwrap_or_default();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{name}");
        };
        check("ghes.corp.test", &["10.9.9.9", "fd00::9"]);
        check("ghes", &["10.9.9.9"]);
        check("localhost", &["127.0.0.1"]);
        for none in ["commented.test", "zone.test", "a", "corp.test", "#"] {
            check(none, &[]);
        }
    }

    #[test]
    fn a_change_is_seen_and_a_missing_file_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let hosts = Hosts::at(path.clone());
        let found = |name: &str| {
            if let Some(last) = hosts.last.lock().as_mut() {
                last.looked -= POLL_INTERVAL;
            }
            hosts.addresses(name).map(|all| all[0].to_string())
        };
        assert_eq!(found("a.test"), None);
        std::fs::write(&path, "10.0.0.1 a.test\n").unwrap();
        assert_eq!(found("A.test.").as_deref(), Some("10.0.0.1"));
        std::fs::write(&path, "10.0.0.12 a.test\n").unwrap();
        assert_eq!(found("a.test").as_deref(), Some("10.0.0.12"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found("a.test"), None);
    }
}
