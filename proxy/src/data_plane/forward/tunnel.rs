//! A tunnel: CONNECT (RFC 9110 9.3.6).

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use filters::{
    Denial, Exchange, Label, Step,
    audit::{CallConnection, Received},
    client_hello::{self, Peek},
    forward::AddressedCall,
    target::Target,
};
use http::{HeaderValue, Method, StatusCode};
use pingora::{protocols::Stream, server::ShutdownWatch};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    AdmittedCall, Forward, ProxyCaller,
    copy::{Moved, both_ways},
};
use crate::{
    data_plane::{
        denial_response::PROXY_CHALLENGE,
        gateway::Snapshot,
        listener::{ConnectRequest, Tunnel, tls::HandshakeInfo},
        rate_limit_headers,
        recorder::{RecordKind, Recorder},
    },
    net::parent::Connection,
    request_id::RequestId,
};

/// How many times within its idle timeout a tunnel is checked for silence.
const LOOKS: u32 = 4;
/// The TLS alert `access_denied`, so that a client reports more than a broken connection.
const ACCESS_DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// A tunnel whose server is connected.
struct Opened {
    /// What was proved about it. It holds its permit among the tunnels until this is dropped.
    call: AddressedCall,
    server: Connection,
    address: SocketAddr,
}

/// Both ends of a tunnel.
struct Ends<'a> {
    client: &'a mut Stream,
    /// What the client sent with its head.
    early: Vec<u8>,
    server: Connection,
    moved: &'a Moved,
}

#[async_trait]
impl Tunnel for Forward {
    async fn tunnel(&self, asked: ConnectRequest, shutdown: &ShutdownWatch) {
        let mut recorder = Recorder::new(&self.gateway, RecordKind::Call);
        recorder.request_id = RequestId::new();
        let snapshot = Arc::clone(&recorder.snapshot);
        let ConnectRequest { mut stream, head, ahead, peer } = asked;
        let digest = stream.get_ssl_digest();
        let shown = digest.as_ref().and_then(|digest| digest.extension.get::<HandshakeInfo>());
        let connection = CallConnection {
            listener: self.listener,
            peer,
            tls: digest.is_some(),
            certificate: shown.and_then(|shown| shown.certificate.clone()),
        };
        let certificate = connection.certificate.clone();
        let authorization: Vec<&[u8]> = head.values("proxy-authorization").collect();
        let caller = ProxyCaller {
            peer,
            certificate: certificate.as_deref(),
            authorization: &authorization,
        };
        let traceparent = head.values("traceparent").next();
        let traceparent = traceparent.and_then(|value| HeaderValue::from_bytes(value).ok());
        recorder.receive(Received::call(
            connection,
            Method::CONNECT,
            (head.target(), b""),
            traceparent,
            recorder.began,
        ));
        let opened = self.open(&snapshot, head.target(), &caller, &mut recorder).await;
        // A switch that was set meanwhile has not severed it.
        let opened = opened.and_then(|opened| recorder.register(None).map(|()| opened));
        // Both hold the buffer that the head was read into, which a long tunnel must not keep.
        let early = ahead.to_vec();
        drop(authorization);
        drop((head, ahead));
        match opened {
            Ok(Opened { call, server, address }) => {
                recorder.ended.status = 200;
                recorder.ended.attempts = 1;
                recorder.ended.upstream_address = Some(address);
                let (severed, moved) = (recorder.severed(), Moved::default());
                let ends = Ends { client: &mut stream, early, server, moved: &moved };
                let run = self.run(&snapshot, ends, &call, &mut recorder.exchange, shutdown);
                let result = tokio::select! {
                    result = run => result,
                    denial = severed => Err(denial),
                };
                recorder.ended.bytes_in = moved.out.load(Ordering::Relaxed);
                recorder.ended.bytes_out = moved.back.load(Ordering::Relaxed);
                recorder.ended.cut = result == Ok(false) || recorder.is_severed();
                recorder.ended.denial = result.err();
            }
            Err(denial) => {
                refuse(&mut stream, &denial, &recorder.request_id).await;
                recorder.ended.status = proxy_status(&denial).as_u16();
                recorder.ended.denial = Some(denial);
            }
        }
        recorder.finish();
    }
}

