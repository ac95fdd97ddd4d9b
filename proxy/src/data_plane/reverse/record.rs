//! The end of an exchange: the outcome for the breaker and the address, and the record.

use std::time::Duration;

use filters::{
    Denial, Exchange, Now, Step,
    audit::Received,
    breaker::Outcome,
    deadline,
    denial::TokenFault,
    outcome::{End, by_fault},
    reverse::{Dispatched, Judged},
};
use pingora::{Error, proxy::Session};
use tokio::time::timeout;

use super::{Ctx, Reverse};
use crate::{
    clock,
    data_plane::{
        detached,
        request::{facts_of, head},
    },
    observability::changes,
};

impl Reverse {
    /// Takes what the record needs from the session. From now on there will be a record.
    pub(super) fn receive(&self, session: &Session, ctx: &mut Ctx) {
        let facts = facts_of(session.as_ref().digest());
        let certificate = facts.and_then(|facts| facts.certificate.clone());
        let head = head(self.listener, self.tls, session, session.req_header(), None);
        let policy = &ctx.recorder.snapshot.policy;
        let received = Received::request(policy, &head, certificate, ctx.recorder.began);
        ctx.recorder.receive(received);
    }

    pub(super) fn record(&self, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
        let end = End {
            denial: ctx.recorder.ended.denial.as_ref(),
            response: ctx.attempts.outcome,
            excused: ctx.attempts.excused,
        };
        let outcome = end.outcome();
        self.report(ctx, outcome, clock::now());
        ctx.recorder.upstream_failed = Some(outcome == Some(Outcome::Failure));
        let ended = &mut ctx.recorder.ended;
        // Some readers get another status than the denial's.
        let written = session.as_ref().response_written().filter(|_| ended.denial.is_none());
        ended.status = written.map_or(ended.status, |head| head.status.as_u16());
        ended.bytes_out = session.as_ref().body_bytes_sent() as u64;
        ended.cut = (error.is_some() || detached::is()) && ended.denial.is_none();
        ctx.recorder.finish();
    }

    /// From now on a switch can sever the exchange.
    ///
    /// # Errors
    /// [`Denial::SwitchedOff`] if it was switched off since it was decided about.
    pub(super) fn register(&self, ctx: &mut Ctx) -> Result<(), Denial> {
        let left = left_of_token(&ctx.recorder.exchange);
        ctx.recorder.register(left.map(|left| (left, Denial::Token(TokenFault::Expired))))
    }

    /// Records that the breaker is half-open, if this is its first request.
    pub(super) fn probes(&self, dispatched: &Dispatched) {
        if let Some(moved) = dispatched.moved() {
            changes::breaker_moved(&self.gateway.audit, &moved);
        }
    }

    /// Writes the intent of an action to disk before the request is sent. With `reads: before_response` a
    /// read is handed to the writer here, too, and waited for later.
    pub(super) async fn intend(&self, request: &Judged, ctx: &mut Ctx) -> Result<(), Denial> {
        if request.class != config::Class::Read {
            ctx.recorder.exchange.steps.enter(Step::Audit);
            ctx.durable = Some(ctx.recorder.intend()?);
            return self.on_disk(ctx).await;
        }
        if self.gateway.started.audit.reads == config::Reads::BeforeResponse {
            ctx.durable = Some(ctx.recorder.intend()?);
        }
        Ok(())
    }

    /// Waits until a read is on disk, if the config wants that before its response.
    pub(super) async fn before_response(&self, ctx: &mut Ctx) -> Result<(), Denial> {
        if self.gateway.started.audit.reads == config::Reads::Buffered {
            return Ok(());
        }
        if !ctx.recorder.ended.intended {
            ctx.durable = Some(ctx.recorder.intend()?);
        }
        self.on_disk(ctx).await
    }

    async fn on_disk(&self, ctx: &mut Ctx) -> Result<(), Denial> {
        let Some(durable) = ctx.durable.take() else { return Ok(()) };
        match timeout(ctx.left(), durable).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(Denial::AuditUnavailable),
        }
    }

    /// Reports the outcome to the breaker, and to the address that was tried last, each once.
    pub(super) fn report(&self, ctx: &mut Ctx, outcome: Option<Outcome>, now: Now) {
        if let Some(outcome) = outcome {
            self.judge(ctx, outcome, now);
        }
        // The breaker treats no response and a bad response differently.
        let outcome = outcome.map(|outcome| by_fault(outcome, ctx.attempts.fault));
        if let Some(sent) = &mut ctx.sent {
            sent.report(outcome, now);
        }
    }

    /// Reports the outcome to the address that was tried last, once for each attempt.
    pub(super) fn judge(&self, ctx: &mut Ctx, outcome: Outcome, now: Now) {
        let (Some(attempt), Some(sent)) = (&mut ctx.attempts.tried.attempt, &ctx.sent) else {
            return;
        };
        if outcome == Outcome::Success {
            return attempt.succeeded();
        }
        let upstream = &sent.upstream;
        let rules = &upstream.written.outlier_detection;
        if let Some(change) = upstream.pool.failed(attempt, ctx.attempts.fault, rules, now) {
            changes::address_changed(
                &self.gateway.audit,
                &self.gateway.metrics,
                &upstream.name,
                &change,
            );
        }
        ctx.attempts.tried.failed();
    }
}

/// How long the caller's token is still valid, if a stream ends with it.
fn left_of_token(exchange: &Exchange) -> Option<Duration> {
    let route = exchange.route.as_ref()?;
    let expires = exchange.caller.as_ref()?.expires;
    deadline::left_of_token(route.options.stream_max, expires, clock::now().unix)
}
