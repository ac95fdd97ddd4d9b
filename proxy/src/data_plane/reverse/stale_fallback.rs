//! Stale responses: stored while the upstream works, served while it fails.

use std::sync::Arc;

use bytes::Bytes;
use filters::{
    Denial,
    breaker::{self, Outcome},
    exchange::Shared,
    fallback::{self, Key, KeyInput, Varied},
};
use http::header;
use pingora::{Result, http::ResponseHeader, proxy::Session};

use super::{Ctx, Reverse};
use crate::{
    clock,
    data_plane::{
        coalescing::StoredResponse, denial_response, request::head, stale_fallback::ResponseBuffer,
    },
};

impl Reverse {
    /// The stored response for a request like this.
    fn kept(&self, session: &Session, ctx: &Ctx) -> Option<Arc<StoredResponse>> {
        self.gateway.fallback.get(&self.key(session, ctx)?, &session.req_header().headers)
    }

    /// The stored response, instead of a denial.
    pub(super) fn stale_response(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        denial: &Denial,
    ) -> Option<Arc<StoredResponse>> {
        if !fallback::replaces(denial) {
            return None;
        }
        let kept = self.kept(session, ctx)?;
        ctx.recorder.ended.served.fallback_for = Some(denial.code());
        Some(kept)
    }

    /// Whether the stored response replaces a 5xx of the upstream.
    pub(super) fn discards_for_stale(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut Ctx,
    ) -> bool {
        let route = ctx.sent.as_ref().map(|sent| Arc::clone(&sent.request.route));
        let Some(route) = route.filter(|route| route.fallback.is_some()) else { return false };
        let content_type = response.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        if !breaker::is_failure(response.status.as_u16(), content_type, &route.breaker_rules) {
            return false;
        }
        let Some(kept) = self.kept(session, ctx) else { return false };
        let status = response.status.as_u16();
        let failed = breaker::failed(status, &response.headers, &route.breaker_rules);
        ctx.attempts.outcome = Some(if failed { Outcome::Failure } else { Outcome::Success });
        self.report(ctx, ctx.attempts.outcome, clock::now());
        ctx.recorder.ended.served.fallback_for = Some("upstream_failed");
        ctx.sharing.fallback = Some(kept);
        true
    }

    /// Serves the stored response.
    ///
    /// # Errors
    /// If the client is gone.
    pub(super) async fn serve_stale(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        kept: &StoredResponse,
    ) -> Result<()> {
        if let Err(denial) = self.before_response(ctx).await {
            return self.refuse(session, ctx, denial).await;
        }
        ctx.recorder.ended.served.shared = Some(Shared::Fallback);
        ctx.recorder.ended.status = kept.status.as_u16();
        let cors = ctx.recorder.snapshot.policy.listeners[self.listener].cors.as_deref();
        let kept = (kept, Shared::Fallback);
        denial_response::write_shared(
            session,
            &ctx.recorder.exchange,
            kept,
            &ctx.recorder.request_id,
            cors,
        )
        .await
    }

    /// Begins to store a response, if it may be stored.
    pub(super) fn begin_storing(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &Ctx,
    ) -> Option<(Key, Varied)> {
        if ctx.kind.stream || ctx.sent.as_ref()?.request.route.fallback.is_none() {
            return None;
        }
        let asked = &session.req_header().headers;
        let varied = Varied::of(response.status.as_u16(), asked, &response.headers)?;
        Some((self.key(session, ctx)?, varied))
    }

    fn key(&self, session: &Session, ctx: &Ctx) -> Option<Key> {
        let head = head(self.listener, self.tls, session, session.req_header(), None);
        let exchange = &ctx.recorder.exchange;
        let route = exchange.route.as_ref().filter(|route| route.fallback.is_some())?;
        let asked = KeyInput {
            head: &head,
            path: exchange.path.as_ref()?,
            route: &route.name,
            public: route.options.public,
            caller: exchange.caller.as_deref(),
            workspace: exchange.workspace.as_ref().map(|workspace| &workspace.name),
        };
        Key::of(&asked, &ctx.recorder.snapshot.policy.digest)
    }
}

impl Ctx {
    /// Stores a part of a response; returns it once it is complete.
    pub(super) fn keep(&mut self, part: Option<&Bytes>, whole: bool) -> Option<ResponseBuffer> {
        let keeping = self.sharing.keeping.take()?;
        let keeping = match part {
            Some(part) => keeping.read(part)?,
            None => keeping,
        };
        if whole {
            return Some(keeping);
        }
        self.sharing.keeping = Some(keeping);
        None
    }
}
