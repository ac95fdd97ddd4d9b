//! The findings, for people and for programs.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use serde::Serialize;
use serde_json::json;

use super::{
    listeners::Listener,
    node::{self, Node, Proxies},
    watch::Watch,
};
use crate::counted;

/// The findings.
#[derive(Serialize)]
pub(super) struct Report {
    looks: u32,
    /// Stagedoor's processes. Without any, its own connections cannot be recognized.
    proxies: Vec<i32>,
    listeners: Vec<Answer>,
    /// Connections past the proxy.
    pub(super) bypasses: Vec<Bypass>,
    /// Connections that closed before their owner was known.
    too_short: usize,
    /// Connections that there was no room to remember.
    beyond: u64,
    node: Vec<Node>,
}

#[derive(Serialize)]
struct Answer {
    name: String,
    address: String,
    answers: bool,
}

/// One process' connections to one address, past the proxy.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Bypass {
    remote: String,
    pid: Option<i32>,
    command: Option<String>,
    connections: u32,
    /// How often they were seen, in total.
    seen: u32,
}

/// Lines of one kind that a person reads; `--json` has all.
const LINES_MAX: usize = 100;

impl Report {
    pub(super) fn of(
        watch: Watch<'_>,
        listeners: &[Listener],
        answers: &[bool],
        own: &[IpAddr],
    ) -> Self {
        let mut proxies: Vec<i32> = watch.proxies.iter().copied().collect();
        proxies.sort_unstable();
        let (looks, beyond) = (watch.looks, watch.beyond);
        let (found, too_short) = watch.found();
        let mut grouped: BTreeMap<_, (u32, u32)> = BTreeMap::new();
        for connection in found {
            let counts = grouped.entry((connection.remote, connection.owner)).or_default();
            *counts = (counts.0 + 1, counts.1 + connection.looks);
        }
        let bypasses = grouped.into_iter().map(|((remote, owner), (connections, seen))| {
            let (pid, command) = owner.unzip();
            Bypass { remote: remote.to_string(), pid, command, connections, seen }
        });
        let answers = listeners.iter().zip(answers).map(|(listener, answers)| Answer {
            name: listener.name.clone(),
            address: listener.address.to_string(),
            answers: *answers,
        });
        Self {
            looks,
            proxies,
            listeners: answers.collect(),
            bypasses: bypasses.collect(),
            too_short,
            beyond,
            node: node::all(&Proxies { listeners, own }),
        }
    }

    pub(super) fn json(&self) -> String {
        format!("{:#}\n", json!(self))
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for listener in &self.listeners {
            let answers = if listener.answers { "responds" } else { "does not respond" };
            let _ =
                writeln!(text, "listener `{}` at {} {answers}", listener.name, listener.address);
        }
        if self.proxies.is_empty() {
            text += "no Stagedoor process is visible, so its own connections are among these: run this in its container, as its user or as root\n";
        }
        for bypass in self.bypasses.iter().take(LINES_MAX) {
            bypass.describe(&mut text);
        }
        more(&mut text, self.bypasses.len());
        if self.too_short > 0 {
            let short = counted(self.too_short as u64, "connection");
            let _ = writeln!(text, "too short to tell whose they were: {short}");
        }
        if self.beyond > 0 {
            let _ = writeln!(text, "too many to remember: {}", counted(self.beyond, "sighting"));
        }
        let lacking: Vec<&Node> =
            self.node.iter().filter(|node| !node.readable || !node.lacks.is_empty()).collect();
        for node in lacking.iter().take(LINES_MAX) {
            node.describe(&mut text);
        }
        more(&mut text, lacking.len());
        let looks = counted(self.looks.into(), "look");
        let _ = match self.bypasses.len() {
            0 => writeln!(text, "nothing bypassed the proxy, in {looks}"),
            _ => writeln!(
                text,
                "connections that bypass the proxy are not governed by any rule: see docs/egress.md, and block them with a network policy"
            ),
        };
        text
    }
}

fn more(text: &mut String, all: usize) {
    if all > LINES_MAX {
        let _ = writeln!(text, "and {} more (--json has all)", all - LINES_MAX);
    }
}

impl Bypass {
    fn describe(&self, text: &mut String) {
        let Self { remote, connections, seen, .. } = self;
        let who = match (self.pid, &self.command) {
            (Some(pid), Some(command)) => format!("pid {pid}, {command}"),
            _ => "an invisible process (shareProcessNamespace shows it)".to_owned(),
        };
        let _ = writeln!(
            text,
            "bypasses the proxy: {remote} from {who}; {}, seen {}",
            counted((*connections).into(), "connection"),
            counted((*seen).into(), "time")
        );
        let _ = writeln!(
            text,
            "  send it through the proxy or, if this is intended, add: --expect {remote}"
        );
    }
}

impl Node {
    fn describe(&self, text: &mut String) {
        let _ = writeln!(text, "pid {}, {}:", self.pid, self.command);
        if !self.readable {
            text.push_str("  its environment cannot be read: run this as its user or as root\n");
        }
        for lack in &self.lacks {
            let _ = writeln!(text, "  {}; write {}", lack.what, lack.write);
        }
    }
}
