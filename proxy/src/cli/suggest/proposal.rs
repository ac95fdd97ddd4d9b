//! The proposal as YAML: rules by plugin and workspace, with what a reviewer should know.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

use config::{Config, HostRule, Name};
use filters::{Label, Now, addresses::AddressClass, allowlist::Allowlist, guard::Guard};

use super::{
    calls::{Calls, Tally, Where, Who},
    risks,
};

/// The config that a proposal is an addition to.
pub(super) struct Standing<'a> {
    config: Option<&'a Config>,
    pub(super) egress: config::Egress,
    guard: Guard,
    allowlist: Allowlist,
    groups: Vec<(Name, Vec<HostRule>)>,
    /// The registered names of hosts that somebody has thought about.
    pub(super) known: BTreeSet<String>,
}

impl<'a> Standing<'a> {
    /// Without a config: nothing is allowed, and no group is known by name.
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

    /// The class of an address that this host may not have. Of this machine's own it is not known
    /// whether they are the proxy's.
    pub(super) fn refuses(&self, place: &Where, ip: IpAddr) -> Option<AddressClass> {
        self.guard.judge(&place.target()?, ip, &[], crate::clock::now()).err()
    }

    fn allows(&self, who: &Who, place: &Where, now: Now) -> bool {
        let Some(target) = place.target() else { return false };
        let (plugin, workspace) =
            (who.plugin.as_ref().map(Label::from), who.workspace.as_ref().map(Label::from));
        let found = self.allowlist.allow(&target, plugin.as_ref(), workspace.as_ref(), now);
        found.is_ok_and(|rule| !rule.report_only)
    }

    /// Whether a rule can name this workspace. Without a config that cannot be known.
    fn can_name(&self, workspace: Option<&Name>) -> bool {
        let (Some(config), Some(workspace)) = (self.config, workspace) else { return true };
        config.workspaces.undeclared || config.workspaces.named.contains_key(workspace)
    }
}

type Hosts = BTreeMap<Where, Tally>;

/// The proposal, and in comments what is not in it.
pub(super) fn write(calls: Calls, standing: &Standing<'_>, now: Now) -> String {
    let mut wanted: BTreeMap<Who, Hosts> = BTreeMap::new();
    let mut notes: BTreeSet<String> = BTreeSet::new();
    let mut allowed = 0_u64;
    for ((who, place), tally) in calls.by {
        let host = place.rule();
        if tally.calls == 0 {
            notes.extend(refused_otherwise(&who, &place, &tally, standing));
        } else if standing.allows(&who, &place, now) {
            allowed += tally.calls;
        } else if standing.can_name(who.workspace.as_ref()) {
            wanted.entry(who).or_default().insert(place, tally);
        } else {
            notes.insert(format!("{host} for {who}: `workspaces.named` has no such workspace"));
        }
    }
    let mut text = "# A proposal, from what was called. That something was called does not say that it should be:\n\
         # read every line, delete what nobody can explain, and give rules an `owner` and a `reason`.\n\
         # Paste what is below `egress:` there, or save all of it as a file that `include` names.\n"
        .to_owned();
    if standing.config.is_none() {
        text += "# Made without the config (`-c`): what its rules allow is not left out, and its workspaces and\n# groups of hosts are not known.\n";
    }
    if allowed > 0 {
        put(&mut text, 0, &format!("# Left out: {allowed} calls that the rules allow now"));
    }
    for note in &notes {
        put(&mut text, 0, &format!("# Not proposed: {note}"));
    }
    if wanted.is_empty() {
        return text + "# No rule is missing.\n";
    }
    let shared = shared(&wanted, standing);
    text += "egress:\n";
    if !shared.is_empty() {
        put(&mut text, 1, "hosts:");
    }
    for (name, hosts) in &shared {
        put(&mut text, 2, &format!("{}:", quoted(name)));
        for place in hosts {
            let mut all = Tally::default();
            wanted.values().filter_map(|hosts| hosts.get(place)).for_each(|tally| all.add(tally));
            listed(&mut text, 3, place, &all, standing);
        }
    }
    put(&mut text, 1, "rules:");
    let mut names: BTreeSet<String> =
        standing.egress.rules.iter().map(|rule| rule.name.to_string()).collect();
    for (who, hosts) in &wanted {
        rule(&mut text, who, hosts, &shared, standing, &mut names);
    }
    text
}

fn rule(
    text: &mut String,
    who: &Who,
    hosts: &Hosts,
    shared: &[(String, BTreeSet<Where>)],
    standing: &Standing<'_>,
    names: &mut BTreeSet<String>,
) {
    let mut all = Tally::default();
    hosts.values().for_each(|tally| all.add(tally));
    put(text, 2, &format!("# {who}: {}", facts(&all)));
    match (&who.plugin, &who.workspace) {
        (None, None) => {
            put(text, 2, "# Risk: unattributed, so this rule would be for every caller");
        }
        (None, _) => {
            put(text, 2, "# Risk: no plugin is known, so this rule would be for all of them")
        }
        _ => {}
    }
    put(text, 2, &format!("- name: {}", quoted(&free_name(&who.rule_name(), names))));
    if let Some(plugin) = &who.plugin {
        put(text, 3, &format!("plugins: [{}]", quoted(plugin)));
    }
    if let Some(workspace) = &who.workspace {
        put(text, 3, &format!("workspaces: [{}]", quoted(workspace)));
    }
    put(text, 3, "to:");
    let mut left: BTreeSet<&Where> = hosts.keys().collect();
    for (group, of_group) in covering(hosts, standing) {
        put(text, 4, "# Of its hosts were called:");
        for place in &of_group {
            left.remove(place);
            let tally = &hosts[*place];
            put(text, 4, &format!("#   {}: {}", place.rule(), facts(tally)));
            risky(text, 4, place, tally, standing);
        }
        put(text, 4, &format!("- {}", quoted(group)));
    }
    for (group, of_group) in shared {
        // Whoever calls one of them calls all.
        if of_group.iter().all(|place| left.contains(place)) {
            put(text, 4, &format!("- {}", quoted(group)));
            left.retain(|place| !of_group.contains(*place));
        }
    }
    for place in left {
        listed(text, 4, place, &hosts[place], standing);
    }
}

