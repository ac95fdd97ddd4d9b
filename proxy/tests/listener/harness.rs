//! A front with Pingora's proxy behind it, an upstream, and clients.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora::{
    apps::ServerApp,
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
        TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
    },
    proxy::{HttpProxy, ProxyHttp, Session},
    server::configuration::ServerConf,
    upstreams::peer::HttpPeer,
};
use proxy::{
    data_plane::listener::{Drain, HeadRefusal, Limits, Listener, Refusals},
    upstream::upgrade::{self, UpgradeAnswered},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};

/// Limits that no test meets by accident.
pub(crate) fn limits() -> Limits {
    Limits {
        connections_max: 100,
        connections_per_client_max: 0,
        handshakes_max: 100,
        handshakes_per_client_max: 0,
        head_max: 8 << 10,
        headers_max: 32,
        head_timeout: Duration::from_secs(20),
        keepalive_timeout: Duration::from_secs(20),
        keepalive_requests_max: 10_000,
    }
}

/// Fails the test rather than hang.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// As if TLS had agreed on it.
    Http2,
}

/// Everything between a client and an upstream.
pub(crate) struct Harness {
    address: SocketAddr,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) refusals: Arc<Refused>,
    pub(crate) drain: Arc<Drain>,
    _shutdown: watch::Sender<bool>,
}

impl Harness {
    pub(crate) async fn new(limits: Limits) -> Self {
        Self::with(limits, Protocol::Http1, Upstream::plain().await).await
    }

    pub(crate) async fn with(limits: Limits, protocol: Protocol, upstream: Arc<Upstream>) -> Self {
        let edge = Edge { upstream: upstream.address };
        let mut proxy = HttpProxy::new(edge, Arc::new(ServerConf::default()));
        proxy.handle_init_modules();
        let (refusals, drain) = (Arc::<Refused>::default(), Arc::<Drain>::default());
        let front = Listener::new(
            Arc::new(proxy),
            limits,
            Some(Arc::clone(&drain)),
            Arc::clone(&refusals) as Arc<dyn Refusals>,
        );
        let front = Arc::new(front);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_shutdown, shutdown) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (front, shutdown) = (Arc::clone(&front), shutdown.clone());
                let stream = Box::new(Accepted { tcp, protocol });
                tokio::spawn(async move { front.process_new(stream, &shutdown).await.is_some() });
            }
        });
        Self { address, upstream, refusals, drain, _shutdown }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    pub(crate) async fn client(&self) -> Client {
        Client { tcp: self.connect().await }
    }
}

