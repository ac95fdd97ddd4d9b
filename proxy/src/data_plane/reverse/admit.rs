//! From a request's head to what is sent for it, or to why nothing is.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use filters::{
    Admitted, Denial, Exchange, Now, Step, checks::api_key::SignedIn, coalesce::Key, denial::Lack,
    exchange::Shared,
};
use http::header;
use pingora::proxy::Session;
use tokio::time::timeout;

use super::{Ctx, Reverse};
use crate::{
    clock,
    data_plane::{
        coalescing::{Answer, Place},
        error_mapping,
        request::{facts_of, head},
    },
    progress,
};

/// What comes of a request that is let through.
pub(super) enum Admission {
    /// It goes to the upstream, with the edits in the context.
    Sent,
    /// It gets the answer to another.
    Shared(Arc<Answer>),
    /// It wanted to sign in, and has.
    SignedIn(SignedIn),
}

/// A plugin's token may lack the plugin's keys, the user's, and the user's groups; a decision the
/// body; and tokens that others took meanwhile are lacking again.
const LACKS_MAX: usize = 7;
/// As much as Pingora keeps to send it on.
const BODY_READ_MAX: usize = 64 << 10;
/// How often one waits for another's answer before asking for oneself.
const FLIGHTS_MAX: usize = 3;

impl Reverse {
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> Result<Admission, Denial> {
        let admitted = self.decide(session, ctx).await?;
        ctx.exchange.steps.enter(Step::RequestBody);
        self.fits(session, ctx)?;
        self.claim(ctx).await?;
        if let Some(signed_in) = ctx.exchange.signed_in.take() {
            return Ok(Admission::SignedIn(signed_in));
        }
        if let Some(key) = admitted.key
            && let Some(answer) = self.share(key, ctx).await?
        {
            return Ok(Admission::Shared(answer));
        }
        self.probes(ctx);
        fetch_credential(ctx).await?;
        if !ctx.exchange.turn.is_zero() {
            tokio::time::sleep(ctx.exchange.turn).await;
        }
        self.intend(session, ctx).await?;
        ctx.exchange.steps.enter(Step::Upstream);
        ctx.edits = admitted.edits;
        Ok(Admission::Sent)
    }

    /// Decides, and again with whatever was lacking.
    async fn decide(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Admitted, Denial> {
        let mut decided = self.decide_once(session, ctx, ctx.began);
        for _ in 0..LACKS_MAX {
            let Some(lack) = decided.as_ref().err().and_then(|_| ctx.exchange.lack.take()) else {
                break;
            };
            if lack == Lack::Body {
                ctx.exchange.steps.enter(Step::RequestBody);
                ctx.body = Some(self.read_body(session, ctx).await?);
            } else if !self.stage.supply(&ctx.live.loaded.config, &lack).await {
                break;
            }
            // As of now: others were let through while this one waited, and limits know.
            decided = self.decide_once(session, ctx, clock::now());
        }
        decided
    }

    /// Claims the request's idempotency key among all replicas; among its own it is decided.
    async fn claim(&self, ctx: &mut Ctx) -> Result<(), Denial> {
        if let (Some(store), Some(running)) = (&self.stage.store, &ctx.exchange.running) {
            let whole = ctx.exchange.route.as_ref().map_or(Duration::ZERO, |r| r.timeouts.whole);
            ctx.exchange.steps.enter(Step::Idempotency);
            ctx.claim = store.claim(running.key(), whole).await?;
        }
        Ok(())
    }

    fn decide_once(&self, session: &Session, ctx: &mut Ctx, now: Now) -> Result<Admitted, Denial> {
        ctx.exchange = Exchange::default();
        let certificate = facts_of(session.as_ref().digest()).and_then(|f| f.certificate.as_ref());
        let mut head = head(self.listener, self.tls, session, session.req_header(), certificate);
        head.body = ctx.body.as_deref();
        let policy = &ctx.live.policy;
        filters::decide(policy, &self.stage.state, &head, now, &mut ctx.exchange)
    }

    /// Reads the body, which is sent on from where Pingora keeps it.
    async fn read_body(&self, session: &mut Session, ctx: &Ctx) -> Result<Bytes, Denial> {
        let max = BODY_READ_MAX.min(usize::try_from(self.body_max(ctx)).unwrap_or(usize::MAX));
        session.as_downstream_mut().enable_retry_buffering();
        let mut body = BytesMut::new();
        let read = async {
            loop {
                match progress::reading(session.as_downstream_mut().read_request_body()).await {
                    Ok(Some(part)) if progress::body_part(part.len()) => {
                        body.extend_from_slice(&part);
                    }
                    Ok(Some(_)) => {
                        return Err(progress::denial(ctx.upstream()).unwrap_or(Denial::BodyTimeout));
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        let slow = progress::denial(ctx.upstream());
                        let denial =
                            slow.or_else(|| error_mapping::denial_of(&error, ctx.upstream()));
                        return Err(denial.unwrap_or(Denial::BodyMalformed));
                    }
                }
                if body.len() > max {
                    return Err(Denial::BodyTooLarge { bytes_max: max as u64 });
                }
            }
        };
        read.await?;
        progress::request_ended();
        Ok(body.freeze())
    }

    fn fits(&self, session: &Session, ctx: &Ctx) -> Result<(), Denial> {
        let bytes_max = self.body_max(ctx);
        let length = session.req_header().headers.get(header::CONTENT_LENGTH);
        let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            Some(length) if length > bytes_max => Err(Denial::BodyTooLarge { bytes_max }),
            _ => Ok(()),
        }
    }

