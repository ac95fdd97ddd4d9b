//! A plain request in absolute form (`GET http://host/path`), sent by Pingora to an address that passed
//! the guard.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use filters::{
    Denial, Label, Step,
    audit::{CallConnection, Received},
    client_hello::Peek,
    headers::Sender,
    redirect, streams,
    target::{Host, Target},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    proxy::{FailToProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};

use super::{AdmittedCall, Forward, ProxyCaller, tunnel::proxy_status};
use crate::{
    clock,
    data_plane::{
        denial_response as denied, error_mapping, hop_by_hop,
        recorder::{RecordKind, Recorder},
        request::{facts_of, has_large_body, peer},
    },
    head_edit,
    net::parent::{Fault, Parent},
    progress,
    request_id::{RequestId, X_REQUEST_ID},
    upstream::{self, upgrade},
};

/// The plain requests of one forward listener.
pub struct Plain {
    /// The listener's calls.
    pub forward: Arc<Forward>,
    /// How long a client may send nothing within a request body.
    pub body_timeout: Duration,
    /// How long one write to a client may block.
    pub write_timeout: Duration,
}

/// One exchange.
pub struct Ctx {
    /// What its record will say.
    recorder: Recorder,
    /// The path and query that are sent.
    path: Vec<u8>,
    going: Option<AdmittedCall>,
    /// The addresses to dial: those of its host, or of the parent proxy.
    addresses: Vec<SocketAddr>,
    /// How many of them could not be connected to.
    failed: usize,
    /// How many interim responses (1xx) were received.
    interim: u32,
}

