//! The files that loading a config depends on, with their contents' hashes: those it read, those it would
//! have read, and those that the config names.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use config::{Disk, Files, Loaded, Pattern, Problems};
use ring::digest::{SHA256, digest};

use crate::lifecycle::reload;

/// The state of those files. Two are equal if no file has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileStates(HashMap<Watched, Option<Vec<u8>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Watched {
    File(PathBuf),
    /// The files that an `include` matches.
    Glob(Pattern),
}

impl FileStates {
    /// Loads a config file with the environment of this process.
    pub fn load(path: &Path) -> (Self, Result<Loaded, Problems>) {
        let noting = Recording::default();
        let loaded = reload::load_from(path, &noting);
        let mut seen = noting.0.into_inner();
        // Before they are used: what changes from now on is seen as a change.
        if let Ok(loaded) = &loaded {
            for path in named(&loaded.config) {
                seen.0.insert(Watched::File(path.clone()), hash(&Disk.read(&path)));
            }
        }
        (seen, loaded)
    }

    /// The same files, as they are now.
    #[must_use]
    pub fn again(&self) -> Self {
        let looked = self.0.keys().map(|looked| {
            let hash = match looked {
                Watched::File(path) => hash(&Disk.read(path)),
                Watched::Glob(pattern) => hash(&names(&Disk.list(pattern))),
            };
            (looked.clone(), hash)
        });
        Self(looked.collect())
    }
}

/// The local files; records which ones are used.
#[derive(Default)]
struct Recording(RefCell<FileStates>);

impl Files for Recording {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = Disk.read(path);
        self.0.borrow_mut().0.insert(Watched::File(path.to_owned()), hash(&read));
        read
    }

    fn list(&self, pattern: &Pattern) -> io::Result<Vec<String>> {
        let found = Disk.list(pattern);
        self.0.borrow_mut().0.insert(Watched::Glob(pattern.clone()), hash(&names(&found)));
        found
    }
}

fn names(found: &io::Result<Vec<String>>) -> io::Result<Vec<u8>> {
    match found {
        Ok(names) => Ok(names.join("/").into_bytes()),
        Err(error) => Err(error.kind().into()),
    }
}

/// `None` if it does not exist or cannot be read.
fn hash(read: &io::Result<Vec<u8>>) -> Option<Vec<u8>> {
    read.as_ref().ok().map(|bytes| digest(&SHA256, bytes).as_ref().to_vec())
}

/// Certificates, keys and secrets that a config names.
fn named(config: &config::Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for tls in config.listeners.values().filter_map(|listener| listener.tls.as_ref()) {
        files.extend(tls.certificates.iter().flat_map(|p| [p.cert.clone(), p.key.clone()]));
        files.extend(tls.client_ca.iter().map(|ca| ca.value.clone()));
    }
    for issuer in config.identity.issuers.values() {
        let keys = &issuer.keys;
        let named = [&keys.file, &keys.secret_file, &keys.ca];
        files.extend(named.into_iter().flatten().map(|file| file.value.clone()));
    }
    let tokens = config.identity.tokens.values();
    files.extend(tokens.filter_map(|token| Some(token.file()?.value.clone())));
    files.extend(config.egress.callers.values().map(|caller| caller.password_file.value.clone()));
    if let Some(parent) = &config.egress.parent {
        let named = [&parent.password_file, &parent.ca];
        files.extend(named.into_iter().flatten().map(|file| file.value.clone()));
    }
    for credential in config.credentials.values() {
        let named = [credential.secret_file(), credential.ca.as_ref()];
        files.extend(named.into_iter().flatten().map(|file| file.value.clone()));
    }
    for upstream in config.upstreams.values() {
        let tls = &upstream.tls;
        let named = [&tls.ca, &tls.client_cert, &tls.client_key];
        files.extend(named.into_iter().flatten().map(|file| file.value.clone()));
        files.extend(upstream.idempotency.iter().map(|own| own.secret_file.value.clone()));
    }
    files
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_one_to_any_file_the_last_attempt_read_or_would_have_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let main = folder.path().join("s.yaml");
        let load = || {
            let (seen, loaded) = FileStates::load(&main);
            assert_eq!(seen.again(), seen);
            (seen, loaded.is_ok())
        };
        let head =
            "version: stagedoor/v1\nlisteners: {edge: {kind: reverse, address: '127.0.0.1:1'}}\n";
        write("s.yaml", &format!("{head}include: ['w-*.yaml', more.yaml]\n"));

        let (seen, went_well) = load();
        assert!(!went_well, "more.yaml is not there");
        write("more.yaml", "upstreams: []\n");
        assert_ne!(seen.again(), seen);

        let (seen, went_well) = load();
        assert!(!went_well, "more.yaml is wrong");
        write("more.yaml", "headers: {assertion_key: key}\n");
        assert_ne!(seen.again(), seen);

        let (seen, went_well) = load();
        assert!(went_well);
        write("other.yaml", "");
        assert_eq!(seen.again(), seen, "nobody asked for this one");
        write("w-1.yaml", "");
        assert_ne!(seen.again(), seen);
    }
}
