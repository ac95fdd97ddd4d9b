//! Every connection begins here, before Pingora: how many there may be, how long and how large a
//! head may be, and whether it can be read in one way only.

mod accept;
mod authority;
mod chunked;
mod connection_limits;
mod drain;
mod goaway;
mod h2_frames;
mod h2_preface;
mod hpack;
mod http10;
mod lingering_close;
mod load_balancers;
mod pipelining;
mod proxy_protocol;
mod refusal;
mod request_head;
pub mod tls;
mod trailers;
mod wrapped_stream;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ServerApp},
    listeners::tls::Acceptor,
    protocols::{ALPN, Stream, http::ServerSession},
    server::ShutdownWatch,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout, timeout_at},
};

use self::{
    accept::{Accept, NotAccepted},
    connection_limits::{ConnectionLimits, ConnectionPermit},
    goaway::LateConnection,
    h2_preface::PrefaceDeadline,
    lingering_close::{UnreadRequest, linger},
    load_balancers::Balancers,
    pipelining::Pipelining,
    request_head::{Body, Form},
    wrapped_stream::WrappedStream,
};

pub(crate) use self::refusal::RefusalContext;
pub use self::{
    drain::{Drain, InFlight},
    request_head::{Head, HeadRefusal},
};
use crate::data_plane::http2;

/// Sizes, counts and times for a listener's connections.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as in `config::Limits`")]
pub struct Limits {
    pub connections_max: usize,
    pub connections_per_client_max: usize,
    pub handshakes_max: usize,
    pub handshakes_per_client_max: usize,
    pub head_max: usize,
    pub headers_max: usize,
    pub head_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub keepalive_requests_max: u32,
}

impl From<&config::Limits> for Limits {
    fn from(written: &config::Limits) -> Self {
        let bytes = |size: config::Size| usize::try_from(size.bytes()).unwrap_or(usize::MAX);
        Self {
            connections_max: written.connections_max as usize,
            connections_per_client_max: written.connections_per_client_max as usize,
            handshakes_max: written.handshakes_max as usize,
            handshakes_per_client_max: written.handshakes_per_client_max as usize,
            head_max: bytes(written.head_max),
            headers_max: written.headers_max as usize,
            head_timeout: *written.head_timeout,
            keepalive_timeout: *written.keepalive_timeout,
            keepalive_requests_max: written.keepalive_requests_max,
        }
    }
}

/// Handles every head that never became a request, and makes the response.
pub trait Refusals: Send + Sync {
    /// Records it; returns the request id.
    fn refused(&self, refusal: HeadRefusal, peer: IpAddr, head: &[u8], answered: bool) -> String;

    /// The pages elsewhere that may read it.
    fn cors(&self) -> Option<Arc<config::Cors>> {
        None
    }
}

/// Whether an address is that of a load balancer that sends the PROXY protocol.
pub type IsBalancer = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Takes over the connections of CONNECT requests. Only a forward proxy does.
#[async_trait]
pub trait Tunnel: Send + Sync {
    /// Serves one until it ends.
    async fn tunnel(&self, asked: ConnectRequest, shutdown: &ShutdownWatch);
}

/// A CONNECT request and its connection.
pub struct ConnectRequest {
    /// Its connection.
    pub stream: Stream,
    /// Its head, which was checked.
    pub head: Head,
    /// The bytes after the head, which belong to the tunnel.
    pub ahead: bytes::BytesMut,
    /// Its address.
    pub peer: IpAddr,
}

/// How long the rest of a request body is read after the response, to keep the connection.
const DRAIN: Duration = Duration::from_millis(500);
/// Before a request line (RFC 9112 2.2).
const EMPTY_LINES_MAX: u8 = 2;

/// The front of one listener.
pub struct Listener<A> {
    app: Arc<A>,
    limits: Limits,
    accept: Accept,
    connections: Arc<ConnectionLimits>,
    balancers: Option<Balancers>,
    drain: Option<Arc<Drain>>,
    refusals: Arc<dyn Refusals>,
    tunnel: Option<Arc<dyn Tunnel>>,
}

impl<A> Listener<A> {
    /// In front of `app`. Without a `drain` its clients are served until the process ends.
    pub fn new(
        app: Arc<A>,
        limits: Limits,
        drain: Option<Arc<Drain>>,
        refusals: Arc<dyn Refusals>,
    ) -> Self {
        let accept = Accept::new(None);
        let (connections, balancers) = (Arc::default(), None);
        Self { app, limits, accept, connections, balancers, drain, refusals, tunnel: None }
    }

    /// The same behind load balancers that begin each connection with a PROXY protocol header.
    #[must_use]
    pub fn behind(self, is_one: IsBalancer) -> Self {
        Self { balancers: Some(Balancers::new(is_one)), ..self }
    }

