//! Redacts JSON responses.

use std::sync::Arc;

use bytes::Bytes;
use filters::Denial;
use pingora::Result;

use super::{Ctx, sent::unsent};
use crate::data_plane::request::control_id;

/// Replaces a part of a response by what may be forwarded of it and of the parts before.
pub(super) fn redact(body: &mut Option<Bytes>, end_of_stream: bool, ctx: &mut Ctx) -> Result<()> {
    let Some(redactor) = &mut ctx.body.redacting else { return Ok(()) };
    let route = Arc::clone(&ctx.sent.as_ref().ok_or_else(unsent)?.request.route);
    let part = body.take().unwrap_or_default();
    match redactor.part(part, end_of_stream, &route.options.redact) {
        Ok(left) => {
            if end_of_stream && route.class == config::Class::Action {
                ctx.recorder.ended.control_id = control_id(&left);
            }
            *body = Some(left).filter(|left| end_of_stream || !left.is_empty());
            Ok(())
        }
        Err(_) => Err(ctx.deny(Denial::RedactionImpossible { upstream: route.upstream.clone() })),
    }
}
