//! Whether the upstream is asked again.

use std::time::Duration;

use filters::{
    Now,
    breaker::{self, Outcome},
    retry::{self, Attempts},
};
use http::{HeaderMap, header};
use pingora::{Error, ErrorSource, ErrorType, http::ResponseHeader, proxy::Session};

use super::{Ctx, Reverse};
use crate::clock;

impl Reverse {
    /// After an attempt that failed: whether there is another, and then after which wait.
    pub(super) fn again(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        retry_after: Option<Duration>,
    ) -> bool {
        if !self.is_safe(session, ctx) {
            return false;
        }
        let route = ctx.exchange.route.as_ref().expect("an admitted request has a route");
        let (rules, whole, now) = (route.retries, route.timeouts.whole, clock::now());
        let began = Now { elapsed: ctx.waits_since(), ..ctx.began };
        let attempts = Attempts { made: ctx.attempts, began, retry_after, jitter: fastrand::f64() };
        let Some(wait) = attempts.wait(rules, whole, now) else { return false };
        self.report(ctx, Some(Outcome::Failure), now);
        if !filters::reverse::dispatch_again(&self.stage.state, &mut ctx.exchange, now) {
            return false;
        }
        self.stage.metrics.asked_again(&ctx.upstream());
        ctx.wait = Some(wait.max(ctx.exchange.turn));
        true
    }

    /// Whether an answer is thrown away for another attempt.
    pub(super) fn answer_again(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut Ctx,
    ) -> bool {
        let Some(route) = &ctx.exchange.route else { return false };
        let (status, headers) = (response.status.as_u16(), &response.headers);
        retry::is_passing(status)
            && breaker::failed(status, headers, &route.breaker_rules)
            && self.again(session, ctx, retry_after(headers))
    }

    /// Whether an error of a connection that stood is one before the answer, which another may bring.
    pub(super) fn broke_again(&self, session: &Session, error: &Error, ctx: &mut Ctx) -> bool {
        let broke = matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        );
        broke
            && *error.esource() == ErrorSource::Upstream
            && session.as_ref().response_written().is_none()
            && self.again(session, ctx, None)
    }

    pub(super) fn is_safe(&self, session: &Session, ctx: &Ctx) -> bool {
        let route = ctx.exchange.route.as_ref();
        let method = &session.req_header().method;
        !ctx.upgrade
            && !ctx.grpc
            && !session.as_ref().retry_buffer_truncated()
            && route.is_some_and(|route| {
                let class = ctx.exchange.class.unwrap_or(route.class);
                retry::is_safe(class, &route.options, method)
            })
    }
}

/// In seconds (RFC 9110 10.2.3); a date is not looked at.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
