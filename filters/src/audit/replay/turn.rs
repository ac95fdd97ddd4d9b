//! The smallest changes to a config that would reverse a recorded decision. Each is tested: it is applied to
//! the config, and the same functions decide again.

mod closing;
mod edit;
mod opening;

use config::Config;

use self::{
    closing::closing,
    edit::{Edit, RouteOwner, whose},
    opening::opening,
};
use super::{Decided, Replay, Why, record::Record};
use crate::{Denial, Policy};

/// The maximum of changes that are tried: each needs its own policy.
const TRIED_MAX: usize = 100;

/// A change that reverses a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Where to make it, as `file:line:column`; empty if nothing is written yet.
    pub place: String,
    /// What to write there.
    pub change: String,
    /// What it leaves open, because it is not recorded.
    pub unsettled: Option<&'static str>,
}

/// The changes to `config` that reverse the decision `decided` about `record`, the narrowest first.
pub fn turns(config: &Config, record: &Record<'_>, decided: &Decided) -> Vec<Turn> {
    let edits = match &decided.denial {
        Some(denial) => opening(config, record, decided, denial),
        None => closing(config, decided),
    };
    let denied = decided.denial.is_some();
    edits
        .into_iter()
        .take(TRIED_MAX)
        .filter_map(|edit| proven(config, record, edit, denied))
        .collect()
}

/// Why the decision cannot be reversed; `None` if it may be.
pub fn settled(config: &Config, decided: &Decided) -> Option<String> {
    let denial = decided.denial.as_ref()?;
    let delivery = decided.exchange.route.as_ref().is_some_and(|route| route.delivery);
    Some(match denial {
        Denial::ClassAdmin { .. } => {
            "requests of class admin never pass, for any caller: no setting opens them".into()
        }
        Denial::RouteClosed { route } if delivery => format!(
            "`{route}` is closed for good if the upstream decides about delivery, unless its preset can open it"
        ),
        Denial::RouteClosed { route } => match whose(config, route) {
            Some((RouteOwner::Preset(_, name), _)) => {
                format!(
                    "`{name}` may be closed for good by its preset: `open` can open only routes that the preset leaves to you"
                )
            }
            _ => return None,
        },
        Denial::PathAmbiguous { .. } => "the client must write the path in its normal form".into(),
        Denial::HostInvalid => "the client must name a host".into(),
        Denial::TargetInvalid(_) => "the client must name a host and a port".into(),
        Denial::WorkspaceAmbiguous => "the client must name one workspace".into(),
        Denial::AuthorizationAmbiguous => "the client must send one token".into(),
        Denial::IdempotencyKeyInvalid => "the client must send one `Idempotency-Key`".into(),
        Denial::GraphqlMalformed { .. } => "the client must send one operation, as JSON".into(),
        Denial::QueryRefused { parameter } => format!(
            "the value of `{parameter}` is recorded only as a fingerprint; if you know it, add it to the values that the route allows"
        ),
        Denial::WorkspaceMissing => {
            "the client can name a workspace that its caller is a member of, in the header".into()
        }
        Denial::HelloRefused { .. } => "the client must use TLS and name the requested host".into(),
        _ => return None,
    })
}

fn proven(config: &Config, record: &Record<'_>, edit: Edit, denied: bool) -> Option<Turn> {
    let mut changed = config.clone();
    (edit.apply)(&mut changed);
    let decided = Replay::new(Policy::new(&changed, "changed")).decide(record);
    let unsettled = match decided {
        Ok(decided) if decided.denial.is_none() == denied => decided.unjudged,
        // It gets further than before.
        Err(Why::NoCaller) if denied => Some("who called, and so what they may do"),
        _ => return None,
    };
    // Last, as it costs the most.
    is_valid(config, &changed).then_some(Turn { place: edit.place, change: edit.change, unsettled })
}

/// Whether the config loads with the change, if it would without.
fn is_valid(before: &Config, after: &Config) -> bool {
    let loads = |config: &Config| {
        let text = serde_json::to_string(config).expect("a config is data");
        config::parse("changed", &text).is_ok()
    };
    loads(after) || !loads(before)
}