impl Forward {
    /// Decides, and connects.
    async fn open(
        &self,
        snapshot: &Arc<Snapshot>,
        asked: &[u8],
        caller: &ProxyCaller<'_>,
        recorder: &mut Recorder,
    ) -> Result<Opened, Denial> {
        // The target counts, whatever `Host` says (RFC 9112 3.2.2, 3.2.3): nobody forwards that.
        let target = Target::of_connect(asked).map_err(Denial::TargetInvalid)?;
        let (began, exchange) = (recorder.began, &mut recorder.exchange);
        let going = self.admit(snapshot, (&target, true), caller, began, exchange).await?;
        exchange.steps.enter(Step::Upstream);
        let patience = *snapshot.loaded.config.egress.connect_timeout;
        let addresses = going.addresses();
        let AdmittedCall { call, parent } = going;
        let (server, address) = match parent {
            Some(parent) => {
                let host = target.host.to_string();
                let opened =
                    parent.tunnel(&self.gateway.dial, (&host, target.port), patience).await;
                opened.map_err(|fault| {
                    tracing::debug!(%fault, target = %target, "no tunnel through the parent proxy");
                    fault.denial()
                })?
            }
            None => {
                let opened = self.gateway.dial.connect(&addresses, patience).await;
                let (stream, address) = opened.map_err(|error| {
                    let upstream = Label::lossy(&target.to_string());
                    if error.kind() == io::ErrorKind::TimedOut {
                        return Denial::ConnectTimeout { upstream };
                    }
                    tracing::debug!(%error, target = %target, "a called host cannot be reached");
                    Denial::UpstreamUnreachable { upstream }
                })?;
                (stream.into(), address)
            }
        };
        Ok(Opened { call, server, address })
    }

    /// Responds with 200, checks the ClientHello, and copies. Returns whether both sides ended properly.
    async fn run(
        &self,
        snapshot: &Arc<Snapshot>,
        ends: Ends<'_>,
        call: &AddressedCall,
        exchange: &mut Exchange,
        shutdown: &ShutdownWatch,
    ) -> Result<bool, Denial> {
        let Ends { client, early: mut ahead, mut server, moved } = ends;
        let egress = &snapshot.loaded.config.egress;
        let yes = async {
            client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
            client.flush().await
        };
        if yes.await.is_err() {
            return Ok(false);
        }
        if call.must_be_tls(&snapshot.policy) {
            exchange.steps.enter(Step::ClientHello);
            let peek = match timeout(*egress.client_hello_timeout, hello(client, &mut ahead)).await
            {
                Ok(Ok(peek)) => peek,
                Ok(Err(_)) => return Ok(false),
                Err(_) => return Err(Denial::HelloTimeout),
            };
            let judged = call.hello(&snapshot.policy, &peek, exchange);
            if judged.is_err() {
                let _ = timeout(Duration::from_secs(1), async {
                    client.write_all(&ACCESS_DENIED).await?;
                    client.flush().await?;
                    client.shutdown().await
                })
                .await;
            }
            judged.inspect_err(|denial| tracing::debug!(%denial, "a tunnel was closed"))?;
        }
        let mut shutdown = shutdown.clone();
        let whole = tokio::select! {
            copied = both_ways(client, &mut server, ahead, moved) => copied.is_ok(),
            () = silence(moved, *egress.idle_timeout) => false,
            () = sleep(*egress.lifetime_max) => false,
            () = self.gateway.drain.ending() => false,
            // Another process has taken over.
            _ = shutdown.changed() => false,
        };
        Ok(whole)
    }
}

/// Reads until the first bytes are known to be a ClientHello, or not.
async fn hello(client: &mut Stream, ahead: &mut Vec<u8>) -> io::Result<Peek> {
    loop {
        match client_hello::peek(ahead) {
            Peek::More => {}
            known => return Ok(known),
        }
        if client.read_buf(ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Ends when nothing was forwarded for this long.
async fn silence(moved: &Moved, longest: Duration) {
    let mut silent = 0;
    let mut before = moved.all();
    while silent < LOOKS {
        sleep(longest / LOOKS).await;
        let now = moved.all();
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
    }
}

/// A proxy that wants credentials responds with 407 (RFC 9110 15.5.8).
pub(super) fn proxy_status(denial: &Denial) -> StatusCode {
    match denial.status() {
        StatusCode::UNAUTHORIZED => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        status => status,
    }
}

/// The code is in the reason phrase, because most clients show nothing else.
async fn refuse(stream: &mut Stream, denial: &Denial, id: &RequestId) {
    let (status, code) = (proxy_status(denial), denial.code());
    let body = serde_json::json!({
        "type": "about:blank",
        "title": code,
        "status": status.as_u16(),
        "code": code,
        "request_id": id.as_str(),
    })
    .to_string();
    let mut more = String::new();
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        more.push_str(&format!("Proxy-Authenticate: {PROXY_CHALLENGE}\r\n"));
    }
    if let Some(after) = denial.retry_after() {
        more.push_str(&format!("Retry-After: {}\r\n", after.as_secs_f64().ceil().max(1.0)));
    }
    let mut told = http::HeaderMap::new();
    rate_limit_headers::told(&mut told, None, Some(denial));
    for (name, value) in &told {
        more.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    let answer = format!(
        "HTTP/1.1 {} {code}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         X-Request-Id: {}\r\nProxy-Status: {}\r\n{more}Connection: close\r\n\r\n{body}",
        status.as_u16(),
        body.len(),
        id.as_str(),
        filters::proxy_status::of(denial).to_str().unwrap_or_default(),
    );
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    let _ = timeout(Duration::from_secs(1), write).await;
}