#[async_trait]
impl ProxyHttp for Plain {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx {
            recorder: Recorder::new(&self.forward.gateway, RecordKind::Call),
            path: Vec::new(),
            going: None,
            addresses: Vec::new(),
            failed: 0,
            interim: 0,
        }
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let downstream = session.as_downstream_mut();
        downstream.set_read_timeout(Some(self.body_timeout));
        downstream.set_write_timeout(Some(self.write_timeout));
        downstream.set_close_on_response_before_downstream_finish(true);
        downstream.set_ignore_info_resp(downstream.req_header().version == Version::HTTP_10);
        upgrade::note_offer(downstream.req_header_mut());
        hop_by_hop::end(session.req_header_mut(), |_| false);
        ctx.recorder.request_id = RequestId::of(session.req_header());
        let decided = self.decide(session, ctx).await;
        let Err(denial) = decided.and_then(|()| ctx.recorder.register(None)) else {
            ctx.recorder.exchange.steps.enter(Step::Upstream);
            return Ok(false);
        };
        if !session.as_downstream_mut().is_body_empty() {
            session.as_downstream_mut().set_keepalive(None);
        }
        denied::write_proxy(
            session,
            &ctx.recorder.exchange,
            &denial,
            proxy_status(&denial),
            &ctx.recorder.request_id,
        )
        .await?;
        ctx.recorder.ended.denial = Some(denial);
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let address = *ctx.addresses.get(ctx.failed).ok_or_else(not_going)?;
        ctx.recorder.ended.upstream_address = Some(address);
        ctx.recorder.ended.attempts = 1;
        let mut peer = match ctx.parent() {
            Some(parent) => Box::new(parent.peer(address)?),
            None => Box::new(HttpPeer::new(address, false, String::new())),
        };
        let egress = &ctx.recorder.snapshot.loaded.config.egress;
        // Each address has its share of the time, as in `Dial::connect`.
        let parts = u32::try_from(ctx.addresses.len()).unwrap_or(u32::MAX);
        let connect = *egress.connect_timeout / parts;
        peer.options.connection_timeout = Some(connect);
        peer.options.total_connection_timeout = Some(connect);
        peer.options.read_timeout = Some(*egress.idle_timeout);
        peer.options.write_timeout = Some(*egress.idle_timeout);
        if has_large_body(session) {
            let transport = upstream::Transport { patience: connect, through: None };
            upstream::upload::decorate(&mut peer, transport);
        }
        // No connection is reused: the next call may be for another name at this address.
        peer.options.idle_timeout = Some(Duration::ZERO);
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let target = ctx.going.as_ref().ok_or_else(not_going)?.call.target();
        let path = &*ctx.path;
        let invalid = || Error::new(ErrorType::InvalidHTTPHeader);
        let host = HeaderValue::from_str(&host_of(target)).map_err(|_| invalid())?;
        let uri = std::str::from_utf8(path).ok().and_then(|path| path.parse().ok());
        let uri = uri.ok_or_else(invalid)?;
        let login = ctx.parent().and_then(|parent| parent.authorization());
        head_edit::edit_request(request, |parts| {
            let headers = &mut parts.headers;
            for name in ctx.recorder.snapshot.policy.headers.strip(headers, Sender::Stranger) {
                headers.remove(&name);
            }
            // Identity headers, in whatever spelling, are for nobody outside.
            let ours: Vec<HeaderName> =
                headers.keys().filter(|name| is_orbit(name)).cloned().collect();
            for name in ours {
                headers.remove(&name);
            }
            headers.insert(header::HOST, host);
            if let Some(login) = login {
                headers.insert(header::PROXY_AUTHORIZATION, login);
            }
        });
        if ctx.parent().is_some() {
            // A parent proxy gets the absolute form, exactly as it was decided about.
            let url = [format!("http://{target}").as_bytes(), path].concat();
            return request.set_raw_path(&url);
        }
        // The server gets the origin form.
        request.set_uri(uri);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        ctx.recorder.ended.bytes_in += body.as_ref().map_or(0, Bytes::len) as u64;
        let bytes_max = ctx.recorder.snapshot.policy.listeners[self.forward.listener].body_max;
        if ctx.recorder.ended.bytes_in > bytes_max {
            ctx.recorder.ended.denial = Some(Denial::BodyTooLarge { bytes_max });
            return Err(Error::new(ErrorType::Custom("denied")));
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let asked = filters::response::RequestTraits {
            websocket: session.as_ref().is_upgrade_req(),
            trailers: false,
            interim: ctx.interim,
        };
        if response.status.is_informational() {
            ctx.interim += 1;
        }
        let settled = head_edit::edit_response(response, |parts| {
            let upstream = ctx.called();
            filters::response::settle(parts, asked)
                .map_err(|why| Denial::UpstreamMalformed { upstream, why })?;
            self.keep_outside(&mut parts.headers, ctx)
        });
        settled.map_err(|denial| {
            ctx.recorder.ended.denial = Some(denial);
            Error::new(ErrorType::Custom("denied"))
        })
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some(parent) = ctx.parent() {
            // The parent proxy wants our credentials, not the client's.
            if response.status == http::StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                ctx.recorder.ended.denial =
                    Some(Denial::ParentRefused { parent: parent.name.clone(), status: 407 });
                return Err(Error::new(ErrorType::Custom("denied")));
            }
        }
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(());
        }
        ctx.recorder.ended.status = response.status.as_u16();
        let length = streams::length(&response.headers);
        progress::ends_with_head(&session.req_header().method, ctx.recorder.ended.status, length);
        ctx.recorder.exchange.steps.enter(Step::Response);
        response.insert_header(X_REQUEST_ID, ctx.recorder.request_id.header())?;
        if self.forward.gateway.drain.is_leaving() {
            session.as_downstream_mut().set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if end_of_stream {
            progress::response_ended();
        }
        ctx.recorder.ended.bytes_out += body.as_ref().map_or(0, Bytes::len) as u64;
        Ok(None)
    }

    /// Nothing was sent yet: try the next address.
    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        ctx.failed += 1;
        error.set_retry(ctx.failed < ctx.addresses.len());
        error
    }

    /// Nobody knows what a call did before it broke, so it is never retried.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        _: &mut Session,
        mut error: Box<Error>,
        _: &mut Ctx,
        _: bool,
    ) -> Box<Error> {
        error.set_retry(false);
        error.more_context(format!("peer {}", peer._address))
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let denial = ctx
            .recorder
            .ended
            .denial
            .take()
            .or_else(|| error_mapping::denial_of(error, ctx.called()));
        let denial = match ctx.parent() {
            Some(parent) => denial.map(|denial| parent.instead_of(denial)),
            None => denial,
        };
        let Some(denial) = denial else {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        let status = denial.status();
        let written = session.as_ref().response_written();
        if written.is_none_or(|head| head.status.is_informational() && head.status != 101) {
            session.as_downstream_mut().set_keepalive(None);
            let written = denied::write_proxy(
                session,
                &ctx.recorder.exchange,
                &denial,
                status,
                &ctx.recorder.request_id,
            )
            .await;
            let _ = written;
        }
        ctx.recorder.ended.denial = Some(denial);
        FailToProxy { error_code: status.as_u16(), can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        let written = session.as_ref().response_written().map_or(0, |head| head.status.as_u16());
        let ended = &mut ctx.recorder.ended;
        ended.status = written;
        ended.bytes_out = session.as_ref().body_bytes_sent() as u64;
        ended.cut = error.is_some() && ended.denial.is_none();
        ctx.recorder.finish();
    }
}

impl Ctx {
    /// The target, as denials name it.
    fn called(&self) -> Label {
        let target = self.recorder.exchange.call.as_ref().map(|call| call.target.to_string());
        Label::lossy(&target.unwrap_or_default())
    }

    /// The parent proxy, if there is one.
    fn parent(&self) -> Option<&Arc<Parent>> {
        self.going.as_ref()?.parent.as_ref()
    }
}

impl Plain {
    /// Keeps the called host from redirecting the caller into our own network.
    fn keep_outside(&self, headers: &mut HeaderMap, ctx: &Ctx) -> std::result::Result<(), Denial> {
        let guard = &ctx.recorder.snapshot.policy.guard;
        let (own, now) = (self.forward.gateway.dial.own_addresses(), clock::now());
        let judge = |ip, port| {
            let target = Target { host: Host::Address(ip), port };
            guard.judge(&target, ip, &own, now).err()
        };
        // A redirect to the same host is fine: the caller is there already.
        let itself = ctx.going.as_ref().map(|going| host_of(going.call.target()));
        let is_known = |text: &str| {
            let authority = text.split_once("://").map(|(_, rest)| rest);
            let authority = authority.and_then(|rest| rest.split(['/', '?', '#']).next());
            authority.is_some() && authority == itself.as_deref()
        };
        if headers.contains_key(header::LINK) {
            redirect::unlink(headers, is_known, judge);
        }
        match redirect::inside(headers, is_known, judge) {
            Some(class) => {
                Err(Denial::RedirectRefused { upstream: ctx.called(), class: class.name() })
            }
            None => Ok(()),
        }
    }

    async fn decide(&self, session: &Session, ctx: &mut Ctx) -> std::result::Result<(), Denial> {
        let request = session.req_header();
        let facts = facts_of(session.as_ref().digest());
        let connection = CallConnection {
            listener: self.forward.listener,
            peer: peer(session),
            tls: facts.is_some(),
            certificate: facts.and_then(|facts| facts.certificate.clone()),
        };
        let certificate = connection.certificate.clone();
        let named = Target::of_url(request.raw_path());
        ctx.recorder.receive(Received::call(
            connection,
            request.method.clone(),
            (request.raw_path(), named.as_ref().map_or(b"", |(_, path)| path)),
            request.headers.get("traceparent").cloned(),
            ctx.recorder.began,
        ));
        let (target, path) = named.map_err(Denial::TargetInvalid)?;
        ctx.path = path.into_owned();
        let authorization = lines(&request.headers, &header::PROXY_AUTHORIZATION);
        let shown = ProxyCaller {
            peer: peer(session),
            certificate: certificate.as_deref(),
            authorization: &authorization,
        };
        let snapshot = Arc::clone(&ctx.recorder.snapshot);
        let (began, exchange) = (ctx.recorder.began, &mut ctx.recorder.exchange);
        let admitted =
            self.forward.admit(&snapshot, (&target, false), &shown, began, exchange).await;
        let going = ctx.going.insert(admitted?);
        ctx.addresses = match &going.parent {
            None => going.addresses(),
            Some(parent) => {
                parent.addresses(&self.forward.gateway.dial).await.map_err(Fault::denial)?
            }
        };
        if going.call.must_be_tls(&snapshot.policy) {
            going.call.hello(&snapshot.policy, &Peek::NotTls, &mut ctx.recorder.exchange)?;
        }
        Ok(())
    }
}

/// Pingora continues with a call that was not admitted. It never does; if it did, the client would get
/// `internal`, and other calls would not be affected.
fn not_going() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a call goes on that was not let out")
}

/// Whether a header is an `X-Orbit-` identity header, in whatever spelling.
fn is_orbit(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    name.len() > 8
        && name[..8].iter().zip(b"x-orbit-").all(|(found, wanted)| {
            found == wanted || (*wanted == b'-' && !found.is_ascii_alphanumeric())
        })
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// The value of `Host`: without the scheme's default port.
fn host_of(target: &Target) -> String {
    let whole = target.to_string();
    whole.strip_suffix(":80").map_or(whole.clone(), str::to_owned)
}
