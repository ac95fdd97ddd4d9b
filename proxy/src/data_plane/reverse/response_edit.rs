//! Edits the head of a response before the client gets it.

use std::{borrow::Cow, sync::Arc};

use filters::{
    Denial, Now, Step,
    breaker::{self, Outcome},
    headers::Edits,
    pace::UpstreamQuota,
    progress::Kind as Motion,
    redact::answer::{Kind, Redactor},
    routes::Route,
    streams,
    url_rewrite::Here,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::{Result, http::ResponseHeader, proxy::Session};

use super::{
    Ctx, Reverse,
    sent::{Sent, unsent},
};
use crate::{
    clock,
    data_plane::{
        denial_response, rate_limit_headers,
        request::{X_FORWARDED_PROTO, head},
        stale_fallback::ResponseBuffer,
    },
    head_edit, progress,
    request_id::X_REQUEST_ID,
};

impl Reverse {
    pub(super) fn edit_response(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let sent = ctx.sent.as_ref().ok_or_else(unsent)?;
        let (route, upstream) = (Arc::clone(&sent.request.route), Arc::clone(&sent.upstream));
        let now = clock::now();
        ctx.recorder.ended.upstream_took = ctx.attempts.asked_at.map(|asked| now.elapsed - asked);
        let status = response.status.as_u16();
        if status < 200 && status != 101 {
            progress::request_sent();
            return self.edit_interim(session, response, ctx, &route);
        }
        if status == 407
            && let Some(parent) = &upstream.parent
        {
            // The parent proxy wants our credentials, not the client's.
            let parent = parent.name.clone();
            return Err(ctx.deny(Denial::ParentRefused { parent, status }));
        }
        ctx.recorder.ended.status = status;
        ctx.kind.answered.note();
        self.note_outcome(response, ctx, &route, now);
        self.note_progress(session, response, ctx)?;
        begin_redaction(response, ctx, &route)?;
        let here = self.here(session, response, ctx);
        if route.external {
            let edits = &ctx.sent.as_ref().ok_or_else(unsent)?.edits;
            let kept = head_edit::edit_response(response, |parts| {
                let headers = &mut parts.headers;
                if let Some(here) = &here {
                    relocate(headers, &route, &target(session, edits), here.borrowed());
                }
                self.keep_outside(session, headers, &route, ctx)
            });
            kept.map_err(|denial| ctx.deny(denial))?;
        }
        let here = here.filter(|_| !route.external);
        self.edit_final(session, response, ctx, (&route, here))?;
        if self.gateway.drain.is_leaving() && !ctx.kind.upgrade {
            session.as_downstream_mut().set_keepalive(None);
        }
        Ok(())
    }

    /// Reports what a final response's head says of the upstream, of its credential and of its quota.
    fn note_outcome(&self, response: &ResponseHeader, ctx: &mut Ctx, route: &Route, now: Now) {
        let status = response.status.as_u16();
        let failed = breaker::failed(status, &response.headers, &route.breaker_rules);
        ctx.attempts.outcome = Some(if failed { Outcome::Failure } else { Outcome::Success });
        if failed {
            // Before the client knows it, or its next request could come before the breaker moves.
            self.report(ctx, ctx.attempts.outcome, now);
        }
        if status == 401
            && let Some(Sent { shown: Some((_, shown)), .. }) = &ctx.sent
        {
            shown.refused();
        }
        if route.pace.is_some() {
            let quota = upstream_quota(status, &response.headers);
            self.gateway.state.paces.note(&route.upstream, &quota, now);
        }
        ctx.response.head_at = Some(now.elapsed);
    }

    /// Notes how the response's body will come. A stream can be severed from now on.
    fn note_progress(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let is_stream = streams::is_stream(&response.headers);
        let kind = if is_stream { Motion::Answer } else { Motion::Plain };
        let length = streams::length(&response.headers);
        progress::response_began(length, kind);
        progress::ends_with_head(&session.req_header().method, response.status.as_u16(), length);
        ctx.recorder.exchange.steps.enter(Step::Response);
        if !ctx.kind.stream && is_stream {
            ctx.kind.stream = true;
            self.register(ctx).map_err(|denial| ctx.deny(denial))?;
        }
        Ok(())
    }

    /// Edits the head of a final response. `here` is how the client reaches us, if URLs are to be
    /// rewritten.
    fn edit_final(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
        (route, here): (&Route, Option<HereOwned>),
    ) -> Result<()> {
        let status = response.status.as_u16();
        // Judged by the upstream's own headers, before some are removed.
        let shared = ctx.sharing.lead.take().zip(route.coalesce.clone());
        // A stream is not shared: nobody could wait for its end.
        let shared = shared.filter(|_| !ctx.kind.stream);
        let shared = shared.filter(|(_, rules)| rules.may_share(status, &response.headers));
        let kept = self.begin_storing(session, response, ctx);
        let target = target(session, &ctx.sent.as_ref().ok_or_else(unsent)?.edits);
        let redacts = ctx.body.redacting.is_some();
        head_edit::edit_response(response, |parts| {
            let headers = &mut parts.headers;
            headers.reserve(8);
            if status == 429 && !headers.contains_key(header::RETRY_AFTER) {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            edit_cookies(headers, route);
            if let Some(here) = &here {
                relocate(headers, route, &target, here.borrowed());
            }
            if route.delivery {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.remove(header::ETAG);
                headers.remove(header::EXPIRES);
                headers.remove(header::AGE);
            }
            if redacts {
                headers.remove(header::CONTENT_LENGTH);
                headers.remove(header::TRAILER);
                if parts.version != Version::HTTP_2 {
                    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
            }
            ctx.sharing.captured =
                shared.map(|(lead, rules)| lead.capture(parts.status, headers, rules));
            let keeping = kept.zip(route.fallback);
            ctx.sharing.keeping = keeping.map(|((key, varied), rules)| {
                ResponseBuffer::new(key, rules, varied, parts.status, headers)
            });
            headers.insert(X_REQUEST_ID, ctx.recorder.request_id.header());
            // The upstream's own rate limit headers stay as they are.
            if status != 429 {
                rate_limit_headers::told(headers, ctx.recorder.exchange.quota.as_ref(), None);
            }
            if let Some(cors) = &ctx.recorder.snapshot.policy.listeners[self.listener].cors {
                denial_response::cors::allow_of_upstream(
                    headers,
                    cors,
                    &session.req_header().headers,
                );
            }
        });
        Ok(())
    }

    /// An interim response announces headers of the final one, so the same ones are removed or rewritten.
    fn edit_interim(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
        route: &Route,
    ) -> Result<()> {
        let here = self.here(session, response, ctx);
        let edits = &ctx.sent.as_ref().ok_or_else(unsent)?.edits;
        let kept = head_edit::edit_response(response, |parts| {
            let headers = &mut parts.headers;
            edit_cookies(headers, route);
            if let Some(here) = &here {
                relocate(headers, route, &target(session, edits), here.borrowed());
            }
            if route.delivery {
                for name in [header::CACHE_CONTROL, header::ETAG, header::EXPIRES, header::AGE] {
                    headers.remove(name);
                }
            }
            self.keep_outside(session, headers, route, ctx)
        });
        kept.map_err(|denial| ctx.deny(denial))
    }

    /// How the client reaches us, if the response has headers with URLs.
    fn here(&self, session: &Session, response: &ResponseHeader, ctx: &Ctx) -> Option<HereOwned> {
        let names_some = REFERENCES.iter().any(|name| response.headers.contains_key(name));
        let upstream = &ctx.sent.as_ref().filter(|_| names_some)?.upstream;
        let came = session.req_header();
        let head = head(self.listener, self.tls, session, came, None);
        let trusted = &ctx.recorder.snapshot.policy.listeners[self.listener].trusted_proxies;
        let believed = trusted.iter().any(|net| net.contains(&head.peer.to_canonical()));
        let proto = came.headers.get(X_FORWARDED_PROTO).filter(|_| believed);
        // The first of several is the client's.
        let proto = proto.and_then(|proto| proto.to_str().ok()?.split(',').next());
        let tls = proto.map_or(self.tls, |proto| proto.trim().eq_ignore_ascii_case("https"));
        let host = std::str::from_utf8(head.host?).ok()?.to_owned();
        let preserved = upstream.written.preserve_host;
        Some(HereOwned { scheme: if tls { "https" } else { "http" }, host, preserved })
    }
}

/// Begins to redact the body, if the route asks for it and the body may be JSON.
fn begin_redaction(response: &ResponseHeader, ctx: &mut Ctx, route: &Route) -> Result<()> {
    let redacts = response.status != 101 && !route.options.redact.is_empty();
    let content_type = response.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let Some(kind) = redacts.then(|| Kind::of(content_type)).flatten() else { return Ok(()) };
    if response.headers.contains_key(header::CONTENT_ENCODING) {
        return Err(ctx.deny(Denial::RedactionImpossible { upstream: route.upstream.clone() }));
    }
    ctx.body.redacting = Some(Redactor::new(kind));
    Ok(())
}

/// Cookies of an external upstream are not for the portal's browsers; those of others get our path.
fn edit_cookies(headers: &mut HeaderMap, route: &Route) {
    if route.external {
        headers.remove(header::SET_COOKIE);
    } else if !route.url_rewrite.is_plain() {
        change(headers, &header::SET_COOKIE, |cookie| route.url_rewrite.our_cookie(cookie));
    }
}

/// Headers that name URLs (RFC 9110 10.2.2, 8.7; RFC 8288).
const REFERENCES: [HeaderName; 3] = [header::LOCATION, header::CONTENT_LOCATION, header::LINK];

struct HereOwned {
    scheme: &'static str,
    host: String,
    preserved: bool,
}

impl HereOwned {
    fn borrowed(&self) -> Here<'_> {
        Here { scheme: self.scheme, host: &self.host, preserved: self.preserved }
    }
}

/// The target that was sent to the upstream.
fn target<'a>(session: &'a Session, edits: &'a Edits) -> Cow<'a, str> {
    match &edits.target {
        Some(target) => Cow::Borrowed(&**target),
        None => String::from_utf8_lossy(session.req_header().raw_path()),
    }
}

/// Rewrites the upstream's own URLs to ours, so that clients who follow them come back through here.
fn relocate(headers: &mut HeaderMap, route: &Route, target: &str, here: Here<'_>) {
    for name in &REFERENCES {
        change(headers, name, |text| match *name {
            header::LINK => route.url_rewrite.our_links(text, target, here),
            _ => route.url_rewrite.ours(text, target, here),
        });
    }
}

/// Replaces the values of a header for which `other` has another.
fn change(headers: &mut HeaderMap, name: &HeaderName, other: impl Fn(&str) -> Option<String>) {
    let changed = headers.get_all(name).iter().map(|value| {
        let other = value.to_str().ok().and_then(&other);
        other.and_then(|text| HeaderValue::from_str(&text).ok()).unwrap_or_else(|| value.clone())
    });
    let changed: Vec<HeaderValue> = changed.collect();
    headers.remove(name);
    for value in changed {
        headers.append(name.clone(), value);
    }
}

/// What a response says about the upstream's quota.
fn upstream_quota(status: u16, headers: &HeaderMap) -> UpstreamQuota<'_> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    UpstreamQuota {
        status,
        retry_after: text("retry-after"),
        remaining: text("x-ratelimit-remaining"),
        reset: text("x-ratelimit-reset"),
    }
}
