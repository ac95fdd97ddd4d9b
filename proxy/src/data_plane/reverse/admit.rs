//! From a request head to what is sent to the upstream, or to the denial.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use filters::{
    Admitted, Denial, Exchange, Now, Step,
    body::BodyAnswer,
    coalesce::Key,
    credentials::Credential,
    deadline::Deadline,
    denial::Lack,
    exchange::Shared,
    request_body::BodyLimit,
    reverse::{Judged, Next, dispatch},
};
use http::header;
use pingora::proxy::Session;
use tokio::time::timeout;

use super::{Ctx, Reverse, sent::Sent};
use crate::{
    clock,
    data_plane::{
        coalescing::{Role, StoredResponse},
        error_mapping,
        request::{facts_of, head},
    },
    progress,
    upstream::credentials::PresentedCredential,
};

/// What happens to a request that passed every check.
pub(super) enum Admission {
    /// It is sent to the upstream; `Ctx::sent` has the parts.
    Sent,
    /// It gets the response to another request.
    Shared(Arc<StoredResponse>, Shared),
    /// Stagedoor responds itself.
    UpgradeAnswered(BodyAnswer),
}

/// A decision may lack the plugin's keys, the user's keys, the user's groups and the body, and quota
/// leases again if other requests used them up meanwhile.
const LACKS_MAX: usize = 7;
/// Pingora buffers no more than this to replay a body.
const BODY_READ_MAX: u64 = 64 << 10;
/// How many responses of others a request waits for before it is sent itself.
const FLIGHTS_MAX: usize = 3;

impl Reverse {
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> Result<Admission, Denial> {
        let Admitted { request, edits, next } = self.decide(session, ctx).await?;
        // The snapshot's upstreams are those of its policy.
        let upstream =
            ctx.recorder.snapshot.upstreams.get(&request.route.upstream).ok_or(Denial::Internal)?;
        let upstream = Arc::clone(upstream);
        if let Next::Dispatched(dispatched) = &next {
            ctx.recorder.ended.served.pacing_delay = dispatched.pacing_delay;
        }
        ctx.recorder.exchange.steps.enter(Step::RequestBody);
        self.fits(session, ctx)?;
        self.claim(&request, ctx).await?;
        let dispatched = match next {
            Next::Dispatched(dispatched) => dispatched,
            Next::Answer(answer) => {
                ctx.answered_here = Some(request);
                return Ok(Admission::UpgradeAnswered(answer));
            }
            Next::Coalesce(key) => match self.share(key, &request, ctx).await? {
                Some((answer, how)) => {
                    ctx.answered_here = Some(request);
                    return Ok(Admission::Shared(answer, how));
                }
                None => dispatch(
                    &self.gateway.state,
                    &request,
                    clock::now(),
                    &mut ctx.recorder.exchange,
                )?,
            },
        };
        ctx.recorder.ended.served.pacing_delay = dispatched.pacing_delay;
        self.probes(&dispatched);
        let shown = fetch_credential(&request, ctx).await?;
        if !dispatched.pacing_delay.is_zero() {
            tokio::time::sleep(dispatched.pacing_delay).await;
        }
        self.intend(&request, ctx).await?;
        ctx.recorder.exchange.steps.enter(Step::Upstream);
        ctx.sent = Some(Sent {
            gateway: Arc::clone(&self.gateway),
            request,
            edits,
            dispatched,
            upstream,
            shown,
        });
        Ok(Admission::Sent)
    }

