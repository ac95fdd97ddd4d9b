//! The copy of the proxy: the same program, as a child process.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use proxy::net::dial::Dial;

/// A process that ends with this value.
pub(super) struct Child {
    process: std::process::Child,
    admin: SocketAddr,
    client: reqwest::Client,
    log: PathBuf,
}

/// Where limits are counted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Counts {
    /// In the store.
    Shared,
    /// By the copy alone, because its store is unreachable.
    Alone,
}

/// By this shell a file that is too large becomes an error and does not end the process.
const SHELL: &str = "/bin/sh";
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Whether a copy's records folder can be made to look full.
pub(super) fn can_be_full() -> bool {
    Path::new(SHELL).exists()
}

impl Child {
    /// Starts it and waits until it responds at all of its addresses.
    pub(super) async fn start(
        config: &Path,
        admin: SocketAddr,
        addresses: &[SocketAddr],
    ) -> Result<Self, String> {
        let told = |error: io::Error| format!("cannot start the copy: {error}");
        let program = std::env::current_exe().map_err(told)?;
        let mut command = if can_be_full() {
            let mut shell = Command::new(SHELL);
            shell.arg("-c").arg("trap '' XFSZ; exec \"$0\" \"$@\"").arg(program);
            shell
        } else {
            Command::new(program)
        };
        command.arg("run").arg("-c").arg(config).env_remove("STAGEDOOR_CONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // What ends the drill ends it by us, and not by the terminal.
        command.process_group(0);
        let mut process = command.spawn().map_err(told)?;
        let log = config.with_file_name("log");
        let mut file = File::create(&log).map_err(told)?;
        if let Some(mut said) = process.stderr.take() {
            // Not its own file: that could not be written while its folder looks full.
            std::thread::spawn(move || io::copy(&mut said, &mut file));
        }
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
        let client = client.build().map_err(|error| error.to_string())?;
        let mut child = Self { process, admin, client, log };
        let began = Instant::now();
        while !child.is_ready(addresses).await {
            if !child.is_running() || began.elapsed() > START {
                return Err(format!("the copy did not start:\n{}", child.said()));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(child)
    }

    async fn is_ready(&self, addresses: &[SocketAddr]) -> bool {
        let dial = Dial::default();
        for address in addresses {
            if dial.connect(&[*address], START).await.is_err() {
                return false;
            }
        }
        let asked = self.client.get(format!("http://{}/readyz", self.admin)).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    }

    /// Whether it is still there.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// The end of its log.
    pub(super) fn said(&self) -> String {
        let all = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Reloads it; returns whether the new config is in force.
    pub(super) async fn reload(&self) -> Result<bool, String> {
        let asked = self.client.post(format!("http://{}/reload", self.admin)).send().await;
        asked.map(|answer| answer.status().is_success()).map_err(|error| error.to_string())
    }

    /// Waits up to `patience` until limits are counted in this way; returns how many tokens its store has
    /// leased to it.
    pub(super) async fn counts(
        &self,
        counts: Counts,
        patience: Duration,
    ) -> Result<Option<u64>, String> {
        let began = Instant::now();
        while began.elapsed() < patience {
            let asked = self.client.get(format!("http://{}/state", self.admin)).send().await;
            let told = async { asked?.json::<Value>().await }.await;
            let store =
                &told.map_err(|error| format!("cannot read the copy's state: {error}"))?["store"];
            if store["there"] == (counts == Counts::Shared) {
                return Ok(Some(store["tokens_leased"].as_u64().unwrap_or(0)));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(None)
    }

    /// Prevents its files from growing: like a full disk, with another error number (EFBIG for ENOSPC).
    pub(super) fn fill_disk(&self) -> io::Result<()> {
        self.limit(Some(0))
    }

    /// Its files may grow again.
    pub(super) fn empty_disk(&self) -> io::Result<()> {
        self.limit(rustix::process::getrlimit(Resource::Fsize).current)
    }

    fn limit(&self, current: Option<u64>) -> io::Result<()> {
        let maximum = rustix::process::getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit { current, maximum };
        prlimit(self.pid(), Resource::Fsize, limit)?;
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.process.id()).ok()?)
    }

    /// Stops it as an operator would, so that it writes its remaining records.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("the copy ended with {status}")),
                Ok(None) => sleep(POLL_INTERVAL).await,
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("the copy did not stop when asked to".to_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
