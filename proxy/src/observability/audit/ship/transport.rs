//! Sends batches to a sink, and reads its responses.

use std::{
    io::Write,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use config::{ShipFormat, ShipKind};
use filters::guard::Guard;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::{ocsf, otlp, secrets::Secrets, source::Record, syslog, webhook};
use crate::{
    clock,
    net::{
        dial::Dial,
        fetch::{self, Endpoint},
        parent::Parents,
    },
};

/// The result of sending a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was accepted.
    Taken,
    /// It was accepted, except for this many records.
    Partly(u64, String),
    /// It was rejected: the fault is in the records.
    Refused(String),
    /// It was not accepted now.
    Later(String, Option<Duration>),
}

/// The way to one sink.
pub(super) struct Transport {
    written: config::Ship,
    dial: Dial,
    guard: Arc<Guard>,
    secrets: Secrets,
    /// Why the previous secrets are still in use.
    kept: Option<String>,
    client: Option<fetch::Client>,
    /// The parent proxies that the client uses.
    parents: Arc<Parents>,
    /// The TLS config of connections.
    tls: Option<rustls::ClientConfig>,
    connection: Option<syslog::Connection>,
}

/// The longest `Retry-After` that is honoured.
const WAIT_MAX: Duration = Duration::from_secs(600);

impl Transport {
    pub(super) fn new(
        written: config::Ship,
        dial: Dial,
        guard: Arc<Guard>,
        secrets: Secrets,
    ) -> Self {
        let (kept, client, tls, connection) = Default::default();
        let parents = dial.parents();
        Self { written, dial, guard, secrets, kept, client, parents, tls, connection }
    }

    /// Whether a batch counts only once the next was sent, because there are no acknowledgements.
    pub(super) fn has_no_answers(&self) -> bool {
        self.written.kind == ShipKind::SyslogTls
    }

    /// Whether what was sent last seems to have arrived.
    pub(super) async fn is_open(&mut self) -> bool {
        match &mut self.connection {
            Some(connection) => connection.is_open().await,
            None => false,
        }
    }

    /// Sends a batch.
    pub(super) async fn send(&mut self, records: &[Record]) -> Answer {
        self.reread().await;
        let kind = self.written.kind;
        let patience = *self.written.timeout.value;
        let sent = async {
            match kind {
                ShipKind::OtlpHttp | ShipKind::Webhook => self.post(records).await,
                ShipKind::SyslogTls => self.write(records).await,
                ShipKind::Stdout => self.print(records).await,
            }
        };
        // Standard output cannot be abandoned: a blocked write completes some time.
        let patience = if kind == ShipKind::Stdout { Duration::MAX } else { patience };
        match timeout(patience, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(cause)) => {
                self.connection = None;
                Answer::Later(cause, None)
            }
            Err(_) => {
                self.connection = None;
                Answer::Later(format!("no response within {patience:?}"), None)
            }
        }
    }

    /// Applies changed secrets. If they cannot be used, the previous ones stay.
    async fn reread(&mut self) {
        let parents = self.dial.parents();
        if *parents != *self.parents {
            (self.parents, self.client, self.connection) = (parents, None, None);
        }
        let written = self.written.clone();
        let read = tokio::task::spawn_blocking(move || Secrets::read(&written)).await;
        let Ok(read) = read else { return };
        let kept = read.as_ref().err().map(ToString::to_string);
        if let Some(error) = &kept
            && self.kept != kept
        {
            tracing::warn!(error, "a sink keeps using its last secrets");
        }
        self.kept = kept;
        let Ok(read) = read else { return };
        if self.secrets != read {
            self.secrets = read;
            (self.client, self.tls, self.connection) = (None, None, None);
        }
    }

    async fn post(&mut self, records: &[Record]) -> Result<Answer, String> {
        let url = self.written.url.as_ref().expect("a config that is valid has it");
        let mut address = url.to_string();
        let is_otlp = self.written.kind == ShipKind::OtlpHttp;
        if is_otlp && url.path.is_empty() {
            address.push_str("/v1/logs");
        }
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let ca = self.written.ca.as_deref().map(std::path::PathBuf::as_path);
                let client = client(&self.dial, &self.guard, url, ca)?;
                self.client.insert(client).clone()
            }
        };
        let body = self.encoded(records).await?.unwrap_or_default();
        let (kind, mut headers) = if is_otlp {
            ("application/x-protobuf", HeaderMap::new())
        } else {
            let key = self.secrets.key.as_deref();
            ("application/json", webhook::headers(&body, key, clock::now().unix))
        };
        headers.extend(self.secrets.headers.iter().cloned());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if is_otlp {
            headers.insert(header::ACCEPT, HeaderValue::from_static(kind));
        }
        // `send` limits the whole time.
        let request = client.post(&address).headers(headers).timeout(WAIT_MAX).body(body);
        let answer = request.send().await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let cause = client.cause(&error).await;
                return Err(format!("cannot post to `{address}`: {cause}"));
            }
        };
        let status = answer.status();
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED && client.is_behind_parent() {
            let cause = client.refused(status.as_u16());
            return Err(format!("cannot post to `{address}`: {cause}"));
        }
        let wait = retry_after(answer.headers());
        // Read, so that the connection can be used again.
        let body = fetch::body(answer, &address).await.unwrap_or_default();
        let delivery_status = format!("`{address}` responded with {}", status.as_u16());
        Ok(match status {
            status if status.is_success() => match otlp::rejected(&body).filter(|_| is_otlp) {
                Some((count, why)) => Answer::Partly(count, why),
                None => Answer::Taken,
            },
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Answer::Refused(delivery_status),
            _ => Answer::Later(delivery_status, wait),
        })
    }

    async fn write(&mut self, records: &[Record]) -> Result<Answer, String> {
        let Some(frames) = self.encoded(records).await? else {
            return Ok(Answer::Refused("a message would be too long".to_owned()));
        };
        let address = self.written.address.as_ref().expect("a config that is valid has it");
        let wrong =
            |error: &dyn std::fmt::Display| format!("cannot write to `{}`: {error}", **address);
        if let Some(connection) = &mut self.connection
            && !connection.is_open().await
        {
            // Earlier messages may not have arrived: the caller sends them again.
            return Err(wrong(&"the receiver has closed the connection"));
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let url = config::Url {
                    tls: true,
                    host: address.host.clone(),
                    port: address.port,
                    path: String::new(),
                };
                let place = Endpoint::declared(&url);
                let patience = *self.written.timeout.value;
                let stream = match place.parent(&self.dial) {
                    Some(parent) => {
                        let host = (&*address.host, address.port);
                        let tunnel = parent.tunnel(&self.dial, host, patience).await;
                        tunnel.map_err(|fault| wrong(&fault))?.0
                    }
                    None => {
                        let found = fetch::addresses(&self.dial, &self.guard, &place).await?;
                        let stream = self.dial.connect(&found, patience).await;
                        stream.map_err(|error| wrong(&error))?.0.into()
                    }
                };
                let tls = match &self.tls {
                    Some(tls) => tls.clone(),
                    None => {
                        let ca = self.written.ca.as_deref().map(std::path::PathBuf::as_path);
                        self.tls.insert(fetch::tls(ca)?).clone()
                    }
                };
                let opened = syslog::Connection::open(stream, &address.host, tls).await;
                none.insert(opened.map_err(|error| wrong(&error))?)
            }
        };
        connection.write(&frames).await.map_err(|error| wrong(&error))?;
        Ok(Answer::Taken)
    }

    async fn print(&self, records: &[Record]) -> Result<Answer, String> {
        let lines = self.encoded(records).await?.unwrap_or_default();
        let printed = tokio::task::spawn_blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&lines)?;
            out.flush()
        });
        let printed = printed.await.map_err(|error| error.to_string())?;
        printed.map_err(|error| format!("cannot write to standard output: {error}"))?;
        Ok(Answer::Taken)
    }

    /// An encoded batch, made on a blocking thread. `None` if it cannot be encoded.
    async fn encoded(&self, records: &[Record]) -> Result<Option<Vec<u8>>, String> {
        let (kind, format, records) = (self.written.kind, self.written.format, records.to_vec());
        let encoded = tokio::task::spawn_blocking(move || encoded(kind, format, &records));
        encoded.await.map_err(|error| error.to_string())
    }
}