/// What the front refused: the code, and whether it was answered.
#[derive(Default)]
pub(crate) struct Refused(Mutex<Vec<(&'static str, bool)>>);

impl Refused {
    pub(crate) fn take(&self) -> Vec<(&'static str, bool)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Refusals for Refused {
    fn refused(&self, refusal: HeadRefusal, peer: IpAddr, _: &[u8], answered: bool) -> String {
        assert_eq!(peer, IpAddr::from([127, 0, 0, 1]));
        self.0.lock().push((refusal.row().1, answered));
        "an-id".to_owned()
    }
}

/// Passes everything on, with the workarounds that the real one has.
struct Edge {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        session: &mut Session,
        (): &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        if session.as_ref().is_upgrade_req() {
            let long = Duration::from_secs(20);
            let timeouts = filters::progress::Timeouts {
                connect: long,
                upstream: long,
                total: long,
                stream_idle: long,
                upgrade: long,
                rate_min: 0,
            };
            peer.group_key = 1;
            upgrade::decorate(&mut peer, &timeouts, &UpgradeAnswered::default());
        }
        Ok(Box::new(peer))
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        (): &mut (),
    ) -> pingora::Result<()> {
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        Ok(())
    }
}

/// Answers with the method, the target and the body it read.
pub(crate) struct Upstream {
    address: SocketAddr,
    requests: Mutex<Vec<String>>,
    /// `/wait` was asked for; it is answered after `answer`.
    pub(crate) asked: Notify,
    pub(crate) answer: Notify,
    /// A first part of a body has come.
    pub(crate) begun: Notify,
    /// A connection ended in the middle of an exchange.
    pub(crate) left: Notify,
}

impl Upstream {
    pub(crate) async fn plain() -> Arc<Self> {
        Self::serve(|upstream: Arc<Self>, tcp| async move {
            let mut client = Client { tcp };
            while upstream.exchange(&mut client).await.is_some() {}
        })
        .await
    }

    /// Agrees to an upgrade before it is asked, then sends everything back.
    pub(crate) async fn websocket() -> Arc<Self> {
        Self::serve(|_, tcp| async move {
            let mut client = Client { tcp };
            client
                .send("HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
            if client.head().await.is_none() {
                return;
            }
            while let Some(byte) = client.byte().await {
                client.send_bytes(&[byte]).await;
            }
        })
        .await
    }

    async fn serve<F>(exchange: fn(Arc<Self>, TcpStream) -> F) -> Arc<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            requests: Mutex::default(),
            asked: Notify::new(),
            answer: Notify::new(),
            begun: Notify::new(),
            left: Notify::new(),
        });
        let serving = Arc::clone(&upstream);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                tokio::spawn(exchange(Arc::clone(&serving), tcp));
            }
        });
        upstream
    }

    /// The heads of the whole requests that came, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }

    async fn exchange(&self, client: &mut Client) -> Option<()> {
        let head = client.head().await?;
        if !head.contains(" HTTP/1.1\r\n") {
            // What is left over from a request that ended twice.
            self.requests.lock().push(head);
            return None;
        }
        let Some(body) = self.body(client, &head.to_lowercase()).await else {
            self.left.notify_one();
            return None;
        };
        let mut line = head.split(' ');
        let (method, target) = (line.next()?, line.next()?);
        if target == "/wait" {
            self.asked.notify_one();
            tokio::select! {
                () = self.answer.notified() => {}
                byte = client.byte() => {
                    assert_eq!(byte, None, "the next request has no business here");
                    self.left.notify_one();
                    return None;
                }
            }
        }
        let answer = format!("{method} {target} {body}");
        self.requests.lock().push(head);
        let length = answer.len();
        client.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}")).await;
        Some(())
    }

    async fn body(&self, client: &mut Client, head: &str) -> Option<String> {
        if let Some((_, length)) = head.split_once("content-length: ") {
            return client.bytes(length.split('\r').next()?.parse().ok()?).await;
        }
        if !head.contains("transfer-encoding: chunked") {
            return Some(String::new());
        }
        let mut body = String::new();
        loop {
            let line = client.until(b"\r\n").await?;
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a plain chunk size");
            let part = client.bytes(size + 2).await?;
            if size == 0 {
                return Some(body);
            }
            body.push_str(&part[..size]);
            self.begun.notify_one();
        }
    }
}

/// One end of a connection, read slowly but surely.
pub(crate) struct Client {
    tcp: TcpStream,
}

/// What a client got.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    /// Whether the other side still takes it.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        within(self.tcp.write_all(bytes)).await.is_ok()
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.tcp.try_read(&mut []).is_ok()
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        within(async {
            let head = self.head().await.expect("an answer");
            let status = head[9..12].parse().unwrap();
            let lower = head.to_lowercase();
            let (_, length) = lower.split_once("content-length: ").expect("a length");
            let length = length.split('\r').next().unwrap().parse().unwrap();
            let body = self.bytes(length).await.expect("a body");
            Answer { status, head, body }
        })
        .await
    }

    /// Everything until the other side closes; nothing if it resets.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = within(self.tcp.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        self.until(b"\r\n\r\n").await
    }

    pub(crate) async fn byte(&mut self) -> Option<u8> {
        self.tcp.read_u8().await.ok()
    }

    pub(crate) async fn bytes(&mut self, count: usize) -> Option<String> {
        let mut bytes = vec![0; count];
        self.tcp.read_exact(&mut bytes).await.ok()?;
        String::from_utf8(bytes).ok()
    }

    async fn until(&mut self, end: &[u8]) -> Option<String> {
        let mut seen = Vec::new();
        while !seen.ends_with(end) {
            seen.push(self.byte().await?);
        }
        String::from_utf8(seen).ok()
    }
}

/// An accepted connection, with the protocol that TLS would have agreed on.
#[derive(Debug)]
struct Accepted {
    tcp: TcpStream,
    protocol: Protocol,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Http1 { "http/1.1" } else { "h2" })
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Accepted {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(&mut self.tcp).await;
    }
}

impl UniqueID for Accepted {
    fn id(&self) -> UniqueIDType {
        self.tcp.as_raw_fd()
    }
}

impl Ssl for Accepted {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        (self.protocol == Protocol::Http2).then_some(ALPN::H2)
    }
}

impl GetTimingDigest for Accepted {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Accepted {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Accepted {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::new(SocketDigest::from_raw_fd(self.tcp.as_raw_fd())))
    }
}

impl Peek for Accepted {}