    /// Decides, and decides again with whatever was lacking.
    async fn decide(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Admitted, Denial> {
        let mut decided = self.decide_once(session, ctx, ctx.recorder.began);
        for _ in 0..LACKS_MAX {
            let Some(lack) = decided.as_ref().err().and_then(|_| ctx.recorder.exchange.lack.take())
            else {
                break;
            };
            if lack == Lack::Body {
                ctx.recorder.exchange.steps.enter(Step::RequestBody);
                ctx.body.read = Some(self.read_body(session, ctx).await?);
            } else if !self.gateway.supply(&ctx.recorder.snapshot.loaded.config, &lack).await {
                break;
            }
            // With the present time: limits have counted other requests while this one waited.
            decided = self.decide_once(session, ctx, clock::now());
        }
        decided
    }

    /// Claims the idempotency key among all replicas. Within this one, `decide` did.
    async fn claim(&self, request: &Judged, ctx: &mut Ctx) -> Result<(), Denial> {
        if let (Some(store), Some(running)) = (&self.gateway.store, &request.running) {
            ctx.recorder.exchange.steps.enter(Step::Idempotency);
            ctx.claim = store.claim(running.key(), request.route.timeouts.total).await?;
        }
        Ok(())
    }

    fn decide_once(&self, session: &Session, ctx: &mut Ctx, now: Now) -> Result<Admitted, Denial> {
        ctx.recorder.exchange = Exchange::default();
        let certificate =
            facts_of(session.as_ref().digest()).and_then(|f| f.certificate.as_deref());
        let mut head = head(self.listener, self.tls, session, session.req_header(), certificate);
        head.body = ctx.body.read.as_deref();
        let policy = &ctx.recorder.snapshot.policy;
        filters::decide(policy, &self.gateway.state, &head, now, &mut ctx.recorder.exchange)
    }

    /// Reads the body, which is forwarded later from Pingora's retry buffer.
    async fn read_body(&self, session: &mut Session, ctx: &Ctx) -> Result<Bytes, Denial> {
        let BodyLimit(bytes_max) = self.body_limit(ctx);
        let limit = BodyLimit(bytes_max.min(BODY_READ_MAX));
        session.as_downstream_mut().enable_retry_buffering();
        let mut body = BytesMut::new();
        let read = async {
            loop {
                match progress::reading(session.as_downstream_mut().read_request_body()).await {
                    Ok(Some(part)) if progress::request_part(part.len()) => {
                        body.extend_from_slice(&part);
                    }
                    Ok(Some(_)) => {
                        return Err(progress::denial(ctx.recorder.upstream())
                            .unwrap_or(Denial::BodyTimeout));
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        let slow = progress::denial(ctx.recorder.upstream());
                        let denial = slow
                            .or_else(|| error_mapping::denial_of(&error, ctx.recorder.upstream()));
                        return Err(denial.unwrap_or(Denial::BodyMalformed));
                    }
                }
                limit.received(body.len() as u64)?;
            }
        };
        read.await?;
        progress::request_ended();
        Ok(body.freeze())
    }

    fn fits(&self, session: &Session, ctx: &Ctx) -> Result<(), Denial> {
        let length = session.req_header().headers.get(header::CONTENT_LENGTH);
        self.body_limit(ctx).declared(length.and_then(|length| length.to_str().ok()?.parse().ok()))
    }

    /// The response to an identical request; `None` if this one has to be sent.
    async fn share(
        &self,
        key: Key,
        request: &Judged,
        ctx: &mut Ctx,
    ) -> Result<Option<(Arc<StoredResponse>, Shared)>, Denial> {
        for _ in 0..FLIGHTS_MAX {
            match self.gateway.coalescing.join(key) {
                Role::Leads(lead) => {
                    ctx.sharing.lead = Some(lead);
                    break;
                }
                Role::Kept(answer) => {
                    ctx.recorder.ended.served.shared = Some(Shared::Hit);
                    return Ok(Some((answer, Shared::Hit)));
                }
                Role::Follows(flight) => {
                    // The other response may be held up by its slow client.
                    let timeouts = request.route.timeouts;
                    let patience = timeouts.upstream.min(ctx.left_of(timeouts.total));
                    match timeout(patience, flight.answer()).await {
                        Ok(Some(answer)) => {
                            ctx.recorder.ended.served.shared = Some(Shared::Collapsed);
                            return Ok(Some((answer, Shared::Collapsed)));
                        }
                        Ok(None) => {}
                        Err(_) => break,
                    }
                }
            }
        }
        Ok(None)
    }

    pub(super) fn body_limit(&self, ctx: &Ctx) -> BodyLimit {
        let own = ctx.recorder.exchange.route.as_ref().and_then(|route| route.options.body_max);
        BodyLimit::of(own, ctx.recorder.snapshot.policy.listeners[self.listener].body_max)
    }
}

impl Ctx {
    /// What is left of the route's total timeout; nothing without a route.
    pub(super) fn left(&self) -> Duration {
        let route = self.recorder.exchange.route.as_ref();
        route.map_or(Duration::ZERO, |route| self.left_of(route.timeouts.total))
    }

    /// What is left of a total timeout.
    pub(super) fn left_of(&self, total: Duration) -> Duration {
        self.deadline(total).left(clock::elapsed())
    }

    pub(super) fn deadline(&self, total: Duration) -> Deadline {
        Deadline {
            began: self.recorder.began.elapsed,
            request_ended: progress::request_ended_at(),
            total,
        }
    }
}

/// Fetches the upstream's credential, if the route has one.
async fn fetch_credential(
    request: &Judged,
    ctx: &mut Ctx,
) -> Result<Option<(Arc<Credential>, PresentedCredential)>, Denial> {
    let Some(credential) = &request.route.credential else { return Ok(None) };
    ctx.recorder.exchange.steps.enter(Step::Credential);
    // Nothing was sent yet: a slow token exchange is not the upstream's failure.
    let left = ctx.left_of(request.route.timeouts.total);
    let shown =
        timeout(left, ctx.recorder.snapshot.credentials.get(&credential.name, request)).await;
    let late = |_| Denial::CredentialUnavailable { credential: credential.name.clone() };
    Ok(Some((Arc::clone(credential), shown.map_err(late)??)))
}