fn encoded(kind: ShipKind, format: ShipFormat, records: &[Record]) -> Option<Vec<u8>> {
    let lines = records.iter().map(|record| (&*record.line, shown(format, &record.line)));
    match kind {
        ShipKind::OtlpHttp => Some(otlp::body(lines)),
        ShipKind::Webhook => Some(webhook::body(lines.map(|(_, shown)| shown))),
        ShipKind::SyslogTls => syslog::frames(lines),
        ShipKind::Stdout => Some(lines.map(|(_, shown)| shown + "\n").collect::<String>().into()),
    }
}

/// A line as sent: JSON, on one line, in ASCII.
fn shown(format: ShipFormat, line: &[u8]) -> String {
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    match (format, std::str::from_utf8(line)) {
        (ShipFormat::Ocsf, _) => ocsf::event(line),
        (ShipFormat::Stagedoor, Ok(line)) if line.is_ascii() && is_json() => line.to_owned(),
        // It was not written by us.
        _ => {
            let text = String::from_utf8_lossy(line);
            ocsf::ascii(&serde_json::json!({"kind": "unreadable", "line": text}).to_string())
        }
    }
}

/// The name of this machine, or of the pod.
pub(super) fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn client(
    dial: &Dial,
    guard: &Arc<Guard>,
    url: &config::Url,
    ca: Option<&Path>,
) -> Result<fetch::Client, String> {
    fetch::client_of(dial, guard, &Endpoint::declared(url), ca, |builder| {
        builder.pool_max_idle_per_host(1).pool_idle_timeout(Duration::from_secs(30))
    })
}

/// A receiver's `Retry-After` (RFC 9110 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            let at = at.duration_since(std::time::UNIX_EPOCH).ok()?;
            at.saturating_sub(clock::now().unix)
        }
    };
    Some(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_retry_after_is_honoured() {
        let check = |text: &'static str, expected: Option<u64>| {
            let value = HeaderValue::from_static(text);
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value)]);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{text}");
        };
        check("3", Some(3));
        check("99999999", Some(600));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Sat, 06 Nov 2094 08:49:37 GMT", Some(600));
        check("soon", None);
        check("-1", None);
    }
}
