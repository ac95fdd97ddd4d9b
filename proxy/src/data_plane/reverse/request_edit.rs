//! Edits the head of a request before the upstream gets it.

use filters::headers::{Sender, forwarded_for, hide_portal};
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::{Error, Result, http::RequestHeader, proxy::Session};

use super::{
    Ctx, DENIED, Reverse,
    sent::{Sent, unsent},
};
use crate::{
    data_plane::request::{X_FORWARDED_PROTO, has_large_body, head},
    head_edit,
    request_id::X_REQUEST_ID,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

impl Reverse {
    pub(super) fn edit_request(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &Ctx,
    ) -> Result<()> {
        let large = has_large_body(session);
        let policy = &ctx.recorder.snapshot.policy;
        let came = session.req_header();
        let head = head(self.listener, self.tls, session, came, None);
        let trusted = &policy.listeners[self.listener].trusted_proxies;
        let believed = trusted.iter().any(|net| net.contains(&head.peer.to_canonical()));
        let proto = came.headers.get(X_FORWARDED_PROTO).filter(|_| believed);
        let https = HeaderValue::from_static(if self.tls { "https" } else { "http" });
        let host = head.host.and_then(|host| HeaderValue::from_bytes(host).ok());
        let sent = ctx.sent.as_ref().ok_or_else(unsent)?;
        let Sent { request: admitted, edits, upstream, shown, .. } = sent;
        let route = &admitted.route;
        let edited: Result<()> = head_edit::edit_request(request, |parts| {
            let headers = &mut parts.headers;
            headers.reserve(12);
            join_cookies(headers);
            if large && parts.version != Version::HTTP_2 {
                // An upstream that responds before it has read the whole body may never read the rest:
                // this connection is not reused.
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let sender = if believed { Sender::TrustedProxy } else { Sender::Stranger };
            for name in policy.headers.strip(headers, sender) {
                headers.remove(&name);
            }
            if let Some(scope) = &upstream.idempotency {
                scope.narrow(headers, admitted.who.caller().map(|caller| &**caller));
            }
            if route.external {
                hide_portal(headers, route.options.public);
            }
            for (name, value) in &edits.set {
                headers.insert(name.clone(), value.clone());
            }
            if !route.external {
                headers.insert(X_FORWARDED_FOR, forwarded_for(&head, trusted));
                headers.insert(X_FORWARDED_PROTO, proto.cloned().unwrap_or(https));
                if let Some(host) = &host {
                    headers.insert(X_FORWARDED_HOST, host.clone());
                }
                if let Some(ours) = route.url_rewrite.prefix() {
                    // A proxy in front of us may have removed a prefix, too.
                    let before = headers.get(X_FORWARDED_PREFIX).and_then(|v| v.to_str().ok());
                    let whole = format!("{}{ours}", before.unwrap_or("").trim_end_matches('/'));
                    if let Ok(whole) = HeaderValue::from_str(&whole) {
                        headers.insert(X_FORWARDED_PREFIX, whole);
                    }
                }
            }
            headers.insert(X_REQUEST_ID, ctx.recorder.request_id.header());
            let kept = host.filter(|_| upstream.written.preserve_host);
            headers.insert(header::HOST, kept.unwrap_or_else(|| upstream.host.clone()));
            if !route.options.redact.is_empty() {
                // A body that is redacted must not be compressed, nor be a range.
                headers.remove(header::ACCEPT_ENCODING);
                headers.remove(header::RANGE);
            }
            if ctx.kind.grpc {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            if let Some(target) = &edits.target {
                parts.uri = target.parse().map_err(|_| Error::new(DENIED))?;
            }
            let parent = upstream.parent.as_ref().filter(|_| !upstream.written.url.tls);
            if let Some(login) = parent.and_then(|parent| parent.authorization()) {
                parts.headers.insert(header::PROXY_AUTHORIZATION, login);
            }
            // Last, so that nothing else can add to it.
            if let Some((credential, shown)) = shown {
                credential.show(&mut parts.headers, shown.value());
            }
            Ok(())
        });
        edited?;
        if upstream.parent.is_none() || upstream.written.url.tls {
            return Ok(());
        }
        // A proxy needs the absolute form.
        let url = format!("http://{}", upstream.written.url.authority());
        let url = [url.as_bytes(), request.raw_path()].concat();
        request.set_raw_path(&url)
    }
}

/// HTTP/2 may split `Cookie`; upstreams expect one line (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    if pieces.next().is_none() || pieces.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let all = all.join(&b"; "[..]);
    // Parts of valid headers are valid together.
    if let Ok(joined) = HeaderValue::from_bytes(&all) {
        headers.insert(header::COOKIE, joined);
    }
}
