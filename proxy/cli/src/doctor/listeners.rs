//! The forward listeners of a config, and whether they respond.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use config::{Config, ListenerKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use proxy::net::dial::Dial;

/// A forward listener.
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
}

const PATIENCE: Duration = Duration::from_secs(5);
/// Not a call: a forward listener refuses it, and its request id identifies Stagedoor.
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: stagedoor\r\nConnection: close\r\n\r\n";
const ANSWER_MAX: u64 = 16 << 10;

pub(super) fn forward(config: &Config) -> Vec<Listener> {
    let forward = config.listeners.iter().filter(|(_, l)| l.kind == ListenerKind::Forward);
    forward
        .map(|(name, listener)| Listener {
            name: name.to_string(),
            address: listener.address,
            tls: listener.tls.is_some(),
        })
        .collect()
}

/// Whether each of them responds. One with TLS is only connected to.
pub(super) async fn ask(listeners: &[Listener], dial: &Dial) -> Vec<bool> {
    let mut answers = Vec::new();
    for listener in listeners {
        answers.push(timeout(PATIENCE, answer(listener, dial)).await.unwrap_or(false));
    }
    answers
}

async fn answer(listener: &Listener, dial: &Dial) -> bool {
    let connected = dial.connect(&[listener.reached_at()], PATIENCE).await;
    let Ok((mut stream, _)) = connected else { return false };
    if listener.tls {
        return true;
    }
    let mut got = Vec::new();
    if stream.write_all(QUESTION).await.is_err() {
        return false;
    }
    // What was received before an error counts.
    let _ = stream.take(ANSWER_MAX).read_to_end(&mut got).await;
    String::from_utf8_lossy(&got).to_ascii_lowercase().contains("x-request-id:")
}

impl Listener {
    fn reached_at(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    /// The address of the proxy for clients in the same pod.
    pub(super) fn url(&self) -> String {
        format!("http{}://{}", if self.tls { "s" } else { "" }, self.reached_at())
    }
}
