//! Processes, as far as /proc shows them.

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use procfs::process::{FDTarget, Process, all_processes};

/// The binary that runs this.
pub(super) struct Ours {
    path: Option<PathBuf>,
    file: Option<(u64, u64)>,
}

impl Ours {
    pub(super) fn new() -> Self {
        let file = std::fs::metadata("/proc/self/exe").ok().map(|at| (at.dev(), at.ino()));
        Self { path: std::env::current_exe().ok(), file }
    }

    /// Whether a process runs the same file; in another container it is another file at the same path.
    fn runs(&self, process: &Process) -> bool {
        let file = std::fs::metadata(format!("/proc/{}/exe", process.pid()));
        let file = file.ok().map(|at| (at.dev(), at.ino()));
        let path = process.exe().ok();
        (file.is_some() && file == self.file) || (path.is_some() && path == self.path)
    }

    pub(super) fn all(&self) -> HashSet<i32> {
        everybody().filter(|process| self.runs(process)).map(|process| process.pid()).collect()
    }
}

/// All visible processes; those that end meanwhile are left out.
pub(super) fn everybody() -> impl Iterator<Item = Process> {
    all_processes().into_iter().flatten().flatten()
}

/// The sockets of a process, by their inodes. Empty if they may not be read.
pub(super) fn sockets(pid: i32) -> HashSet<u64> {
    let open = Process::new(pid).and_then(|process| process.fd());
    let targets = open.into_iter().flatten().flatten().map(|fd| fd.target);
    targets
        .filter_map(|target| match target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect()
}

/// The owners of these sockets, as far as visible.
pub(super) fn owners(mut inodes: HashSet<u64>) -> HashMap<u64, i32> {
    let mut found = HashMap::new();
    for process in everybody() {
        if inodes.is_empty() {
            break;
        }
        for inode in sockets(process.pid()) {
            if inodes.remove(&inode) {
                found.insert(inode, process.pid());
            }
        }
    }
    found
}

/// What a process runs: the program, and the script of Node. Arguments may be secrets, and are left out.
pub(super) fn command(process: &Process) -> String {
    let words = process.cmdline().unwrap_or_default();
    let Some(first) = words.first().filter(|word| !word.is_empty()) else {
        return process.stat().map(|stat| stat.comm).unwrap_or_else(|_| "?".to_owned());
    };
    let program = plain(first.rsplit('/').next().unwrap_or(first));
    match is_node(process).then(|| script(&words)).flatten() {
        Some(script) => format!("{program} {script}"),
        None => program,
    }
}

pub(super) fn is_node(process: &Process) -> bool {
    let program = process.exe().ok().or_else(|| process.cmdline().ok()?.first().map(PathBuf::from));
    let name = program.as_ref().and_then(|path| path.file_name()?.to_str());
    matches!(name, Some("node" | "nodejs"))
}

/// The script that Node was started with: the first argument that belongs to no option.
fn script(words: &[String]) -> Option<String> {
    const WITH_A_VALUE: [&str; 7] =
        ["-r", "--require", "--import", "-C", "--conditions", "--loader", "--env-file"];
    const WITHOUT_A_SCRIPT: [&str; 4] = ["-e", "--eval", "-p", "--print"];
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if WITHOUT_A_SCRIPT.contains(&word.as_str()) {
            return None;
        }
        if WITH_A_VALUE.contains(&word.as_str()) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(plain(word));
        }
    }
    None
}

/// Text that a terminal can be given.
fn plain(text: &str) -> String {
    filters::Label::lossy(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_printed_without_arguments_that_could_be_secrets() {
        let check = |words: &str, expected: Option<&str>| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(script(&words).as_deref(), expected, "{words:?}");
        };
        check("node packages/backend --config=secret", Some("packages/backend"));
        check("node -r ./egress-bootstrap.js --inspect app.js secret", Some("app.js"));
        check("node -e secret", None);
        check("node --print secret", None);
        check("node", None);
    }

    #[test]
    fn a_socket_is_known_to_be_of_this_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let table = procfs::net::tcp().unwrap();
        let entry = table.iter().find(|entry| entry.local_address.port() == port).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(owners([entry.inode].into())[&entry.inode], own);
        assert!(Ours::new().all().contains(&own));
    }
}