/// The groups of the config and of ours that cover some of these hosts, those that cover most first.
fn covering<'a>(hosts: &'a Hosts, standing: &'a Standing<'_>) -> Vec<(&'a Name, Vec<&'a Where>)> {
    let mut left: Vec<&Where> = hosts.keys().collect();
    let mut chosen = Vec::new();
    loop {
        let mut best: Option<(&Name, Vec<&Where>)> = None;
        for (name, group) in &standing.groups {
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
fn shared(
    wanted: &BTreeMap<Who, Hosts>,
    standing: &Standing<'_>,
) -> Vec<(String, BTreeSet<Where>)> {
    let mut callers: BTreeMap<&Where, BTreeSet<&Who>> = BTreeMap::new();
    for (who, hosts) in wanted {
        let covered: Vec<&Where> =
            covering(hosts, standing).into_iter().flat_map(|(_, of)| of).collect();
        for place in hosts.keys().filter(|place| !covered.contains(place)) {
            callers.entry(place).or_default().insert(who);
        }
    }
    let mut by_callers: BTreeMap<BTreeSet<&Who>, BTreeSet<Where>> = BTreeMap::new();
    for (place, callers) in callers {
        by_callers.entry(callers).or_default().insert(place.clone());
    }
    let own = standing.egress.hosts.keys().map(ToString::to_string);
    let shipped = config::shipped_hosts();
    let mut names: BTreeSet<String> = own.chain(shipped.keys().map(ToString::to_string)).collect();
    by_callers
        .into_iter()
        .filter(|(callers, hosts)| callers.len() > 1 && hosts.len() > 1)
        .map(|(_, hosts)| (free_name("shared", &mut names), hosts))
        .collect()
}

/// A host whose name is allowed, or need not be: something else refused it.
fn refused_otherwise(
    who: &Who,
    place: &Where,
    tally: &Tally,
    standing: &Standing<'_>,
) -> Vec<String> {
    let host = place.rule();
    let mut notes = Vec::new();
    if tally.by_hello > 0 {
        notes.push(format!(
            "{host} for {who}: {} times what came first was not TLS for this host; see docs/egress.md",
            tally.by_hello
        ));
    }
    if tally.by_address > 0 {
        let times = tally.by_address;
        notes.push(format!("{host} for {who}: refused by its address {times} times"));
        let of = tally.addresses.some.iter();
        let refused = of.filter_map(|ip| Some((*ip, standing.refuses(place, *ip)?)));
        notes.extend(refused.map(|(ip, c)| format!("{host}: {}", risks::private(place, ip, c))));
    }
    notes
}

fn listed(text: &mut String, depth: usize, place: &Where, tally: &Tally, standing: &Standing<'_>) {
    put(text, depth, &format!("# {}", facts(tally)));
    risky(text, depth, place, tally, standing);
    put(text, depth, &format!("- {}", quoted(&place.rule().to_string())));
}

fn risky(text: &mut String, depth: usize, place: &Where, tally: &Tally, standing: &Standing<'_>) {
    for risk in risks::of(place, tally, standing) {
        put(text, depth, &format!("# Risk: {risk}"));
    }
}

fn facts(tally: &Tally) -> String {
    let times = if tally.calls == 1 { "1 call" } else { &format!("{} calls", tally.calls) };
    let when = if tally.first == tally.last {
        tally.first.clone()
    } else {
        format!("{} to {}", tally.first, tally.last)
    };
    let mut facts = format!("{times}, {when}");
    if !tally.callers.some.is_empty() {
        let _ = write!(facts, "; callers {}", tally.callers);
    }
    let strengths: Vec<&str> = tally.strengths.iter().copied().collect();
    let _ = write!(facts, "; identity_strength {}", strengths.join(", "));
    facts
}

fn put(text: &mut String, depth: usize, line: &str) {
    let _ = writeln!(text, "{:1$}{line}", "", depth * 2);
}

/// Names and hosts are safe as they are, but `on` and `1.10` are no texts without quotes.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// A name that is not taken, and now is.
fn free_name(wish: &str, taken: &mut BTreeSet<String>) -> String {
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

impl Who {
    fn rule_name(&self) -> String {
        match (&self.plugin, &self.workspace) {
            (Some(plugin), Some(workspace)) => format!("{plugin}-{workspace}"),
            (Some(one), None) | (None, Some(one)) => one.to_string(),
            (None, None) => "everybody".to_owned(),
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.plugin, &self.workspace) {
            (Some(plugin), Some(workspace)) => write!(f, "plugin {plugin}, workspace {workspace}"),
            (Some(plugin), None) => write!(f, "plugin {plugin}"),
            (None, Some(workspace)) => write!(f, "workspace {workspace}"),
            (None, None) => f.write_str("nobody known"),
        }
    }
}

#[cfg(test)]
mod tests;
