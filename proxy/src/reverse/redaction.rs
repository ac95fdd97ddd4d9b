//! Answers that are read whole, so that what must not leave can be cut out.

use bytes::Bytes;
use filters::Denial;
use pingora::Result;

use super::Ctx;
use crate::request::control_id;

/// Answers larger than this are not redacted, so they do not leave.
pub(super) const REDACTED_BYTES_MAX: usize = 8 << 20;

/// Takes a part of an answer that is to be redacted, and puts all of it in the place of the last.
pub(super) fn redact(body: &mut Option<Bytes>, end_of_stream: bool, ctx: &mut Ctx) -> Result<()> {
    let Some(whole) = &mut ctx.redacting else { return Ok(()) };
    if let Some(part) = body.take() {
        whole.extend_from_slice(&part);
    }
    let fits = whole.len() <= REDACTED_BYTES_MAX;
    if fits && !end_of_stream {
        return Ok(());
    }
    let whole = ctx.redacting.take().unwrap_or_default().freeze();
    let route = ctx.exchange.route.clone().expect("an admitted request has a route");
    // A HEAD has no body, and neither have some answers.
    let redacted = if whole.is_empty() {
        Ok(whole)
    } else {
        match filters::redact::redact(&whole, &route.options.redact) {
            Ok(std::borrow::Cow::Borrowed(_)) => Ok(whole.clone()),
            Ok(std::borrow::Cow::Owned(kept)) => Ok(kept.into()),
            Err(_) => Err(()),
        }
    };
    match redacted {
        Ok(kept) if fits => {
            if route.class == config::Class::Action {
                ctx.control_id = control_id(&kept);
            }
            *body = Some(kept);
            Ok(())
        }
        _ => Err(ctx.deny(Denial::RedactionImpossible { upstream: route.upstream.clone() })),
    }
}
