//! The record of an exchange that was cut: Pingora's part of it is gone, and so its session.

use std::{net::IpAddr, sync::Arc, time::Duration};

use filters::{
    Denial, Exchange, audit::Observed, breaker::Outcome, deadline, denial::TokenFault,
    identity::ClientCertificate,
};
use pingora::{http::RequestHeader, proxy::Session};

use super::{
    Ctx, Reverse,
    record::{ConnectionInfo, observed},
};
use crate::{
    clock,
    data_plane::{
        gateway::Gateway,
        long_lived::Registration,
        request::{facts_of, peer},
    },
    observability::{changes, metrics::Counted},
    progress,
};

/// What a record needs that is otherwise in the session.
pub(super) struct Lasting {
    /// Where it may last.
    place: Option<Registration>,
    gateway: Arc<Gateway>,
    listener: usize,
    came: RequestHeader,
    peer: IpAddr,
    tls: bool,
    certificate: Option<ClientCertificate>,
}

impl Lasting {
    /// Whether it has its place among those that may last.
    pub(super) fn lasts(&self) -> bool {
        self.place.is_some()
    }
}

impl Reverse {
    /// From now on it can be cut.
    ///
    /// # Errors
    /// [`Denial::SwitchedOff`] if it was switched off since it was decided about: who did so has not
    /// cut it.
    pub(super) fn may_last(&self, session: &Session, ctx: &mut Ctx) -> Result<(), Denial> {
        if ctx.recording.lasting.as_ref().is_some_and(|lasting| lasting.place.is_some()) {
            return Ok(());
        }
        let mut place = self.gateway.long_lived.begin(&ctx.exchange);
        if let Some(left) = left_of_token(&ctx.exchange) {
            place.end_after(left, Denial::Token(TokenFault::Expired));
        }
        self.may_be_lost(session, ctx).place = Some(place);
        self.gateway.state.switches.pass(&ctx.exchange.about(), clock::now())
    }

    /// From now on it is on record also if Pingora's part of it is dropped.
    pub(super) fn may_be_lost<'a>(&self, session: &Session, ctx: &'a mut Ctx) -> &'a mut Lasting {
        let shown = facts_of(session.as_ref().digest());
        ctx.recording.lasting.get_or_insert_with(|| Lasting {
            place: None,
            gateway: Arc::clone(&self.gateway),
            listener: self.listener,
            came: session.req_header().clone(),
            peer: peer(session),
            tls: self.tls,
            certificate: shown.and_then(|shown| shown.certificate.clone()),
        })
    }
}

/// How long the caller's token is good for, if a stream ends with it.
fn left_of_token(exchange: &Exchange) -> Option<Duration> {
    let route = exchange.route.as_ref()?;
    let expires = exchange.caller.as_ref()?.expires;
    deadline::left_of_token(route.options.stream_max, expires, clock::now().unix)
}

impl Ctx {
    /// It is on record: it is too late to cut it.
    pub(super) fn ended(&mut self) {
        self.recording.lasting = None;
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        let Some(lasting) = self.recording.lasting.take() else { return };
        let cut = lasting.place.as_ref().and_then(Registration::denial);
        let lost = || progress::denial(self.upstream());
        let Some(denial) = cut.or_else(lost) else { return };
        let failed = denial.is_upstream_failure();
        if failed && let Some(sent) = &mut self.sent {
            let outcome = Some(Outcome::Silence);
            let moved = sent.dispatched.report(&sent.request, outcome, clock::now());
            if let Some(moved) = moved {
                changes::breaker_moved(&lasting.gateway.audit, &moved);
            }
        }
        let Lasting { gateway, listener, came, peer, tls, certificate, .. } = lasting;
        let shown = ConnectionInfo { peer, tls, certificate: certificate.as_ref() };
        self.denial = Some(denial);
        let took = clock::elapsed().saturating_sub(self.began.elapsed);
        let counted = Counted {
            status: self.response.status,
            code: self.denial.as_ref().map(Denial::code),
            upstream_failed: failed,
            method: came.method.as_str(),
            took,
            upstream_took: self.attempts.took,
            served: self.served,
        };
        gateway.metrics.exchange(&self.snapshot.counts, &self.exchange, &counted);
        let observed = Observed {
            status: self.response.status,
            bytes_out: self.body.bytes_out,
            took,
            upgraded: self.response.status == 101,
            cut: true,
            ..observed(listener, &came, &shown, self)
        };
        gateway.audit.record(|out| {
            filters::audit::write(out, &self.snapshot.policy, &self.exchange, &observed);
        });
    }
}
