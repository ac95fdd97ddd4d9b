//! The record of an exchange: written once, whatever becomes of it. Requests, calls and tunnels use the
//! same [`Recorder`]; a head that never became a request has no exchange, and is recorded in `refusals`.

mod refusals;

use std::{sync::Arc, time::Duration};

use filters::{
    Denial, Exchange, Label, Now, Step,
    audit::{Ended, Entry, Received},
};
use tokio::sync::oneshot;

pub(crate) use self::refusals::RefusalRecorder;
use crate::{
    clock,
    data_plane::{
        gateway::{Gateway, Snapshot},
        listener::InFlight,
        long_lived::Registration,
    },
    observability::metrics::Counted,
    progress,
    request_id::RequestId,
};

/// What an exchange is counted as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// A request on a reverse listener.
    Request,
    /// A call on a forward listener.
    Call,
}

/// What is known of an exchange until it is on record.
///
/// The record takes [`Received`], which cannot be copied, so there is never a second one. An exchange that
/// is dropped before it is finished (severed by a switch, out of time, or with the process) is recorded by
/// `Drop`, so there is never none.
pub(crate) struct Recorder {
    gateway: Arc<Gateway>,
    kind: RecordKind,
    /// What was received, until it is on record.
    received: Option<Received>,
    /// Its place among the exchanges that a switch can sever, once it is long-lived.
    registration: Option<Registration>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) exchange: Exchange,
    pub(super) request_id: RequestId,
    /// When its head was complete.
    pub(super) began: Now,
    /// How it ends, as far as that is known.
    pub(super) ended: Ended,
    /// Whether the upstream failed, if that is not what the denial says.
    pub(super) upstream_failed: Option<bool>,
    _in_flight: InFlight,
}

impl Recorder {
    /// For an exchange that begins now.
    pub(super) fn new(gateway: &Arc<Gateway>, kind: RecordKind) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            kind,
            received: None,
            registration: None,
            snapshot: gateway.snapshot.load_full(),
            exchange: Exchange::default(),
            request_id: RequestId::UNKNOWN,
            began: clock::now(),
            ended: Ended::default(),
            upstream_failed: None,
            _in_flight: gateway.drain.exchange(),
        }
    }

    /// From now on it will be on record.
    pub(super) fn receive(&mut self, received: Received) {
        self.received = Some(received);
    }

    /// From now on a switch can sever it, and `left` is the time until it ends by itself, and why.
    ///
    /// # Errors
    /// [`Denial::SwitchedOff`] if it was switched off since it was decided about: that switch has not
    /// severed it.
    pub(super) fn register(&mut self, left: Option<(Duration, Denial)>) -> Result<(), Denial> {
        if self.registration.is_some() {
            return Ok(());
        }
        let mut registration = self.gateway.long_lived.begin(&self.exchange);
        if let Some((left, why)) = left {
            registration.end_after(left, why);
        }
        self.registration = Some(registration);
        self.gateway.state.switches.pass(&self.exchange.about(), clock::now())
    }

    /// Whether a switch can sever it.
    pub(super) fn is_registered(&self) -> bool {
        self.registration.is_some()
    }

    /// Ends when a switch severs it, with the reason.
    pub(super) fn severed(&self) -> impl Future<Output = Denial> + use<> {
        let severed = self.registration.as_ref().map(Registration::cut);
        async move {
            match severed {
                Some(severed) => severed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether a switch has severed it.
    pub(super) fn is_severed(&self) -> bool {
        self.registration.as_ref().is_some_and(|place| place.denial().is_some())
    }

    /// Puts on its way to the disk that the request is about to be sent. The receiver learns whether it is
    /// there.
    ///
    /// # Errors
    /// [`Denial::AuditUnavailable`] if there is no room for it.
    pub(super) fn intend(&mut self) -> Result<oneshot::Receiver<bool>, Denial> {
        let received = self.received.as_ref().ok_or(Denial::Internal)?;
        let durable = self.gateway.audit.intent(|out| self.entry(received).write_intent(out));
        let durable = durable.ok_or(Denial::AuditUnavailable)?;
        // It may be on disk from now on, also if nobody waits for it any longer.
        self.ended.intended = true;
        Ok(durable)
    }

    /// The upstream, as denials name it.
    pub(super) fn upstream(&self) -> Label {
        let route = self.exchange.route.as_ref();
        route.map_or_else(|| Label::lossy("?"), |route| route.upstream.clone())
    }

    /// Puts the exchange on record, and counts it. It is too late to sever it.
    pub(super) fn finish(&mut self) {
        self.registration = None;
        let Some(received) = self.received.take() else { return };
        self.ended.took = clock::elapsed().saturating_sub(self.began.elapsed);
        self.count(&received);
        self.gateway.audit.record(|out| self.entry(&received).write(out, &self.ended));
    }

    /// The denial of an exchange that was not admitted, and has no response.
    fn undecided(&self) -> Option<Denial> {
        let reached = self.exchange.steps.last().unwrap_or(Step::Host);
        let is_admitted = self.exchange.steps.reached(Step::Upstream) || self.ended.status != 0;
        (!is_admitted).then_some(Denial::Stopping { during: reached })
    }

    fn count(&self, received: &Received) {
        let Self { gateway, ended, .. } = self;
        let (counts, exchange) = (&self.snapshot.counts, &self.exchange);
        let denial = ended.denial.as_ref();
        let by_denial = || denial.is_some_and(Denial::is_upstream_failure);
        let counted = Counted {
            status: ended.status,
            code: denial.map(Denial::code),
            upstream_failed: self.upstream_failed.unwrap_or_else(by_denial),
            method: received.method(),
            took: ended.took,
            upstream_took: ended.upstream_took,
            served: ended.served,
        };
        match self.kind {
            RecordKind::Request => gateway.metrics.exchange(counts, exchange, &counted),
            RecordKind::Call => {
                let bytes = ended.bytes_in + ended.bytes_out;
                gateway.metrics.call(counts, exchange, &counted, bytes);
            }
        }
    }

    fn entry<'a>(&'a self, received: &'a Received) -> Entry<'a> {
        Entry {
            policy: &self.snapshot.policy,
            exchange: &self.exchange,
            request_id: self.request_id.as_str(),
            received,
        }
    }
}

impl Drop for Recorder {
    /// The exchange was dropped with Pingora's part of it.
    fn drop(&mut self) {
        if self.received.is_none() {
            return;
        }
        let severed = self.registration.as_ref().and_then(Registration::denial);
        let denial = severed.or_else(|| progress::denial(self.upstream()));
        let noted = denial.or_else(|| self.ended.denial.take());
        // Only the process's end leaves a request undecided. It was not allowed, so its record must not say so.
        self.ended.denial = noted.or_else(|| self.undecided());
        self.ended.cut = true;
        self.finish();
    }
}
