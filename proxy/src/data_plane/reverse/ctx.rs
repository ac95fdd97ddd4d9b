//! The context of an exchange: parts with a name, and what follows from several of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use filters::{
    Denial,
    breaker::Outcome,
    deadline,
    health::Fault,
    outcome::{self, ClientWait},
    redact::answer::Redactor,
    reverse::Judged,
};
use pingora::Error;
use tokio::sync::oneshot;

use super::{DENIED, sent::Sent};
use crate::{
    clock,
    data_plane::{
        coalescing::{Capture, Leader, StoredResponse},
        gateway::Gateway,
        recorder::{RecordKind, Recorder},
        stale_fallback::ResponseBuffer,
    },
    net::parent,
    progress,
    replicas::store::Claim,
    upstream::{Attempts, upgrade::UpgradeAnswered},
};

/// One exchange: what Pingora hands from phase to phase.
pub struct Ctx {
    /// The request as it is sent to the upstream, once it is. Declared before the recorder, because fields
    /// are dropped in order and the recorder takes the reason why an exchange was dropped.
    pub(super) sent: Option<Sent>,
    /// What its record will say.
    pub(super) recorder: Recorder,
    /// Reports that the intent is on disk, until somebody has waited for it.
    pub(super) durable: Option<oneshot::Receiver<bool>>,
    /// A request that Stagedoor responds to itself: it holds its idempotency key until then.
    pub(super) answered_here: Option<Judged>,
    /// Its idempotency key, claimed among the replicas.
    pub(super) claim: Option<Claim>,
    pub(super) kind: ExchangeKind,
    pub(super) attempts: AttemptsMade,
    pub(super) response: ResponseHead,
    pub(super) body: Bodies,
    pub(super) sharing: Sharing,
}

/// What kind of exchange it is, as far as its heads say.
#[derive(Default)]
pub(super) struct ExchangeKind {
    /// One of its bodies is a stream.
    pub(super) stream: bool,
    /// The client requested an upgrade.
    pub(super) upgrade: bool,
    /// Whether the upstream has responded to that.
    pub(super) answered: UpgradeAnswered,
    pub(super) grpc: bool,
}

/// The attempts so far.
pub(super) struct AttemptsMade {
    /// The addresses that were tried.
    pub(super) tried: Attempts,
    /// How long to wait before the next attempt, if there is one.
    pub(super) wait: Option<Duration>,
    /// When the last attempt began.
    pub(super) asked_at: Option<Duration>,
    /// How the last attempt failed, as far as that is known.
    pub(super) fault: Fault,
    /// What the response says about the upstream.
    pub(super) outcome: Option<Outcome>,
    /// Whether the upstream broke off while it waited for the client.
    pub(super) excused: bool,
}

impl Default for AttemptsMade {
    fn default() -> Self {
        Self {
            tried: Attempts::default(),
            wait: None,
            asked_at: None,
            fault: Fault::Status,
            outcome: None,
            excused: false,
        }
    }
}

/// What is known of the response's head.
#[derive(Default)]
pub(super) struct ResponseHead {
    /// How many interim responses (1xx) were received.
    pub(super) interim: u32,
    /// When it was received.
    pub(super) head_at: Option<Duration>,
}

/// The bodies of an exchange.
#[derive(Default)]
pub(super) struct Bodies {
    /// The request's, if a check read it.
    pub(super) read: Option<Bytes>,
    /// Redacts the response's.
    pub(super) redacting: Option<Redactor>,
}

/// Who else gets the response.
#[derive(Default)]
pub(super) struct Sharing {
    /// Identical requests wait for the response, which has not begun.
    pub(super) lead: Option<Leader>,
    /// Identical requests wait for the response, which has begun.
    pub(super) captured: Option<Capture>,
    /// The response so far, if it will be stored for when the upstream fails.
    pub(super) keeping: Option<ResponseBuffer>,
    /// The stale response that is served instead.
    pub(super) fallback: Option<Arc<StoredResponse>>,
}

impl Ctx {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Self {
        Self {
            sent: None,
            recorder: Recorder::new(gateway, RecordKind::Request),
            durable: None,
            answered_here: None,
            claim: None,
            kind: ExchangeKind::default(),
            attempts: AttemptsMade::default(),
            response: ResponseHead::default(),
            body: Bodies::default(),
            sharing: Sharing::default(),
        }
    }

    pub(super) fn deny(&mut self, denial: Denial) -> Box<Error> {
        self.recorder.ended.denial = Some(denial);
        Error::new(DENIED)
    }

    /// The parent proxy that forwards a plain `http` request, so that its failures look like the upstream's.
    pub(super) fn plain_parent(&self) -> Option<Arc<parent::Parent>> {
        let upstream = &self.sent.as_ref()?.upstream;
        upstream.parent.clone().filter(|_| !upstream.written.url.tls)
    }

    pub(super) fn is_late(&self) -> bool {
        let Some(sent) = &self.sent else { return false };
        let total = sent.request.route.timeouts.total;
        !self.kind.stream && !self.kind.upgrade && self.left_of(total).is_zero()
    }

    /// Whether its response has lasted for so long that it counts as long-lived from now on.
    pub(super) fn becomes_long_lived(&self) -> bool {
        let Some((head_at, sent)) = self.response.head_at.zip(self.sent.as_ref()) else {
            return false;
        };
        let total = sent.request.route.timeouts.total;
        !self.recorder.is_registered()
            && !self.kind.upgrade
            && deadline::is_long_lived(head_at, total, clock::elapsed())
    }

    /// Whether the upstream broke off after it had waited for the client longer than Stagedoor would have
    /// waited for the upstream.
    pub(super) fn gave_up_on_client(&self, denial: &Denial) -> bool {
        let Some(sent) = &self.sent else { return false };
        let wait = ClientWait {
            request_ended: progress::request_ended_at().is_some(),
            waited: progress::waited_for_client(),
            patience: sent.request.route.timeouts.upstream,
        };
        outcome::gave_up_on_client(denial, wait)
    }

    /// Whether it does more than read, as its body or its route says.
    pub(super) fn is_action(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.request.class != config::Class::Read)
    }

    /// Copies a part of the response for identical requests that wait for it.
    pub(super) fn capture(&mut self, part: Option<&Bytes>, whole: bool) {
        let Some(captured) = self.sharing.captured.take() else { return };
        let captured = match part {
            Some(part) => captured.read(part),
            None => Some(captured),
        };
        match captured {
            Some(captured) if whole => captured.finish(),
            captured => self.sharing.captured = captured,
        }
    }

    pub(super) fn late(&mut self) -> Box<Error> {
        self.attempts.outcome = Some(Outcome::Failure);
        self.attempts.fault = Fault::Timeout;
        let upstream = self.recorder.upstream();
        self.deny(Denial::WholeTimeout { upstream })
    }
}