    /// The same for a listener that serves TLS.
    #[must_use]
    pub fn with_tls(self, tls: Acceptor) -> Self {
        Self { accept: Accept::new(Some(tls)), ..self }
    }

    /// The same for a forward proxy: its requests are for tunnels and URLs, not for paths.
    #[must_use]
    pub fn with_tunnel(self, tunnel: Arc<dyn Tunnel>) -> Self {
        Self { tunnel: Some(tunnel), ..self }
    }

    fn form(&self) -> Form {
        if self.tunnel.is_some() { Form::Proxy } else { Form::Origin }
    }

    fn place(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        let limits = &self.limits;
        self.connections.take(peer, limits.connections_max, limits.connections_per_client_max)
    }

    /// Reads until the next head is complete: returns where it ends, and the framing of its body. `None` if
    /// the client has disconnected or is idle.
    async fn head(
        &self,
        connection: &mut WrappedStream<Pipelining>,
        first: bool,
        shutdown: &ShutdownWatch,
    ) -> Result<Option<(usize, Body)>, HeadRefusal> {
        // On a new connection the head's timeout covers the first byte too.
        let patience = if first { self.limits.head_timeout } else { self.limits.keepalive_timeout };
        let mut empty_lines = EMPTY_LINES_MAX;
        loop {
            // A client that sends only an empty line is still idle.
            if first && proxy_protocol::begins(&connection.reading.ahead) {
                return Err(HeadRefusal::Malformed(match self.balancers {
                    Some(_) => "a second PROXY protocol header",
                    None => proxy_protocol::UNEXPECTED,
                }));
            }
            connection.skip_empty_lines(&mut empty_lines);
            if !connection.reading.ahead.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = self.leaving(shutdown), if !first => return Ok(None),
                read = timeout(patience, connection.more()) => match read {
                    Ok(Ok(1..)) => {}
                    Err(_) if first => return Err(HeadRefusal::Timeout),
                    _ => return Ok(None),
                },
            }
        }
        let deadline = Instant::now() + self.limits.head_timeout;
        let mut looked_at = 0;
        loop {
            if connection.skip_empty_lines(&mut empty_lines) {
                looked_at = 0;
            }
            let came = &connection.reading.ahead;
            if let Some(end) = request_head::end(came, looked_at)? {
                if end > self.limits.head_max {
                    return Err(HeadRefusal::TooLarge);
                }
                let body = request_head::check(&came[..end], self.limits.headers_max, self.form())?;
                let end = match authority::settled(&came[..end], self.form())? {
                    Some(head) => connection.replace_head(end, &head),
                    None => end,
                };
                return Ok(Some((end, body)));
            }
            if came.len() > self.limits.head_max {
                return Err(HeadRefusal::TooLarge);
            }
            looked_at = came.len();
            match timeout_at(deadline, connection.more()).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Ok(None),
                Err(_) => return Err(HeadRefusal::Timeout),
            }
        }
    }

    /// Waits until connections should close.
    async fn leaving(&self, shutdown: &ShutdownWatch) {
        let Some(drain) = &self.drain else { return std::future::pending().await };
        if *shutdown.borrow() {
            return;
        }
        let mut shutdown = shutdown.clone();
        tokio::select! {
            () = drain.closing() => {}
            _ = shutdown.changed() => {}
        }
    }

    /// Whether a response is the last on its connection.
    fn is_last(&self, shutdown: &ShutdownWatch) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.is_leaving() || *shutdown.borrow())
    }

    async fn refuse(&self, mut stream: Stream, refusal: HeadRefusal, peer: IpAddr, head: &[u8]) {
        // A client that sent nothing gets no response.
        let answered = refusal != HeadRefusal::Timeout || !head.is_empty();
        let id = self.refusals.refused(refusal, peer, head, answered);
        if !answered {
            return;
        }
        let cors = self.refusals.cors();
        let answer = refusal::answer(refusal, &id, head, self.form(), cors.as_deref());
        let write = async {
            stream.write_all(&answer).await?;
            linger(stream, Duration::from_secs(1)).await;
            std::io::Result::Ok(())
        };
        let _ = timeout(Duration::from_secs(2), write).await;
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Listener<A> {
    /// Serves the streams of a connection until it closes.
    async fn http2(&self, stream: Stream, peer: IpAddr, shutdown: &ShutdownWatch) {
        let refusing = RefusalContext::new(&self.refusals, peer, self.form());
        let Some(drain) = &self.drain else {
            return http2::serve(&self.app, stream, &refusing, shutdown).await;
        };
        let _multiplexed = drain.multiplexed();
        if !drain.is_closing() {
            return goaway::serve(&self.app, stream, &refusing, self.leaving(shutdown)).await;
        }
        let late = Arc::new(LateConnection::new(&self.app));
        let mut shutdown = shutdown.clone();
        let told = async {
            tokio::select! {
                () = late.asked() => {}
                () = drain.ending() => {}
                _ = shutdown.changed() => {}
            }
        };
        goaway::serve(&late, stream, &refusing, told).await;
    }

    /// Serves one request after the other; returns the tunnel that one of them requested.
    async fn http1(
        &self,
        stream: Stream,
        peer: IpAddr,
        shutdown: &ShutdownWatch,
    ) -> Option<ConnectRequest> {
        let mut persistent: Option<HttpPersistentSettings> = None;
        let unread = UnreadRequest::default();
        let reading = Pipelining::new(unread.clone());
        let mut connection = Box::new(WrappedStream { inner: stream, reading });
        for request in 0..self.limits.keepalive_requests_max {
            let read = match self.head(&mut connection, request == 0, shutdown).await {
                Ok(Some((end, Body::Tunnel))) => {
                    let (stream, mut ahead) = connection.into_parts();
                    let head = Head::new(ahead.split_to(end));
                    return Some(ConnectRequest { stream, head, ahead, peer });
                }
                Ok(read) => {
                    let (end, body) = read?;
                    connection.begin(end, body)
                }
                Err(refusal) => Err(refusal),
            };
            let begun = match read {
                Ok(begun) => begun,
                Err(refusal) => {
                    let (stream, ahead) = connection.into_parts();
                    self.refuse(stream, refusal, peer, &ahead).await;
                    return None;
                }
            };
            let last = self.is_last(shutdown) || request + 1 == self.limits.keepalive_requests_max;
            let mut session = ServerSession::new_http1(connection);
            if let Some(persistent) = persistent.take() {
                persistent.apply_to_session(&mut session);
            }
            // Pingora parses the head again and then follows the client's `Connection`; but it closes a
            // connection that must not be reused, and says so in the response.
            session.set_keepalive_reuses_remaining(last.then_some(0));
            session.set_pipelined_prefix(begun);
            session.set_total_drain_timeout(Some(DRAIN));
            // The rest of a request that got an early response is not another request.
            let reused = match self.app.process_new_http(session, shutdown).await {
                Some(reused) => reused,
                None => {
                    unread.end().await;
                    return None;
                }
            };
            let (back, settings) = reused.consume();
            connection = back.into_any().downcast().ok()?;
            if !connection.is_at_end() {
                drop(connection);
                unread.end().await;
                return None;
            }
            persistent = settings;
        }
        None
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Listener<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let deadline = Instant::now() + self.limits.head_timeout;
        let peer = stream
            .get_socket_digest()
            .and_then(|digest| digest.peer_addr().and_then(|addr| addr.as_inet().copied()))
            .map_or(IpAddr::from([0, 0, 0, 0]), |addr: SocketAddr| addr.ip());
        let (mut stream, mut peer) = (stream, peer);
        if let Some(balancers) = &self.balancers {
            match balancers.client(&mut stream, peer, &self.limits, deadline).await {
                Ok(client) => peer = client,
                Err(NotAccepted::Refused(refusal)) => {
                    if self.accept.is_secure() {
                        self.refusals.refused(refusal, peer, b"", false);
                    } else {
                        self.refuse(stream, refusal, peer, b"").await;
                    }
                    return None;
                }
                Err(NotAccepted::Closed) => return None,
            }
        }
        let place = self.place(peer);
        // A refused connection gets a response, and for that must be read.
        let stream = match self.accept.serve(stream, peer, &self.limits, deadline).await {
            Ok(stream) => stream,
            Err(NotAccepted::Refused(refusal)) => {
                self.refusals.refused(refusal, peer, b"", false);
                return None;
            }
            Err(NotAccepted::Closed) => return None,
        };
        let is_http2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
        let Some(place) = place else {
            if is_http2 {
                self.refusals.refused(HeadRefusal::ConnectionsExhausted, peer, b"", false);
            } else {
                self.refuse(stream, HeadRefusal::ConnectionsExhausted, peer, b"").await;
            }
            return None;
        };
        if is_http2 {
            let late = Arc::new(AtomicBool::new(false));
            let reading = PrefaceDeadline::new(self.limits.head_timeout, Arc::clone(&late));
            self.http2(Box::new(WrappedStream { inner: stream, reading }), peer, shutdown).await;
            if late.load(Ordering::Relaxed) {
                self.refusals.refused(HeadRefusal::Timeout, peer, b"", false);
            }
        } else {
            let asked = self.http1(stream, peer, shutdown).await?;
            let tunnel =
                Arc::clone(self.tunnel.as_ref().expect("only a forward proxy has tunnels"));
            let shutdown = shutdown.clone();
            // In its own task: that of a connection is large, because it can hold any request, and a tunnel
            // is mostly idle.
            tokio::spawn(async move {
                let _place = place;
                tunnel.tunnel(asked, &shutdown).await;
            });
        }
        None
    }

    async fn cleanup(&self) {
        self.app.http_cleanup().await;
    }
}
