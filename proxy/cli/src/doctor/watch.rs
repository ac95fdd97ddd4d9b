//! Polls the kernel's tables of connections.
//!
//! The owner of a connection must be looked up separately, and it may be closed by then. So Stagedoor's own
//! sockets are read before and after the table, and a connection that was seen only once and has no owner is
//! not reported.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    time::Duration,
};

use procfs::{
    ProcError,
    net::{TcpNetEntry, TcpState},
};

use super::{
    expected::Expected,
    listeners::Listener,
    processes::{self, Ours},
};
use proxy::{clock, net::dial::Dial};

/// The observations.
pub(super) struct Watch<'a> {
    expected: Expected,
    listeners: &'a [Listener],
    dial: &'a Dial,
    ours: Ours,
    seen: HashMap<Key, Connection>,
    /// How often the tables were read.
    pub(super) looks: u32,
    /// Processes of Stagedoor, this one left out.
    pub(super) proxies: HashSet<i32>,
    own_users: HashSet<u32>,
    /// Connections that there was no room for.
    pub(super) beyond: u64,
}

/// The inode alone could be given out again.
type Key = (u64, SocketAddr, SocketAddr);

/// A connection past the proxy.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    pub(super) owner: Option<(i32, String)>,
    pub(super) looks: u32,
    user: u32,
}

const PACE: Duration = Duration::from_millis(100);
/// Connections that are remembered. Bounds the memory.
const CONNECTIONS_MAX: usize = 20_000;

impl<'a> Watch<'a> {
    pub(super) fn new(expected: Expected, listeners: &'a [Listener], dial: &'a Dial) -> Self {
        Self {
            expected,
            listeners,
            dial,
            ours: Ours::new(),
            seen: HashMap::new(),
            looks: 0,
            proxies: HashSet::new(),
            own_users: HashSet::new(),
            beyond: 0,
        }
    }

    /// Polls several times a second, for this time and at least once.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub(super) async fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = clock::elapsed() + time;
        loop {
            self.poll()
                .map_err(|error| format!("cannot read the tables of connections: {error}"))?;
            if clock::elapsed() >= end {
                return Ok(());
            }
            tokio::time::sleep(PACE.min(end.saturating_sub(clock::elapsed()))).await;
        }
    }

    /// Connections that bypass the proxy, and how many were too short to find their owner.
    pub(super) fn found(self) -> (Vec<Connection>, usize) {
        let blind = self.proxies.is_empty();
        let users = self.own_users;
        let certain = |connection: &Connection| {
            blind
                || connection.owner.is_some()
                || connection.looks > 1
                || !users.contains(&connection.user)
        };
        let (found, short): (Vec<_>, Vec<_>) = self.seen.into_values().partition(certain);
        (found, short.len())
    }

    fn poll(&mut self) -> Result<(), ProcError> {
        let mut pids = self.ours.all();
        let sockets = |pids: &HashSet<i32>| -> HashSet<u64> {
            pids.iter().flat_map(|pid| processes::sockets(*pid)).collect()
        };
        let mut own = sockets(&pids);
        let table = table()?;
        let more = self.who_holds_the_listeners(&table, &own);
        pids.extend(more);
        own.extend(sockets(&pids));
        self.looks += 1;
        self.proxies.extend(pids.iter().filter(|pid| pid.unsigned_abs() != std::process::id()));
        let of_own = table.iter().filter(|entry| own.contains(&entry.inode));
        self.own_users.extend(of_own.map(|entry| entry.uid));
        self.seen.retain(|(inode, ..), _| !own.contains(inode));

        let here = self.dial.own_addresses();
        let is_here = |remote: SocketAddr| here.contains(&remote.ip());
        let past = past_the_proxy(&table, &own, &is_here);
        let mut nobodys = HashSet::new();
        for entry in past.into_iter().filter(|entry| !self.expected.has(remote(entry))) {
            let key = key(entry);
            if self.seen.len() >= CONNECTIONS_MAX && !self.seen.contains_key(&key) {
                self.beyond += 1;
                continue;
            }
            let connection = self.seen.entry(key).or_insert_with(|| Connection {
                remote: remote(entry),
                owner: None,
                looks: 0,
                user: entry.uid,
            });
            connection.looks += 1;
            if connection.owner.is_none() {
                nobodys.insert(entry.inode);
            }
        }
        self.find_owners(nobodys, &pids);
        Ok(())
    }

    fn find_owners(&mut self, inodes: HashSet<u64>, pids: &HashSet<i32>) {
        let found = processes::owners(inodes);
        self.seen.retain(|(inode, ..), _| found.get(inode).is_none_or(|pid| !pids.contains(pid)));
        for ((inode, ..), connection) in &mut self.seen {
            let Some(pid) = found.get(inode) else { continue };
            let command = procfs::process::Process::new(*pid).map(|p| processes::command(&p));
            connection.owner = Some((*pid, command.unwrap_or_else(|_| "?".to_owned())));
        }
    }

    /// A process that listens at one of the config's addresses is Stagedoor.
    fn who_holds_the_listeners(&self, table: &[TcpNetEntry], own: &HashSet<u64>) -> HashSet<i32> {
        let is_ours = |entry: &&TcpNetEntry| {
            entry.state == TcpState::Listen
                && !own.contains(&entry.inode)
                && self.listeners.iter().any(|listener| listener.address == entry.local_address)
        };
        let inodes: HashSet<u64> = table.iter().filter(is_ours).map(|entry| entry.inode).collect();
        if inodes.is_empty() {
            return HashSet::new();
        }
        processes::owners(inodes).into_values().collect()
    }
}

