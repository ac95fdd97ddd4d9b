//! What is left of an exchange: the breaker's outcome, the metrics and one record.

use std::{net::IpAddr, time::Duration};

use filters::{
    Denial, Now, Step,
    audit::Observed,
    breaker::Outcome,
    identity::ClientCertificate,
    outcome::{End, by_fault},
    reverse::{Dispatched, Judged},
};
use http::HeaderValue;
use pingora::{Error, http::RequestHeader, proxy::Session};
use tokio::time::timeout;

use super::{Ctx, Reverse};
use crate::{
    clock,
    data_plane::{
        detached,
        request::{facts_of, host, peer, trace_id},
    },
    observability::{changes, metrics::Counted},
};

impl Reverse {
    pub(super) fn record(&self, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
        let now = clock::now();
        let end = End {
            denial: ctx.denial.as_ref(),
            response: ctx.attempts.outcome,
            excused: ctx.attempts.excused,
        };
        let outcome = end.outcome();
        self.report(ctx, outcome, now);
        // Some readers are answered with another status than the denial's.
        let written = session.as_ref().response_written().filter(|_| ctx.denial.is_none());
        let status = written.map_or(ctx.response.status, |head| head.status.as_u16());
        let took = now.elapsed.saturating_sub(ctx.began.elapsed);
        let method = session.req_header().method.as_str();
        let counted = Counted {
            status,
            code: ctx.denial.as_ref().map(Denial::code),
            upstream_failed: outcome == Some(Outcome::Failure),
            method,
            took,
            upstream_took: ctx.attempts.took,
            served: ctx.served,
        };
        self.gateway.metrics.exchange(&ctx.snapshot.counts, &ctx.exchange, &counted);
        let observed = Observed {
            status,
            bytes_out: session.as_ref().body_bytes_sent() as u64,
            took,
            upgraded: status == 101,
            cut: (error.is_some() || detached::is()) && ctx.denial.is_none(),
            ..self.observed(session, ctx)
        };
        self.gateway.audit.record(|out| {
            filters::audit::write(out, &ctx.snapshot.policy, &ctx.exchange, &observed);
        });
        ctx.ended();
    }

    /// Puts on record that this is the first request after a breaker's rest, if so.
    pub(super) fn probes(&self, dispatched: &Dispatched) {
        if let Some(moved) = dispatched.moved() {
            changes::breaker_moved(&self.gateway.audit, &moved);
        }
    }

    /// Puts an action on disk before the upstream is asked for it. A read is put on its way there, if
    /// it has to be there before its answer.
    pub(super) async fn intend(
        &self,
        session: &Session,
        request: &Judged,
        ctx: &mut Ctx,
    ) -> Result<(), Denial> {
        if request.class != config::Class::Read {
            ctx.exchange.steps.enter(Step::Audit);
            self.begin_record(session, ctx)?;
            return self.on_disk(ctx).await;
        }
        if self.gateway.started.audit.reads == config::Reads::BeforeAnswer {
            self.begin_record(session, ctx)?;
        }
        Ok(())
    }

    /// Waits until a read is on disk, if it has to be there before its answer.
    pub(super) async fn before_answer(
        &self,
        session: &Session,
        ctx: &mut Ctx,
    ) -> Result<(), Denial> {
        if self.gateway.started.audit.reads == config::Reads::Buffered {
            return Ok(());
        }
        if !ctx.recording.intended {
            self.begin_record(session, ctx)?;
        }
        self.on_disk(ctx).await
    }

    /// Puts it on its way to the disk that an exchange has begun.
    fn begin_record(&self, session: &Session, ctx: &mut Ctx) -> Result<(), Denial> {
        let observed = self.observed(session, ctx);
        let durable = self.gateway.audit.intent(|out| {
            filters::audit::write_intent(out, &ctx.snapshot.policy, &ctx.exchange, &observed);
        });
        ctx.recording.durable = Some(durable.ok_or(Denial::AuditUnavailable)?);
        // It may be on disk from now on, also if we do not wait for it any longer.
        ctx.recording.intended = true;
        Ok(())
    }

    async fn on_disk(&self, ctx: &mut Ctx) -> Result<(), Denial> {
        let Some(durable) = ctx.recording.durable.take() else { return Ok(()) };
        match timeout(ctx.left(), durable).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(Denial::AuditUnavailable),
        }
    }

    fn observed<'a>(&'a self, session: &'a Session, ctx: &'a Ctx) -> Observed<'a> {
        let facts_of_tls = facts_of(session.as_ref().digest());
        let certificate = facts_of_tls.and_then(|facts| facts.certificate.as_ref());
        let shown = ConnectionInfo { peer: peer(session), tls: self.tls, certificate };
        observed(self.listener, session.req_header(), &shown, ctx)
    }
}

/// What the connection of an exchange shows.
#[derive(Clone, Copy)]
pub(super) struct ConnectionInfo<'a> {
    pub(super) peer: IpAddr,
    pub(super) tls: bool,
    pub(super) certificate: Option<&'a ClientCertificate>,
}

/// What is known of an exchange before it ends.
pub(super) fn observed<'a>(
    listener: usize,
    came: &'a RequestHeader,
    shown: &ConnectionInfo<'a>,
    ctx: &'a Ctx,
) -> Observed<'a> {
    let mut parts = came.raw_path().splitn(2, |b| *b == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next());
    Observed {
        began: ctx.began,
        request_id: ctx.request_id.as_str(),
        trace_id: trace_id(came),
        listener: &ctx.snapshot.policy.listeners[listener].name,
        peer: shown.peer,
        method: came.method.as_str(),
        host: host(came),
        raw_path: path,
        query,
        tls: shown.tls,
        headers: Some(&came.headers),
        certificate: shown.certificate,
        status: 0,
        denial: ctx.denial.as_ref(),
        upstream_address: ctx.attempts.address,
        attempts: ctx.attempts.made,
        bytes_in: ctx.body.bytes_in,
        bytes_out: 0,
        took: Duration::ZERO,
        upstream_took: ctx.attempts.took,
        served: ctx.served,
        upgraded: false,
        cut: false,
        intended: ctx.recording.intended,
        idempotency_key: came.headers.get("idempotency-key").map(HeaderValue::as_bytes),
        control_id: ctx.body.control_id.as_deref(),
    }
}

impl Reverse {
    /// Tells the breaker how the upstream did, and the address that was asked last, each once.
    pub(super) fn report(&self, ctx: &mut Ctx, outcome: Option<Outcome>, now: Now) {
        if let Some(outcome) = outcome {
            self.judge(ctx, outcome, now);
        }
        // Whether it answered badly or not at all makes a difference to the breaker.
        let outcome = outcome.map(|outcome| by_fault(outcome, ctx.attempts.fault));
        let Some(sent) = &mut ctx.sent else { return };
        if let Some(moved) = sent.dispatched.report(&sent.request, outcome, now) {
            changes::breaker_moved(&self.gateway.audit, &moved);
        }
    }

    /// Tells the address that was asked last how it did, once for each attempt.
    pub(super) fn judge(&self, ctx: &mut Ctx, outcome: Outcome, now: Now) {
        let (Some(attempt), Some(sent)) = (&mut ctx.attempts.tried.attempt, &ctx.sent) else {
            return;
        };
        if outcome == Outcome::Success {
            return attempt.succeeded();
        }
        let upstream = &sent.upstream;
        let rules = &upstream.written.ejection;
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
