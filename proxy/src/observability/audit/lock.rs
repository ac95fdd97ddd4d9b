//! One process writes to a folder.

use std::{
    fs::{File, read_to_string},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// The lock, released on drop.
pub(super) struct Lock(File);

const NAME: &str = "audit.lock";

impl Lock {
    /// Takes the lock of a folder. `None` if another process has it.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(super) fn take(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(NAME);
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).mode(super::segment::MODE);
        let mut file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Only for the message of a refusal: on a full disk the lock works without it.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Some(Self(file)))
    }

    /// Whether it is still its folder's, and not one of a removed folder.
    pub(super) fn is_there(&self) -> bool {
        super::segment::is_there(&self.0)
    }

    /// The error if another process has it.
    pub(super) fn refusal(folder: &Path) -> io::Error {
        let holder = read_to_string(folder.join(NAME)).unwrap_or_default();
        let holder = holder.trim();
        let named = !holder.is_empty() && holder.bytes().all(|b| b.is_ascii_digit());
        let process =
            if named { format!("process {holder}") } else { "another process".to_owned() };
        io::Error::other(format!(
            "{process} writes to it; give each process its own folder, or start with `--upgrade` to take over"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_lock_and_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap().unwrap();
        assert!(Lock::take(folder.path()).unwrap().is_none());
        let told = Lock::refusal(folder.path()).to_string();
        assert!(
            told.starts_with(&format!("process {} writes to it", std::process::id())),
            "{told}"
        );
        std::fs::remove_file(folder.path().join(NAME)).unwrap();
        assert!(!first.is_there());
        drop(first);
        assert!(Lock::take(folder.path()).unwrap().is_some());
    }
}
