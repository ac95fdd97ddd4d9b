//! The drill's own Redis, a stand-in for the shared store.

use std::{
    env,
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{Instant, sleep, timeout},
};

use super::names;
use proxy::net::dial::Dial;

/// A server that ends with this value.
pub(super) struct Redis {
    process: Child,
    pub(super) address: SocketAddr,
    program: PathBuf,
    folder: PathBuf,
    /// Bound, and never listening: so that no other process gets the port while the server is down.
    _port: TcpSocket,
}

const PROGRAM: &str = "redis-server";
const START: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// Where the server's program is, if it is on the PATH.
pub(super) fn program() -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        let found = fs::metadata(file);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(is_program)
}

impl Redis {
    /// Starts an empty one, in its own folder within `folder`.
    pub(super) async fn start(folder: &Path) -> Result<Self, String> {
        let told = |error: io::Error| format!("cannot start {PROGRAM}: {error}");
        let program = program().ok_or_else(|| told(io::ErrorKind::NotFound.into()))?;
        let port = TcpSocket::new_v4().map_err(told)?;
        port.set_reuseaddr(true).map_err(told)?;
        port.bind(SocketAddr::from((names::HOME, 0))).map_err(told)?;
        let address = port.local_addr().map_err(told)?;
        let folder = folder.join("redis");
        fs::create_dir_all(&folder).map_err(told)?;
        let process = spawn(&program, &folder, address).map_err(told)?;
        let mut redis = Self { process, address, program, folder, _port: port };
        redis.ready().await?;
        Ok(redis)
    }

    /// Kills it, with all its data.
    pub(super) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again at the same address, empty.
    pub(super) async fn start_again(&mut self) -> Result<(), String> {
        let told = |error: io::Error| format!("cannot start {PROGRAM} again: {error}");
        self.kill();
        self.process = spawn(&self.program, &self.folder, self.address).map_err(told)?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while !answers(self.address).await {
            let is_running = matches!(self.process.try_wait(), Ok(None));
            if !is_running || began.elapsed() > START {
                let said = fs::read_to_string(log(&self.folder)).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                return Err(format!("{PROGRAM} did not start: {last}"));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// On loopback only, with nothing on disk.
fn spawn(program: &Path, folder: &Path, address: SocketAddr) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("--bind").arg(address.ip().to_string());
    command.arg("--port").arg(address.port().to_string());
    command.arg("--dir").arg(folder);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    // It does not start with a locale that this machine lacks.
    command.env("LC_ALL", "C");
    let said = File::options().create(true).append(true).open(log(folder))?;
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    // What ends the drill ends it by us, and not by the terminal.
    command.process_group(0).spawn()
}

async fn answers(address: SocketAddr) -> bool {
    let asked = async {
        let (mut stream, _) = Dial::default().connect(&[address], START).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(&answer == b"+PONG")
    };
    matches!(timeout(START, asked).await, Ok(Ok(true)))
}
