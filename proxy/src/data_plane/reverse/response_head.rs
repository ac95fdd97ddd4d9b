//! Checks the head of a response: whether it can be read in only one way, and where its URLs lead.

use filters::{
    Denial, redirect,
    routes::Route,
    target::{Host, Target},
};
use http::{HeaderMap, Version, header};
use pingora::{Result, http::ResponseHeader, proxy::Session};

use super::{Ctx, Reverse};
use crate::{clock, data_plane::request::host, head_edit};

impl Reverse {
    /// Makes sure that a response head can be read in only one way, or denies it.
    pub(super) fn settle(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let asked = filters::response::RequestTraits {
            websocket: ctx.kind.upgrade,
            trailers: session.req_header().version == Version::HTTP_2,
            interim: ctx.response.interim,
        };
        if response.status.is_informational() {
            ctx.response.interim += 1;
        }
        let upstream = ctx.recorder.upstream();
        head_edit::edit_response(response, |parts| filters::response::settle(parts, asked))
            .map_err(|why| ctx.deny(Denial::UpstreamMalformed { upstream, why }))
    }

    /// Keeps an external upstream from redirecting a client into our own network.
    pub(super) fn keep_outside(
        &self,
        session: &Session,
        headers: &mut HeaderMap,
        route: &Route,
        ctx: &Ctx,
    ) -> std::result::Result<(), Denial> {
        if !route.external {
            return Ok(());
        }
        let guard = &ctx.recorder.snapshot.policy.guard;
        let (own, now) = (self.gateway.dial.own_addresses(), clock::now());
        let judge = |ip, port| {
            let target = Target { host: Host::Address(ip), port };
            guard.judge(&target, ip, &own, now).err()
        };
        let ours = host(session.req_header()).and_then(|host| std::str::from_utf8(host).ok());
        let is_known = |text: &str| {
            let authority = text.split_once("://").map(|(_, rest)| rest);
            let authority = authority.and_then(|rest| rest.split(['/', '?', '#']).next());
            authority.is_some() && authority == ours
        };
        if headers.contains_key(header::LINK) {
            redirect::unlink(headers, is_known, judge);
        }
        match redirect::inside(headers, is_known, judge) {
            Some(class) => {
                let upstream = route.upstream.clone();
                Err(Denial::RedirectRefused { upstream, class: class.name() })
            }
            None => Ok(()),
        }
    }
}