    /// The answer to another request that is the same; `None` if this one goes to the upstream.
    async fn share(&self, key: Key, ctx: &mut Ctx) -> Result<Option<Arc<Answer>>, Denial> {
        for _ in 0..FLIGHTS_MAX {
            match self.stage.flights.join(key) {
                Place::Leads(lead) => {
                    ctx.lead = Some(lead);
                    break;
                }
                Place::Kept(answer) => {
                    ctx.exchange.shared = Some(Shared::Hit);
                    return Ok(Some(answer));
                }
                Place::Follows(flight) => {
                    // An answer that is not whole by then may wait for a client that is slow with it.
                    let patience = ctx.exchange.route.as_ref().map(|r| r.timeouts.upstream);
                    let patience = patience.unwrap_or_default().min(ctx.left());
                    match timeout(patience, flight.answer()).await {
                        Ok(Some(answer)) => {
                            ctx.exchange.shared = Some(Shared::Collapsed);
                            return Ok(Some(answer));
                        }
                        Ok(None) => {}
                        Err(_) => break,
                    }
                }
            }
        }
        filters::reverse::depart(&self.stage.state, clock::now(), &mut ctx.exchange)?;
        Ok(None)
    }

    pub(super) fn body_max(&self, ctx: &Ctx) -> u64 {
        let own = ctx.exchange.route.as_ref().and_then(|route| route.options.body_max);
        own.map_or(ctx.live.policy.listeners[self.listener].body_max, config::Size::bytes)
    }
}

impl Ctx {
    /// What is left of the time for the whole exchange.
    pub(super) fn left(&self) -> Duration {
        let whole = self.exchange.route.as_ref().map_or(Duration::ZERO, |r| r.timeouts.whole);
        (self.waits_since() + whole).saturating_sub(clock::elapsed())
    }

    /// Since when its client waits: all of the request is there.
    pub(super) fn waits_since(&self) -> Duration {
        progress::ended().unwrap_or(self.began.elapsed)
    }
}

/// Gets what the upstream is to be shown, if anything.
async fn fetch_credential(ctx: &mut Ctx) -> Result<(), Denial> {
    let Some(credential) = &ctx.exchange.credential else { return Ok(()) };
    ctx.exchange.steps.enter(Step::Credential);
    // The upstream has not been asked: that the exchange takes too long is not its failure.
    let shown =
        timeout(ctx.left(), ctx.live.credentials.get(&credential.name, &ctx.exchange)).await;
    let late = |_| Denial::CredentialUnavailable { credential: credential.name.clone() };
    ctx.shown = Some(shown.map_err(late)??);
    Ok(())
}
