//! Pingora's phases of a reverse exchange, each one call into `filters`. Nothing is decided here
//! that `filters::decide` did not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use filters::{
    Denial, Exchange, Now,
    breaker::{self, Outcome},
    headers::{Edits, forwarded_for},
};
use http::{HeaderName, HeaderValue, Method, Version, header};
use pingora::{
    Error, ErrorSource, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    proxy::{FailToProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};

use crate::{
    answer, clock,
    credentials::Shown,
    failure,
    front::UnderWay,
    heads,
    live::{Live, Stage},
    metrics::Counted,
    request::{RequestId, X_REQUEST_ID, caused_by, control_id, facts_of, head, is_json, trace_id},
    upgrade::Answered,
    upstreams::Attempt,
};

/// One reverse listener.
pub struct Reverse {
    /// What every request needs.
    pub stage: Arc<Stage>,
    /// Its number in the config.
    pub listener: usize,
    /// Whether it serves TLS.
    pub tls: bool,
    /// Silence of a client within a request body.
    pub body_timeout: Duration,
    /// How long one write to a client may stand still.
    pub write_timeout: Duration,
}

/// One exchange, from Pingora's side.
pub struct Ctx {
    live: Arc<Live>,
    exchange: Exchange,
    began: Now,
    request_id: RequestId,
    denial: Option<Denial>,
    edits: Edits,
    /// What the upstream is shown.
    shown: Option<Shown>,
    attempts: u32,
    upstream_asked: Option<Duration>,
    upstream_took: Option<Duration>,
    upstream_address: Option<SocketAddr>,
    outcome: Option<Outcome>,
    status: u16,
    stream: bool,
    upgrade: bool,
    /// Whether an upgrade was answered.
    answered: Answered,
    grpc: bool,
    bytes_in: u64,
    /// The answer so far, where it must be read whole to be redacted.
    redacting: Option<BytesMut>,
    control_id: Option<String>,
    _under_way: UnderWay,
}

/// Answers larger than this are not redacted, so they do not leave.
const REDACTED_BYTES_MAX: usize = 8 << 20;

/// A plugin's token may lack the plugin's keys, the user's, and the user's groups.
const LACKS_MAX: usize = 3;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// An error that says "the denial is in the context".
const DENIED: ErrorType = ErrorType::Custom("denied");

impl Ctx {
    fn deny(&mut self, denial: Denial) -> Box<Error> {
        self.denial = Some(denial);
        Error::new(DENIED)
    }

    fn is_late(&self) -> bool {
        let whole = self.exchange.route.as_ref().map(|route| route.timeouts.whole);
        !self.stream
            && !self.upgrade
            && whole.is_some_and(|whole| clock::elapsed() > self.began.elapsed + whole)
    }

    fn upstream(&self) -> filters::Label {
        let route = self.exchange.route.as_ref();
        route.map_or_else(|| filters::Label::lossy("?"), |route| route.upstream.clone())
    }

    fn late(&mut self) -> Box<Error> {
        self.outcome = Some(Outcome::Failure);
        let upstream = self.upstream();
        self.deny(Denial::WholeTimeout { upstream })
    }
}

#[async_trait]
impl ProxyHttp for Reverse {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx {
            live: self.stage.live.load_full(),
            exchange: Exchange::default(),
            began: clock::now(),
            request_id: RequestId::UNKNOWN,
            denial: None,
            edits: Edits::default(),
            shown: None,
            attempts: 0,
            upstream_asked: None,
            upstream_took: None,
            upstream_address: None,
            outcome: None,
            status: 0,
            stream: false,
            upgrade: false,
            answered: Answered::default(),
            grpc: false,
            bytes_in: 0,
            redacting: None,
            control_id: None,
            _under_way: self.stage.drain.exchange(),
        }
    }

    /// No module is used, and the default one costs each request.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let downstream = session.as_downstream_mut();
        downstream.set_read_timeout(Some(self.body_timeout));
        downstream.set_write_timeout(Some(self.write_timeout));
        ctx.request_id = RequestId::of(session.req_header());
        let mut decided = self.decide(session, ctx);
        for _ in 0..LACKS_MAX {
            let Some(lack) = decided.as_ref().err().and_then(|_| ctx.exchange.lack.take()) else {
                break;
            };
            if !self.stage.fetcher.fetch(&ctx.live.loaded.config, &lack).await {
                break;
            }
            decided = self.decide(session, ctx);
        }
        let too_large = || {
            let max = self.body_max(ctx);
            let length = session.req_header().headers.get(header::CONTENT_LENGTH)?;
            let length: u64 = length.to_str().ok()?.parse().ok()?;
            (length > max).then_some(Denial::BodyTooLarge { bytes_max: max })
        };
        let decided = decided.and_then(|edits| too_large().map_or(Ok(edits), Err));
        let decided = match decided {
            Ok(edits) => fetch_credential(ctx).await.map(|()| edits),
            Err(denial) => Err(denial),
        };
        match decided {
            Ok(edits) => {
                ctx.edits = edits;
                self.note_kind(session, ctx);
                Ok(false)
            }
            Err(denial) => {
                self.refuse(session, ctx, denial).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        if ctx.is_late() {
            return Err(ctx.late());
        }
        let route =
            Arc::clone(ctx.exchange.route.as_ref().expect("an admitted request has a route"));
        let live = Arc::clone(&ctx.live);
        let upstream = live.upstreams.get(&route.upstream).expect("a policy names known upstreams");
        let attempt = Attempt {
            timeouts: route.timeouts,
            upgrade: ctx.upgrade.then(|| ctx.answered.clone()),
            stream: ctx.stream,
            grpc: ctx.grpc,
            nth: ctx.attempts as usize,
        };
        ctx.attempts += 1;
        match upstream.peer(&attempt, &self.stage.dial).await {
            Ok(peer) => {
                ctx.upstream_asked = Some(clock::elapsed());
                ctx.upstream_address = peer._address.as_inet().copied();
                Ok(peer)
            }
            Err(error) => {
                tracing::warn!(upstream = %route.upstream, %error);
                ctx.outcome = Some(Outcome::Failure);
                Err(ctx.deny(Denial::UpstreamUnreachable { upstream: route.upstream.clone() }))
            }
        }
    }

    /// Nothing was sent yet: another address of the upstream may be asked, whatever the request.
    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let upstream = ctx.live.upstreams.get(&ctx.upstream());
        let others =
            upstream.is_some_and(|upstream| (ctx.attempts as usize) < upstream.len().min(3));
        error.set_retry(others && !ctx.is_late());
        error
    }

    /// A connection that the upstream had closed while it was idle may be replaced for a read.
    /// Nothing else is tried again: what an action did before it broke is not known.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        let is_read = ctx.exchange.route.as_ref().is_some_and(|r| r.class == config::Class::Read);
        let safe =
            matches!(session.req_header().method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_read
            && safe
            && !ctx.upgrade
            && ctx.attempts < 3
            && !session.as_ref().retry_buffer_truncated()
        {
            error.retry.decide_reuse(client_reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let policy = &ctx.live.policy;
        let came = session.req_header();
        let head = head(self.listener, self.tls, session, came, None);
        let trusted = &policy.listeners[self.listener].trusted_proxies;
        let believed = trusted.iter().any(|net| net.contains(&head.peer.to_canonical()));
        let proto = came.headers.get(X_FORWARDED_PROTO).filter(|_| believed);
        let https = HeaderValue::from_static(if self.tls { "https" } else { "http" });
        let host = head.host.and_then(|host| HeaderValue::from_bytes(host).ok());
        let upstream = ctx.live.upstreams.get(&ctx.upstream());
        let upstream = upstream.expect("a policy names known upstreams");
        let route = ctx.exchange.route.as_ref().expect("an admitted request has a route");
        heads::edit_request(request, |parts| {
            let headers = &mut parts.headers;
            headers.reserve(12);
            for name in policy.headers.strip(headers) {
                headers.remove(&name);
            }
            for (name, value) in &ctx.edits.set {
                headers.insert(name.clone(), value.clone());
            }
            headers.insert(X_FORWARDED_FOR, forwarded_for(&head, trusted));
            headers.insert(X_FORWARDED_PROTO, proto.cloned().unwrap_or(https));
            if let Some(host) = &host {
                headers.insert(X_FORWARDED_HOST, host.clone());
            }
            headers.insert(X_REQUEST_ID, ctx.request_id.header());
            let kept = host.filter(|_| upstream.written.preserve_host);
            headers.insert(header::HOST, kept.unwrap_or_else(|| upstream.host.clone()));
            if !route.options.redact.is_empty() {
                // What must be read must not be compressed, nor come in parts.
                headers.remove(header::ACCEPT_ENCODING);
                headers.remove(header::RANGE);
            }
            if ctx.grpc {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            if let Some(target) = &ctx.edits.target {
                parts.uri = target.parse().map_err(|_| Error::new(DENIED))?;
            }
            // Last: nothing may say anything beside it.
            if let Some(credential) = &ctx.exchange.credential {
                let shown = ctx.shown.as_ref().expect("request_filter fetched it");
                credential.show(&mut parts.headers, shown.value());
            }
            Ok(())
        })
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // Pingora ends a chunked body twice if its last, empty part is handed on.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        let Some(body) = body else { return Ok(()) };
        ctx.bytes_in += body.len() as u64;
        let max = self.body_max(ctx);
        if ctx.bytes_in > max && !ctx.upgrade && !ctx.grpc {
            return Err(ctx.deny(Denial::BodyTooLarge { bytes_max: max }));
        }
        if ctx.is_late() {
            return Err(ctx.late());
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let Some(route) = ctx.exchange.route.clone() else { return Ok(()) };
        let now = clock::now();
        ctx.upstream_took = ctx.upstream_asked.map(|asked| now.elapsed - asked);
        let status = response.status.as_u16();
        if status < 200 && status != 101 {
            return Ok(());
        }
        ctx.status = status;
        ctx.answered.note();
        let content_type = response.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let failed = breaker::is_failure(status, content_type, &route.breaker_rules);
        ctx.outcome = Some(if failed { Outcome::Failure } else { Outcome::Success });
        if status == 401
            && let Some(shown) = &ctx.shown
        {
            shown.refused();
        }
        let is_json = content_type.is_some_and(is_json);
        ctx.stream |= content_type.is_some_and(|kind| kind.starts_with("text/event-stream"));
        let redacted = !route.options.redact.is_empty() && is_json && status != 101;
        if redacted {
            if response.headers.contains_key(header::CONTENT_ENCODING) {
                return Err(
                    ctx.deny(Denial::RedactionImpossible { upstream: route.upstream.clone() })
                );
            }
            let length = response.headers.get(header::CONTENT_LENGTH);
            let length: usize = length.and_then(|l| l.to_str().ok()?.parse().ok()).unwrap_or(0);
            ctx.redacting = Some(BytesMut::with_capacity(length.min(REDACTED_BYTES_MAX)));
        }
        heads::edit_response(response, |parts| {
            let headers = &mut parts.headers;
            headers.reserve(8);
            if status == 429 && !headers.contains_key(header::RETRY_AFTER) {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            // Pingora speaks of its own connection; the upstream's is none of the client's.
            headers.remove(KEEP_ALIVE);
            if route.delivery {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.remove(header::ETAG);
                headers.remove(header::EXPIRES);
                headers.remove(header::AGE);
            }
            if redacted {
                headers.remove(header::CONTENT_LENGTH);
                headers.remove(header::TRAILER);
                if parts.version != Version::HTTP_2 {
                    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
            }
            headers.insert(X_REQUEST_ID, ctx.request_id.header());
            answer::limits(headers, ctx.exchange.standing.as_ref(), None);
        });
        if self.stage.drain.is_draining() && !ctx.upgrade {
            session.as_downstream_mut().set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if ctx.is_late() {
            return Err(ctx.late());
        }
        let Some(whole) = &mut ctx.redacting else { return Ok(None) };
        if let Some(part) = body.take() {
            whole.extend_from_slice(&part);
        }
        let fits = whole.len() <= REDACTED_BYTES_MAX;
        if fits && !end_of_stream {
            return Ok(None);
        }
        let whole = ctx.redacting.take().unwrap_or_default().freeze();
        let route = ctx.exchange.route.clone().expect("an admitted request has a route");
        // A HEAD has no body, and neither have some answers.
        let redacted = if whole.is_empty() {
            Ok(whole)
        } else {
            match filters::redact::redact(&whole, &route.options.redact) {
                Ok(std::borrow::Cow::Borrowed(_)) => Ok(whole.clone()),
                Ok(std::borrow::Cow::Owned(kept)) => Ok(kept.into()),
                Err(_) => Err(()),
            }
        };
        match redacted {
            Ok(kept) if fits => {
                if route.class == config::Class::Action {
                    ctx.control_id = control_id(&kept);
                }
                *body = Some(kept);
                Ok(None)
            }
            _ => Err(ctx.deny(Denial::RedactionImpossible { upstream: route.upstream.clone() })),
        }
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let denial = match ctx.denial.take() {
            Some(denial) => Some(denial),
            None => {
                let body_done = session.as_downstream_mut().is_body_done();
                self.denial_of(error, ctx, body_done)
            }
        };
        let begun = session.as_ref().response_written().is_some();
        let status = denial.as_ref().map_or(0, |denial| denial.status().as_u16());
        if let Some(denial) = denial {
            tracing::debug!(%error, code = denial.code(), "exchange failed");
            if !begun {
                ctx.status = status;
                session.as_downstream_mut().set_keepalive(None);
                let _ = answer::write(session, &ctx.exchange, &denial, &ctx.request_id).await;
            }
            ctx.denial = Some(denial);
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// The record and the denial's code say it; Pingora's own line would say it once more.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        let now = clock::now();
        let outcome = match (&ctx.denial, ctx.outcome) {
            (Some(denial), _) if denial.is_upstream_failure() => Some(Outcome::Failure),
            (_, outcome) => outcome,
        };
        let moved = filters::reverse::report(&mut ctx.exchange, outcome, now);
        if let Some(moved) = moved {
            let plugin = moved.key.plugin.as_deref().unwrap_or_default();
            tracing::warn!(upstream = %moved.key.upstream, plugin, position = ?moved.to, "breaker moved");
        }
        let status = session.as_ref().response_written().map_or(ctx.status, |r| r.status.as_u16());
        let took = now.elapsed.saturating_sub(ctx.began.elapsed);
        let method = session.req_header().method.as_str();
        let counted = Counted {
            status,
            code: ctx.denial.as_ref().map(Denial::code),
            upstream_failed: outcome == Some(Outcome::Failure),
            method,
            took,
            upstream_took: ctx.upstream_took,
        };
        self.stage.metrics.exchange(&ctx.live.counts, &ctx.exchange, &counted);
        let came = session.req_header();
        let head = head(self.listener, self.tls, session, came, None);
        let facts = filters::audit::Facts {
            began: ctx.began,
            request_id: ctx.request_id.as_str(),
            trace_id: trace_id(came),
            listener: &ctx.live.policy.listeners[self.listener].name,
            peer: head.peer,
            method,
            host: head.host,
            raw_path: head.path(),
            status,
            denial: ctx.denial.as_ref(),
            upstream_address: ctx.upstream_address,
            attempts: ctx.attempts,
            bytes_in: ctx.bytes_in,
            bytes_out: session.as_ref().body_bytes_sent() as u64,
            took,
            upstream_took: ctx.upstream_took,
            upgraded: status == 101,
            cut: error.is_some() && ctx.denial.is_none(),
            idempotency_key: came.headers.get("idempotency-key").map(HeaderValue::as_bytes),
            control_id: ctx.control_id.as_deref(),
        };
        self.stage.audit.record(|out| {
            filters::audit::write(out, &ctx.live.policy, &ctx.exchange, &facts);
        });
    }
}

/// Gets what the upstream is to be shown, if anything.
async fn fetch_credential(ctx: &mut Ctx) -> std::result::Result<(), Denial> {
    let (Some(credential), Some(route)) = (&ctx.exchange.credential, &ctx.exchange.route) else {
        return Ok(());
    };
    // The upstream has not been asked: that the exchange takes too long is not its failure.
    let left = (ctx.began.elapsed + route.timeouts.whole).saturating_sub(clock::elapsed());
    let shown = tokio::time::timeout(left, ctx.live.credentials.get(&credential.name)).await;
    let late = |_| Denial::CredentialUnavailable { credential: credential.name.clone() };
    ctx.shown = Some(shown.map_err(late)??);
    Ok(())
}

impl Reverse {
    fn decide(&self, session: &Session, ctx: &mut Ctx) -> std::result::Result<Edits, Denial> {
        ctx.exchange = Exchange::default();
        let certificate = facts_of(session.as_ref().digest()).and_then(|f| f.certificate.as_ref());
        let head = head(self.listener, self.tls, session, session.req_header(), certificate);
        let policy = &ctx.live.policy;
        let admitted =
            filters::decide(policy, &self.stage.state, &head, ctx.began, &mut ctx.exchange)?;
        Ok(admitted.edits)
    }

    async fn refuse(&self, session: &mut Session, ctx: &mut Ctx, denial: Denial) -> Result<()> {
        ctx.status = denial.status().as_u16();
        // A body that nobody will read is not waited for.
        let unread = !session.as_downstream_mut().is_body_empty();
        if unread {
            session.as_downstream_mut().set_keepalive(None);
        }
        ctx.denial = Some(denial.clone());
        answer::write(session, &ctx.exchange, &denial, &ctx.request_id).await
    }

    fn body_max(&self, ctx: &Ctx) -> u64 {
        let own = ctx.exchange.route.as_ref().and_then(|route| route.options.body_max);
        own.map_or(ctx.live.policy.listeners[self.listener].body_max, config::Size::bytes)
    }

    /// What kind of exchange it is, as far as its head says.
    fn note_kind(&self, session: &mut Session, ctx: &mut Ctx) {
        let request = session.req_header();
        let begins = |name: HeaderName, text: &str| {
            request.headers.get(name).is_some_and(|v| v.as_bytes().starts_with(text.as_bytes()))
        };
        // Pingora takes any `Upgrade` for one, but hands on only WebSocket.
        let websocket = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"websocket");
        ctx.upgrade = session.as_ref().is_upgrade_req()
            && request.headers.get(header::UPGRADE).is_some_and(websocket);
        ctx.grpc = begins(header::CONTENT_TYPE, "application/grpc")
            && !begins(header::CONTENT_TYPE, "application/grpc-web");
        ctx.stream = ctx.grpc || begins(header::ACCEPT, "text/event-stream");
        if ctx.upgrade || ctx.grpc {
            let idle = ctx.exchange.route.as_ref().map(|route| route.timeouts.stream_idle);
            session.as_downstream_mut().set_read_timeout(idle);
        }
    }

    /// What an error of Pingora's means. `None` if the client went away: nobody was denied.
    fn denial_of(&self, error: &Error, ctx: &Ctx, body_done: bool) -> Option<Denial> {
        use ErrorType as E;
        let upstream = ctx.upstream();
        if error.esource() == &ErrorSource::Downstream {
            return failure::denial_of(error, upstream);
        }
        match error.etype() {
            // Our own connection for upgrades says so in its own way.
            E::ReadError
                if ctx.upgrade
                    && !ctx.answered.is_noted()
                    && caused_by(error, std::io::ErrorKind::TimedOut) =>
            {
                Some(Denial::UpstreamTimeout { upstream })
            }
            // It waits for a client that stopped sending: no failure of its own.
            E::ReadTimedout if !body_done && !ctx.upgrade => Some(Denial::BodyTimeout),
            _ => failure::denial_of(error, upstream),
        }
    }
}
