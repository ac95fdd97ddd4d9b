//! Retries.

use std::time::Duration;

use filters::{
    Now,
    breaker::{self, Outcome},
    retry::{self, Attempts},
    reverse::Judged,
};
use http::{HeaderMap, header};
use pingora::{Error, ErrorSource, ErrorType, http::ResponseHeader, proxy::Session};

use super::{Ctx, Reverse, sent::Sent};
use crate::clock;

impl Reverse {
    /// After a failed attempt: whether there is another. Notes how long to wait before it.
    pub(super) fn retry(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        retry_after: Option<Duration>,
    ) -> bool {
        if !self.is_safe(session, ctx) {
            return false;
        }
        let Some(sent) = &ctx.sent else { return false };
        let route = &sent.request.route;
        let (rules, total, now) = (route.retries, route.timeouts.total, clock::now());
        let began = Now { elapsed: ctx.deadline(total).since(), ..ctx.recorder.began };
        let attempts = Attempts {
            made: ctx.recorder.ended.attempts,
            began,
            retry_after,
            jitter: fastrand::f64(),
        };
        let Some(wait) = attempts.wait(rules, total, now) else { return false };
        self.report(ctx, Some(Outcome::Failure), now);
        let Some(Sent { request, dispatched, .. }) = &mut ctx.sent else { return false };
        if !dispatched.again(&self.gateway.state, request, now) {
            return false;
        }
        ctx.recorder.ended.served.pacing_delay = dispatched.pacing_delay;
        self.gateway.metrics.retried(&request.route.upstream);
        ctx.attempts.wait = Some(wait.max(dispatched.pacing_delay));
        true
    }

    /// Whether a response is discarded for a retry.
    pub(super) fn discards_for_retry(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut Ctx,
    ) -> bool {
        let Some(Sent { request: Judged { route, .. }, .. }) = &ctx.sent else { return false };
        let (status, headers) = (response.status.as_u16(), &response.headers);
        retry::is_passing(status)
            && breaker::failed(status, headers, &route.breaker_rules)
            && self.retry(session, ctx, retry_after(headers))
    }

    /// Whether an established connection broke before its response, so that a retry may help.
    pub(super) fn retries_broken(&self, session: &Session, error: &Error, ctx: &mut Ctx) -> bool {
        let broke = matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        );
        broke
            && *error.esource() == ErrorSource::Upstream
            && session.as_ref().response_written().is_none()
            && self.retry(session, ctx, None)
    }

    pub(super) fn is_safe(&self, session: &Session, ctx: &Ctx) -> bool {
        let Some(Sent { request, .. }) = &ctx.sent else { return false };
        !ctx.kind.upgrade
            && !ctx.kind.grpc
            && !session.as_ref().retry_buffer_truncated()
            && retry::is_safe(request.class, &request.route.options, &session.req_header().method)
    }
}

/// `Retry-After` in seconds (RFC 9110 10.2.3). Dates are ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
