//! The config that a proposal is an addition to.

use std::{collections::BTreeSet, net::IpAddr};

use config::{Config, HostRule, Name};
use filters::{Label, Now, addresses::AddressClass, allowlist::Allowlist, guard::Guard};

use super::calls::{Where, Who};

/// The config that a proposal is an addition to.
pub(super) struct Context<'a> {
    pub(super) config: Option<&'a Config>,
    pub(super) egress: config::Egress,
    guard: Guard,
    allowlist: Allowlist,
    pub(super) groups: Vec<(Name, Vec<HostRule>)>,
    /// The registered names of hosts that are allowed already.
    pub(super) known: BTreeSet<String>,
}

impl<'a> Context<'a> {
    /// Without a config, nothing is allowed, and no group exists.
    pub(super) fn of(config: Option<&'a Config>) -> Self {
        let egress = config.map(|config| config.egress.clone()).unwrap_or_default();
        let shipped = config::shipped_hosts();
        let own = egress.hosts.iter().map(|(name, hosts)| {
            (name.clone(), hosts.iter().map(|host| host.value.clone()).collect())
        });
        let unshadowed = shipped.iter().filter(|(name, _)| !egress.hosts.contains_key(*name));
        let groups: Vec<(Name, Vec<HostRule>)> = own
            .chain(unshadowed.map(|(name, group)| (name.clone(), group.hosts.clone())))
            .collect();
        let in_rules = egress.rules.iter().flat_map(|rule| egress.hosts_of(rule, &shipped));
        let known = groups.iter().flat_map(|(_, hosts)| hosts.clone()).chain(in_rules);
        let known = known.filter_map(|rule| config::registered(&rule.host).map(str::to_owned));
        Self {
            config,
            guard: Guard::new(&egress),
            allowlist: Allowlist::new(&egress),
            known: known.collect(),
            groups: if config.is_some() { groups } else { Vec::new() },
            egress,
        }
    }

    /// The class of an address, if the host may not have it. Whether one of this machine's addresses is the
    /// proxy's is unknown.
    pub(super) fn refuses(&self, place: &Where, ip: IpAddr) -> Option<AddressClass> {
        self.guard.judge(&place.target()?, ip, &[], proxy::clock::now()).err()
    }

    pub(super) fn allows(&self, who: &Who, place: &Where, now: Now) -> bool {
        let Some(target) = place.target() else { return false };
        let (plugin, workspace) =
            (who.plugin.as_ref().map(Label::from), who.workspace.as_ref().map(Label::from));
        let found = self.allowlist.allow(&target, plugin.as_ref(), workspace.as_ref(), now);
        found.is_ok_and(|rule| !rule.report_only)
    }

    /// Whether a rule can name this workspace. Without a config that is unknown.
    pub(super) fn can_name(&self, workspace: Option<&Name>) -> bool {
        let (Some(config), Some(workspace)) = (self.config, workspace) else { return true };
        config.workspaces.undeclared || config.workspaces.named.contains_key(workspace)
    }
}
