//! Pingora's phases of a reverse exchange, each one call into `filters`. Nothing is decided here
//! that `filters::decide` did not.

mod admit;
mod ctx;
mod record;
mod redaction;
mod request_edit;
mod response_edit;
mod response_head;
mod retry;
mod sent;
mod stale_fallback;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use filters::{
    Denial,
    breaker::Outcome,
    health::Fault,
    progress::{ClientRules, Kind},
    reverse::Judged,
    streams,
};
use http::{HeaderMap, Version};
use pingora::{
    Error, ErrorSource, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    proxy::{FailToProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};

pub use self::ctx::Ctx;
use self::{
    admit::Admission,
    sent::{Sent, unsent},
};
use crate::{
    clock,
    data_plane::{
        denial_response, detached, error_mapping,
        gateway::Gateway,
        hop_by_hop,
        request::{caused_by, has_large_body},
        shared_address::SharedAddresses,
    },
    net::parent,
    progress,
    request_id::RequestId,
    upstream::{Attempt, Unreachable, upgrade},
};

/// One reverse listener.
pub struct Reverse {
    /// What every request needs.
    pub gateway: Arc<Gateway>,
    /// Its number in the config.
    pub listener: usize,
    /// Whether it serves TLS.
    pub tls: bool,
    /// How long a client may send nothing within a request body.
    pub body_timeout: Duration,
    /// How long one write to a client may block.
    pub write_timeout: Duration,
    /// Client addresses that many users may share, to say so once if they are rate limited.
    pub shared_addresses: SharedAddresses,
    /// Bytes a second of a body, to or from a client.
    pub rate_min: u64,
}

/// An error of ours: the denial is in the context.
const DENIED: ErrorType = ErrorType::Custom("denied");
/// An error of ours: the response is discarded, for a retry or for a stale response.
const ASIDE: ErrorType = ErrorType::Custom("response discarded");

/// Whether a denial is about what is left of the bodies, once the response has begun.
fn is_of_body(denial: &Denial) -> bool {
    denial.is_upstream_failure()
        || matches!(denial, Denial::BodyTimeout | Denial::BodySlow { .. } | Denial::BodyMalformed)
}

#[async_trait]
impl ProxyHttp for Reverse {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(&self.gateway)
    }

    /// None is used, and the default module costs instructions on each request.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let Self { body_timeout, write_timeout, rate_min, .. } = *self;
        progress::begin(ClientRules { body_timeout, write_timeout, rate_min });
        let downstream = session.as_downstream_mut();
        downstream.set_read_timeout(Some(self.body_timeout));
        downstream.set_write_timeout(Some(self.write_timeout));
        // The unread rest of a body must not be parsed as the next request.
        downstream.set_close_on_response_before_downstream_finish(true);
        if downstream.is_body_empty() {
            progress::request_ended();
        }
        if downstream.req_header().version == Version::HTTP_10 {
            // HTTP/1.0 has no interim responses (RFC 9110 15.2).
            downstream.set_ignore_info_resp(true);
        }
        upgrade::note_offer(downstream.req_header_mut());
        hop_by_hop::end(session.req_header_mut(), |name| {
            ctx.recorder.snapshot.policy.headers.is_reserved(name)
        });
        ctx.recorder.request_id = RequestId::of(session.req_header());
        self.receive(session, ctx);
        match self.admit(session, ctx).await {
            Ok(Admission::Sent) => {
                self.note_kind(session, ctx);
                if (ctx.kind.upgrade || ctx.kind.stream)
                    && let Err(denial) = self.register(ctx)
                {
                    self.refuse(session, ctx, denial).await?;
                    return Ok(true);
                }
                if ctx.is_action() && !(ctx.kind.upgrade || ctx.kind.stream) {
                    detached::begin();
                }
                // `progress` watches the response from here on.
                session.as_downstream_mut().set_write_timeout(None);
                Ok(false)
            }
            Ok(Admission::UpgradeAnswered(answer)) => {
                if let Err(denial) = self.before_response(ctx).await {
                    self.refuse(session, ctx, denial).await?;
                    return Ok(true);
                }
                ctx.recorder.ended.status = 200;
                denial_response::write_json(
                    session,
                    answer.body.expose(),
                    &ctx.recorder.request_id,
                )
                .await?;
                Ok(true)
            }
            Ok(Admission::Shared(shared, how)) => {
                if let Err(denial) = self.before_response(ctx).await {
                    self.refuse(session, ctx, denial).await?;
                    return Ok(true);
                }
                ctx.recorder.ended.status = shared.status.as_u16();
                let cors = ctx.recorder.snapshot.policy.listeners[self.listener].cors.as_deref();
                denial_response::write_shared(
                    session,
                    &ctx.recorder.exchange,
                    (&shared, how),
                    &ctx.recorder.request_id,
                    cors,
                )
                .await?;
                Ok(true)
            }
            Err(denial) => {
                match self.stale_response(session, ctx, &denial) {
                    Some(kept) => self.serve_stale(session, ctx, &kept).await?,
                    None => self.refuse(session, ctx, denial).await?,
                }
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        // The last attempt is over.
        ctx.attempts.tried.attempt = None;
        progress::retries();
        if let Some(wait) = ctx.attempts.wait.take() {
            tokio::time::sleep(wait).await;
        }
        if ctx.is_late() {
            return Err(ctx.late());
        }
        let sent = ctx.sent.as_ref().ok_or_else(unsent)?;
        let route = Arc::clone(&sent.request.route);
        let attempt = Attempt {
            timeouts: route.timeouts,
            upgrade: ctx.kind.upgrade.then(|| ctx.kind.answered.clone()),
            stream: ctx.kind.stream,
            grpc: ctx.kind.grpc,
            upload: has_large_body(session),
        };
        ctx.recorder.ended.attempts += 1;
        // If nothing else goes wrong, its status decides.
        ctx.attempts.fault = Fault::Status;
        let lookup = self.gateway.lookup(&ctx.recorder.snapshot);
        match sent.upstream.peer(&sent.request, &attempt, &mut ctx.attempts.tried, &lookup).await {
            Ok(peer) => {
                ctx.attempts.asked_at = Some(clock::elapsed());
                ctx.recorder.ended.upstream_address = peer._address.as_inet().copied();
                Ok(peer)
            }
            Err(Unreachable::Unresolved(error)) => {
                tracing::warn!(upstream = %route.upstream, %error);
                ctx.attempts.outcome = Some(Outcome::Failure);
                Err(ctx.deny(Denial::UpstreamUnreachable { upstream: route.upstream.clone() }))
            }
            Err(Unreachable::Parent(fault)) => {
                tracing::warn!(upstream = %route.upstream, %fault);
                Err(ctx.deny(fault.denial()))
            }
            // We refuse, so the upstream has not failed.
            Err(Unreachable::Refused(denial)) => {
                tracing::warn!(upstream = %route.upstream, %denial);
                Err(ctx.deny(*denial))
            }
        }
    }

    /// Nothing was sent yet, so any request may be retried at another address.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        ctx.attempts.fault = Fault::Connect;
        // Not the upstream's failure: it does not count for its breaker.
        let parent = error.root_cause().downcast_ref::<parent::Fault>();
        let of_parent =
            parent.is_some_and(|fault| !fault.is_of_target()) || ctx.plain_parent().is_some();
        // It counts for the breaker when no address is left.
        self.judge(ctx, Outcome::Failure, clock::now());
        let others = ctx.sent.as_ref().is_some_and(|sent| {
            (ctx.recorder.ended.attempts as usize) < sent.upstream.pool.len().min(3)
        });
        let at_once = others && !ctx.is_late();
        error.set_retry(at_once || !of_parent && self.retry(session, ctx, None));
        error
    }

    /// If the upstream had closed an idle connection, a read is sent again immediately on a new one.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        if progress::verdict().is_some() {
            // Its time is up, whoever used it.
            ctx.attempts.fault = Fault::Timeout;
            error.set_retry(false);
            return error;
        }
        // A response was discarded for a retry.
        let retry = ctx.attempts.wait.is_some();
        if let Some(fault) = error_mapping::fault_of(&error) {
            ctx.attempts.fault = fault;
        }
        let was_idle =
            client_reused && ctx.recorder.ended.attempts < 3 && self.is_safe(session, ctx);
        if was_idle && !retry {
            error.retry.decide_reuse(true);
        }
        if !(was_idle && error.retry()) {
            error.set_retry(retry || self.retries_broken(session, &error, ctx));
        }
        error
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // Pingora ends a chunked body twice if its last, empty part is forwarded.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        if end_of_stream && !ctx.kind.upgrade {
            progress::request_ended();
        }
        let Some(body) = body else { return Ok(()) };
        ctx.recorder.ended.bytes_in += body.len() as u64;
        if !ctx.kind.upgrade && !ctx.kind.grpc {
            let fits = self.body_limit(ctx).received(ctx.recorder.ended.bytes_in);
            // Marked as the client's error: Pingora would continue after one of the upstream.
            fits.map_err(|denial| ctx.deny(denial).into_down())?;
        }
        if !end_of_stream && !progress::request_part(body.len()) {
            return Err(Error::new(DENIED).into_down());
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        progress::request_sent();
        self.edit_request(session, request, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some(sent) = &ctx.sent {
            sent.upstream.answered_in(response.version);
        }
        self.settle(session, response, ctx)?;
        if self.discards_for_retry(session, response, ctx)
            || self.discards_for_stale(session, response, ctx)
        {
            return Err(Error::new(ASIDE));
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Err(denial) = self.before_response(ctx).await {
            return Err(ctx.deny(denial));
        }
        self.edit_response(session, response, ctx)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if end_of_stream {
            progress::response_ended();
        } else if !progress::response_part(body.as_ref().map_or(0, Bytes::len)) {
            return Err(Error::new(DENIED));
        }
        if ctx.becomes_long_lived() {
            self.register(ctx).map_err(|denial| ctx.deny(denial))?;
        }
        redaction::redact(body, end_of_stream, ctx)?;
        ctx.recorder.ended.bytes_out += body.as_ref().map_or(0, Bytes::len) as u64;
        ctx.capture(body.as_ref(), end_of_stream);
        if let Some(whole) = ctx.keep(body.as_ref(), end_of_stream) {
            self.gateway.fallback.keep(whole);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        let headers = &ctx.recorder.snapshot.policy.headers;
        filters::response::settle_trailers(trailers, |name| headers.is_ours(name));
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        // Taken in any case: until then nothing can be written to the client.
        let stopped = progress::denial(ctx.recorder.upstream());
        if stopped.as_ref().is_some_and(Denial::is_upstream_failure)
            && let Some(sent) = &ctx.sent
        {
            sent.upstream.give_up_connections(ctx.kind.grpc);
        }
        let denial = match ctx.recorder.ended.denial.take().or(stopped) {
            Some(denial) => Some(denial),
            None => {
                let body_done = session.as_downstream_mut().is_body_done();
                self.denial_of(error, ctx, body_done)
            }
        };
        // Once the response is complete, neither side misses the rest of the request body.
        let denial = denial.filter(|denial| !(progress::has_response() && is_of_body(denial)));
        // An interim response does not begin the final one.
        let written = session.as_ref().response_written();
        let begun =
            written.is_some_and(|head| !head.status.is_informational() || head.status == 101);
        let kept = ctx.sharing.fallback.take();
        let kept = kept.or_else(|| self.stale_response(session, ctx, denial.as_ref()?));
        if let Some(kept) = kept.filter(|_| !begun) {
            // A failure that the client does not see is still a failure.
            ctx.attempts.outcome.get_or_insert(Outcome::Failure);
            self.report(ctx, ctx.attempts.outcome, clock::now());
            let given = self.serve_stale(session, ctx, &kept).await.is_ok();
            let error_code = kept.status.as_u16();
            return FailToProxy { error_code, can_reuse_downstream: given };
        }
        let status = denial.as_ref().map_or(0, |denial| denial.status().as_u16());
        if let Some(denial) = denial {
            tracing::debug!(%error, %denial, code = denial.code(), "exchange failed");
            ctx.attempts.excused = ctx.gave_up_on_client(&denial);
            if denial.is_upstream_failure() && !ctx.attempts.excused {
                self.report(ctx, Some(Outcome::Failure), clock::now());
            }
            if !begun {
                ctx.recorder.ended.status = status;
                session.as_downstream_mut().set_keepalive(None);
                let _ = self.write(session, ctx, &denial).await;
            }
            ctx.recorder.ended.denial = Some(denial);
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// The record and the denial's code report it; Pingora's own log line would repeat that.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        if error.is_none() {
            ctx.capture(None, true);
        }
        self.record(session, error, ctx);
    }
}

impl Reverse {
    async fn refuse(&self, session: &mut Session, ctx: &mut Ctx, denial: Denial) -> Result<()> {
        ctx.recorder.ended.status = denial.status().as_u16();
        // Do not wait for a body that nobody will read.
        let unread = !session.as_downstream_mut().is_body_empty();
        if unread {
            session.as_downstream_mut().set_keepalive(None);
        }
        if let Some(body) = &ctx.body.read {
            ctx.recorder.ended.bytes_in = body.len() as u64;
        }
        if let Denial::RateLimited(over) = &denial {
            let forwarded = session.req_header().headers.contains_key("x-forwarded-for");
            let listener = &ctx.recorder.snapshot.policy.listeners[self.listener];
            self.shared_addresses.note(listener, over, forwarded, clock::elapsed());
        }
        ctx.recorder.ended.denial = Some(denial.clone());
        self.write(session, ctx, &denial).await
    }

    async fn write(&self, session: &mut Session, ctx: &Ctx, denial: &Denial) -> Result<()> {
        let cors = ctx.recorder.snapshot.policy.listeners[self.listener].cors.as_deref();
        denial_response::write(
            session,
            &ctx.recorder.exchange,
            denial,
            &ctx.recorder.request_id,
            cors,
        )
        .await
    }

    /// Notes what kind of exchange it is, as far as the request head says.
    fn note_kind(&self, session: &mut Session, ctx: &mut Ctx) {
        let request = session.req_header();
        // Offers of other protocols than WebSocket were removed.
        ctx.kind.upgrade = session.as_ref().is_upgrade_req();
        ctx.kind.grpc = streams::is_grpc(&request.headers);
        let Some(Sent { request: Judged { route, .. }, .. }) = &ctx.sent else { return };
        let query = request.raw_path().iter().position(|b| *b == b'?');
        let query = query.map(|mark| &request.raw_path()[mark + 1..]);
        let asked = streams::asked(&route.options, &request.headers, query);
        ctx.kind.stream = asked != Kind::Plain;
        let kind = if ctx.kind.upgrade { Kind::Both } else { asked };
        progress::admitted(route.timeouts, kind);
        if kind == Kind::Both {
            let idle = route.timeouts.stream_idle;
            session.as_downstream_mut().set_read_timeout(Some(idle));
        }
    }

    /// The denial that an error of Pingora's means. `None` if the client disconnected.
    fn denial_of(&self, error: &Error, ctx: &Ctx, body_done: bool) -> Option<Denial> {
        use ErrorType as E;
        let upstream = ctx.recorder.upstream();
        if error.esource() == &ErrorSource::Downstream {
            return error_mapping::denial_of(error, upstream);
        }
        let denial = match error.etype() {
            // Our own connection type for upgrades reports a timeout as a read error.
            E::ReadError
                if ctx.kind.upgrade
                    && !ctx.kind.answered.is_noted()
                    && caused_by(error, std::io::ErrorKind::TimedOut) =>
            {
                Some(Denial::UpstreamTimeout { upstream })
            }
            // The upstream waits for a client that stopped sending: not the upstream's failure.
            E::ReadTimedout if !body_done && !ctx.kind.upgrade => Some(Denial::BodyTimeout),
            _ => error_mapping::denial_of(error, upstream),
        };
        match ctx.plain_parent() {
            Some(parent) => denial.map(|denial| parent.instead_of(denial)),
            None => denial,
        }
    }
}