/// Outgoing connections that are not Stagedoor's, and do not go to it or within this machine's
/// loopback.
fn past_the_proxy<'t>(
    table: &'t [TcpNetEntry],
    own: &HashSet<u64>,
    is_here: &dyn Fn(SocketAddr) -> bool,
) -> Vec<&'t TcpNetEntry> {
    let listening: Vec<&TcpNetEntry> =
        table.iter().filter(|entry| entry.state == TcpState::Listen).collect();
    let incoming = |entry: &TcpNetEntry| {
        let local = canonical(entry.local_address);
        listening.iter().map(|listener| canonical(listener.local_address)).any(|at| {
            at.port() == local.port() && (at.ip().is_unspecified() || at.ip() == local.ip())
        })
    };
    let to_the_proxy = |entry: &TcpNetEntry| {
        let port = entry.remote_address.port();
        is_here(remote(entry))
            && listening.iter().any(|l| own.contains(&l.inode) && l.local_address.port() == port)
    };
    let past = |entry: &&TcpNetEntry| {
        let ip = remote(entry).ip();
        matches!(entry.state, TcpState::Established | TcpState::SynSent)
            && !ip.is_loopback()
            && !ip.is_unspecified()
            && !own.contains(&entry.inode)
            && !incoming(entry)
            && !to_the_proxy(entry)
    };
    // The kernel lists a connection twice if the table changes while it is read.
    let mut told = HashSet::new();
    table.iter().filter(past).filter(|entry| told.insert(key(entry))).collect()
}

fn key(entry: &TcpNetEntry) -> Key {
    (entry.inode, entry.local_address, entry.remote_address)
}

fn table() -> Result<Vec<TcpNetEntry>, ProcError> {
    let mut table = procfs::net::tcp()?;
    match procfs::net::tcp6() {
        Ok(six) => table.extend(six),
        // A kernel without IPv6.
        Err(ProcError::NotFound(_)) => {}
        Err(ProcError::Io(error, _)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(table)
}

fn remote(entry: &TcpNetEntry) -> SocketAddr {
    canonical(entry.remote_address)
}

/// An IPv4 address stays one in a dual-stack socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use procfs::FromBufReadSI;

    use super::*;

    #[test]
    fn a_connection_seen_once_that_may_be_the_proxys_is_not_reported() {
        let dial = Dial::default();
        let mut watch = Watch::new(Expected::default(), &[], &dial);
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        for (inode, looks, user, owner) in [
            (1, 1, 65532, None),
            (2, 2, 65532, None),
            (3, 1, 1000, None),
            (4, 1, 65532, Some((7, "node".to_owned()))),
        ] {
            let remote = at(inode);
            let connection = Connection { remote, owner, looks, user };
            watch.seen.insert((inode.into(), at(9), remote), connection);
        }
        watch.proxies.insert(1);
        watch.own_users.insert(65532);
        let (mut found, short) = watch.found();
        found.sort_by_key(|connection| connection.remote);
        let ports: Vec<u16> = found.iter().map(|found| found.remote.port()).collect();
        assert_eq!((ports, short), (vec![2, 3, 4], 1));
    }

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn only_what_goes_out_past_the_proxy_is_found() {
        // 10.0.0.5 is this machine; 3128 is the proxy's, with socket 1; 7007 is Backstage's.
        let line = |local: &str, remote: &str, state: &str, inode: u64| {
            format!(
                "   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0 100 0 0 10 0\n"
            )
        };
        let (me, far) = ("0500000A", "01020304");
        let text = [
            HEAD.to_owned(),
            line("00000000:0C38", "00000000:0000", "0A", 1),
            line("00000000:1B5F", "00000000:0000", "0A", 2),
            line(&format!("{me}:C000"), &format!("{far}:01BB"), "01", 3), // the proxy's own
            line(&format!("{me}:C001"), &format!("{far}:01BB"), "01", 4), // past it
            line(&format!("{me}:C002"), &format!("{far}:01BB"), "02", 5), // being opened
            line(&format!("{me}:C001"), &format!("{far}:01BB"), "01", 4), // told twice
            line(&format!("{me}:1B5F"), &format!("{far}:D000"), "01", 6), // incoming
            line("0100007F:C003", "0100007F:1B5F", "01", 7),              // loopback
            line(&format!("{me}:C004"), &format!("{me}:0C38"), "01", 8),  // to the proxy
            line(&format!("{me}:C005"), &format!("{me}:1B5F"), "01", 9),  // to a neighbour
            line(&format!("{me}:C006"), &format!("{far}:01BB"), "06", 0), // over
        ]
        .concat();
        let table = procfs::net::TcpNetEntries::from_buf_read(
            text.as_bytes(),
            procfs::current_system_info(),
        );
        let table = table.unwrap().0;
        let is_here = |remote: SocketAddr| remote.ip().to_string() == "10.0.0.5";
        let past = past_the_proxy(&table, &[1, 3].into(), &is_here);
        let inodes: Vec<u64> = past.iter().map(|entry| entry.inode).collect();
        assert_eq!(inodes, [4, 5, 9]);
    }
}
