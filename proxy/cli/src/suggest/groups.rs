//! Hosts that are allowed together, under a name.

use std::collections::{BTreeMap, BTreeSet};

use config::{HostRule, Name};

use super::{
    calls::{Tally, Where, Who},
    context::Context,
};

/// A called host and port, and how.
pub(super) type Hosts = BTreeMap<Where, Tally>;

/// The groups of the config and of ours that cover some of these hosts, those that cover most first.
pub(super) fn covering<'a>(
    hosts: &'a Hosts,
    context: &'a Context<'_>,
) -> Vec<(&'a Name, Vec<&'a Where>)> {
    let mut left: Vec<&Where> = hosts.keys().collect();
    let mut chosen = Vec::new();
    loop {
        let mut best: Option<(&Name, Vec<&Where>)> = None;
        for (name, group) in &context.groups {
            let of: Vec<&Where> =
                left.iter().copied().filter(|place| group.iter().any(|r| place.is_of(r))).collect();
            if of.len() > best.as_ref().map_or(0, |(_, of)| of.len()) {
                best = Some((name, of));
            }
        }
        let Some((name, of)) = best else { return chosen };
        left.retain(|place| !of.contains(place));
        chosen.push((name, of));
    }
}

/// Hosts that the same several callers call become a group, so that a change is made once.
pub(super) fn shared(
    wanted: &BTreeMap<Who, Hosts>,
    context: &Context<'_>,
) -> Vec<(String, BTreeSet<Where>)> {
    let mut callers: BTreeMap<&Where, BTreeSet<&Who>> = BTreeMap::new();
    for (who, hosts) in wanted {
        let covered: Vec<&Where> =
            covering(hosts, context).into_iter().flat_map(|(_, of)| of).collect();
        for place in hosts.keys().filter(|place| !covered.contains(place)) {
            callers.entry(place).or_default().insert(who);
        }
    }
    let mut by_callers: BTreeMap<BTreeSet<&Who>, BTreeSet<Where>> = BTreeMap::new();
    for (place, callers) in callers {
        by_callers.entry(callers).or_default().insert(place.clone());
    }
    let own = context.egress.hosts.keys().map(ToString::to_string);
    let shipped = config::shipped_hosts();
    let mut names: BTreeSet<String> = own.chain(shipped.keys().map(ToString::to_string)).collect();
    by_callers
        .into_iter()
        .filter(|(callers, hosts)| callers.len() > 1 && hosts.len() > 1)
        .map(|(_, hosts)| (free_name("shared", &mut names), hosts))
        .collect()
}

/// A free name, which is reserved by this.
pub(super) fn free_name(wish: &str, taken: &mut BTreeSet<String>) -> String {
    let room = Name::LENGTH_MAX - "-99999".len();
    let wish = &wish[..wish.len().min(room)];
    let numbered = (2_u32..).map(|n| format!("{wish}-{n}"));
    let free = std::iter::once(wish.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.expect("there are more numbers than names");
    taken.insert(free.clone());
    free
}

impl Where {
    fn is_of(&self, rule: &HostRule) -> bool {
        let host = match self.host.strip_suffix(&rule.host) {
            Some(before) if rule.subdomains => before.ends_with('.'),
            Some(before) => before.is_empty(),
            None => false,
        };
        host && self.port == rule.port
    }
}
