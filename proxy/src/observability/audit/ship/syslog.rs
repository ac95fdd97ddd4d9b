//! Records as syslog (RFC 5424) over TLS (RFC 5425).

use std::{io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::transport::host_name;
use crate::net::parent::Connection as Transport;

/// A message that is longer is not sent: receivers cut it.
const MESSAGE_MAX: usize = 64 << 10;
/// 13, log audit.
const FACILITY: u8 = 13;

/// A connection to a receiver.
pub(super) struct Connection(TlsStream<Transport>);

impl Connection {
    /// Greets the receiver, which proves that it is `host`.
    pub(super) async fn open(
        stream: Transport,
        host: &str,
        tls: rustls::ClientConfig,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned());
        let name =
            name.map_err(|_| io::Error::other("it is not a name that a certificate can have"))?;
        Ok(Self(TlsConnector::from(Arc::new(tls)).connect(name, stream).await?))
    }

    pub(super) async fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.0.write_all(frames).await?;
        self.0.flush().await
    }

    /// Whether the receiver has not closed it, as far as can be seen now.
    pub(super) async fn is_open(&mut self) -> bool {
        let mut buffer = [0; 512];
        match timeout(Duration::from_millis(1), self.0.read(&mut buffer)).await {
            // There is nothing to read, as always with syslog.
            Err(_) => true,
            Ok(Ok(read)) => read > 0,
            Ok(Err(_)) => false,
        }
    }
}

/// Messages, each after its length. `None` if one is too long.
pub(super) fn frames<'a>(records: impl Iterator<Item = (&'a [u8], String)>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (line, shown) in records {
        let message = message(line, &shown);
        if message.len() > MESSAGE_MAX {
            return None;
        }
        out.extend_from_slice(format!("{} ", message.len()).as_bytes());
        out.extend_from_slice(message.as_bytes());
    }
    Some(out)
}

/// One message. Its text is ASCII, which needs no byte order mark.
fn message(line: &[u8], shown: &str) -> String {
    #[derive(Deserialize, Default)]
    struct RecordFields {
        kind: Option<String>,
        time: Option<String>,
        decision: Option<String>,
    }
    let fields: RecordFields = serde_json::from_slice(line).unwrap_or_default();
    let kind = fields.kind.as_deref().unwrap_or("exchange");
    let severity = match (kind, fields.decision.as_deref()) {
        ("gap" | "recovery", _) => 3,
        (_, Some("deny")) => 4,
        _ => 6,
    };
    let priority = FACILITY * 8 + severity;
    let time = fields.time.as_deref().filter(|time| visible(time, 32)).unwrap_or("-");
    let host = if visible(host_name(), 255) { host_name() } else { "-" };
    let kind = if visible(kind, 32) { kind } else { "-" };
    let version = param(env!("CARGO_PKG_VERSION"));
    format!(
        "<{priority}>1 {time} {host} stagedoor {} {kind} [origin software=\"stagedoor\" swVersion=\"{version}\"] {shown}",
        std::process::id()
    )
}

/// A parameter's value (RFC 5424 6.3.3).
fn param(value: &str) -> String {
    let escape = |c: char| matches!(c, '"' | '\\' | ']').then_some('\\').into_iter().chain([c]);
    value.chars().flat_map(escape).collect()
}

fn visible(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_header_and_its_length_before_it() {
        let line = r#"{"time":"2026-11-24T12:00:00.123456Z","decision":"deny"}"#;
        let frames = frames([(line.as_bytes(), line.to_owned())].into_iter()).unwrap();
        let text = String::from_utf8(frames).unwrap();
        let (length, message) = text.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), message.len());
        let header = format!("<108>1 2026-11-24T12:00:00.123456Z {} stagedoor ", host_name());
        assert!(message.starts_with(&header), "{message}");
        assert!(message.ends_with(&format!(" swVersion=\"0.1.0\"] {line}")), "{message}");
    }

    #[test]
    fn what_is_no_record_still_makes_a_message() {
        let kind = r#"{"kind":"a b","time":"x y"}"#;
        assert!(message(kind.as_bytes(), kind).starts_with("<110>1 - "));
        let long = "x".repeat(MESSAGE_MAX);
        assert_eq!(frames([(&b"{}"[..], long)].into_iter()), None);
        assert_eq!(param(r#"a"b\c]"#), r#"a\"b\\c\]"#);
    }
}
