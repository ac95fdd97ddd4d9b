//! Changes that no request causes: they are logged, counted and recorded.

use filters::{
    Label,
    audit::event::{Event, SwitchChange},
    breaker::Transition,
    health::Change,
    switches::Switch,
};

use super::{audit::Audit, metrics::Metrics};

/// A breaker moved.
pub fn breaker_moved(audit: &Audit, moved: &Transition) {
    let key = &moved.key;
    let (upstream, plugin) = (&*key.upstream, key.plugin.as_deref());
    let (host, part) = (key.host.as_deref(), key.part.as_deref());
    let (position, cause) = (moved.to.name(), moved.cause.name());
    tracing::warn!(upstream, plugin, host, part, position, cause, "breaker changed");
    audit.happened(&Event::Breaker { upstream, plugin, host, part, position, cause });
}

/// An address of an upstream is out, or is used again.
pub fn address_changed(audit: &Audit, metrics: &Metrics, upstream: &Label, change: &Change) {
    let address = change.at.to_string();
    let condition = change.to.name();
    let reason = change.to.fault().map(|fault| fault.name());
    tracing::warn!(%upstream, address, condition, reason, "an address's health changed");
    if let Some(reason) = reason {
        metrics.ejected(upstream, reason);
    }
    audit.happened(&Event::Address {
        upstream,
        address: &address,
        condition,
        reason,
        until: change.to.until(),
    });
}

/// An operator's switch was set or removed, or has ended.
pub fn switch_changed(audit: &Audit, switch: &Switch, change: SwitchChange<'_>) {
    let (id, scope, position) = (switch.id, &switch.scope, switch.position.name());
    tracing::warn!(id, %scope, position, by = %switch.by, reason = %switch.reason, "switch {}", change.name());
    audit.happened(&Event::Switch { switch, change });
}
