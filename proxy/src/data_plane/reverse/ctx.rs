//! The context of an exchange, in parts, and what they say together.

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

/// One exchange, from Pingora's side.
pub struct Ctx {
    /// What goes to the upstream, once it does. Before the recorder, which takes the reason why an exchange
    /// was dropped: fields are dropped in order.
    pub(super) sent: Option<Sent>,
    /// What is known of it, until it is on record.
    pub(super) recorder: Recorder,
    /// Reports once the exchange is on disk, as long as nobody has waited for it.
    pub(super) durable: Option<oneshot::Receiver<bool>>,
    /// What goes no further: its idempotency key is its own until it is answered.
    pub(super) answered_here: Option<Judged>,
    /// Its idempotency key, as other replicas know it.
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
    /// It asked to go over to another protocol.
    pub(super) upgrade: bool,
    /// Whether that was answered.
    pub(super) answered: UpgradeAnswered,
    pub(super) grpc: bool,
}

/// How the upstream was asked so far.
pub(super) struct AttemptsMade {
    /// Which addresses were.
    pub(super) tried: Attempts,
    /// How long to wait before the next, if there is one.
    pub(super) wait: Option<Duration>,
    /// When the last began.
    pub(super) asked_at: Option<Duration>,
    /// What one that fails has failed by, as far as it is known.
    pub(super) fault: Fault,
    /// What its response says of the upstream.
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
    /// How many interim responses (1xx) came before.
    pub(super) interim: u32,
    /// When it came.
    pub(super) head_at: Option<Duration>,
}

/// The bodies of an exchange.
#[derive(Default)]
pub(super) struct Bodies {
    /// The request's, where a decision is about it.
    pub(super) read: Option<Bytes>,
    /// The response's so far, where it must be read whole to be redacted.
    pub(super) redacting: Option<Redactor>,
}

/// Who else the response is for.
#[derive(Default)]
pub(super) struct Sharing {
    /// Others wait for it, and it is yet to come.
    pub(super) lead: Option<Leader>,
    /// Others wait for it, and it is coming.
    pub(super) captured: Option<Capture>,
    /// What came so far, if it is kept for when the upstream fails.
    pub(super) keeping: Option<ResponseBuffer>,
    /// What was kept, and is given now.
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

    /// The proxy that the upstream is behind, where that proxy is all that we connect to.
    pub(super) fn asked_in_the_clear(&self) -> Option<Arc<parent::Parent>> {
        let upstream = &self.sent.as_ref()?.upstream;
        upstream.parent.clone().filter(|_| !upstream.written.url.tls)
    }

    pub(super) fn is_late(&self) -> bool {
        let Some(sent) = &self.sent else { return false };
        let whole = sent.request.route.timeouts.whole;
        !self.kind.stream && !self.kind.upgrade && self.left_of(whole).is_zero()
    }

    /// Whether its answer has been coming for so long that it is one that may last, and can be cut.
    pub(super) fn lasts(&self) -> bool {
        let Some((head_at, sent)) = self.response.head_at.zip(self.sent.as_ref()) else {
            return false;
        };
        let whole = sent.request.route.timeouts.whole;
        !self.recorder.is_registered()
            && !self.kind.upgrade
            && deadline::is_long_lived(head_at, whole, clock::elapsed())
    }

    /// Whether the upstream broke off an exchange in which it had to wait for the client: for longer than
    /// anybody would have waited for it.
    pub(super) fn gave_up_on_client(&self, denial: &Denial) -> bool {
        let Some(sent) = &self.sent else { return false };
        let wait = ClientWait {
            request_ended: progress::ended().is_some(),
            waited: progress::waited_for_client(),
            patience: sent.request.route.timeouts.upstream,
        };
        outcome::gave_up_on_client(denial, wait)
    }

    /// Whether it does more than read, as its body says or its route.
    pub(super) fn is_action(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.request.class != config::Class::Read)
    }

    /// Takes a part of the answer for those who wait for it, too.
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
