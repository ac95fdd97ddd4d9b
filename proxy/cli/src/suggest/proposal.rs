//! The proposal as YAML: rules by plugin and workspace, with what a reviewer should know.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use filters::Now;

use super::{
    calls::{Calls, Tally, Where, Who},
    context::Context,
    groups::{Hosts, covering, free_name, shared},
    risks,
};
use crate::counted;

/// The proposal, with comments about what it leaves out.
pub(super) fn write(calls: Calls, context: &Context<'_>, now: Now) -> String {
    let mut wanted: BTreeMap<Who, Hosts> = BTreeMap::new();
    let mut notes: BTreeSet<String> = BTreeSet::new();
    let mut allowed = 0_u64;
    for ((who, place), tally) in calls.by {
        let host = place.rule();
        if tally.calls == 0 {
            notes.extend(refused_otherwise(&who, &place, &tally, context));
        } else if context.allows(&who, &place, now) {
            allowed += tally.calls;
        } else if context.can_name(who.workspace.as_ref()) {
            wanted.entry(who).or_default().insert(place, tally);
        } else {
            notes.insert(format!("{host} for {who}: `workspaces.named` has no such workspace"));
        }
    }
    let mut text = "# A proposal, from what was called. That something was called does not say that it should be:\n\
         # read every line, delete what nobody can explain, and give rules an `owner` and a `reason`.\n\
         # Paste what is below `egress:` there, after what `hosts` and `rules` have already; or save all of it\n\
         # as a file that `include` names.\n"
        .to_owned();
    if context.config.is_none() {
        text += "# Made without the config (`-c`): calls that its rules allow are not left out, and its workspaces and\n# groups of hosts are not known.\n";
    }
    if allowed > 0 {
        put(
            &mut text,
            0,
            &format!("# Left out: {} that the rules already allow", counted(allowed, "call")),
        );
    }
    for note in &notes {
        put(&mut text, 0, &format!("# Not proposed: {note}"));
    }
    if wanted.is_empty() {
        return text + "# No rule is missing.\n";
    }
    let shared = shared(&wanted, context);
    text += "egress:\n";
    if !shared.is_empty() {
        put(&mut text, 1, "hosts:");
    }
    for (name, hosts) in &shared {
        let callers =
            wanted.iter().filter(|(_, of)| hosts.iter().all(|place| of.contains_key(place)));
        for (who, _) in callers {
            put(&mut text, 2, &format!("# Called by {who}"));
        }
        put(&mut text, 2, &format!("{}:", quoted(name)));
        for place in hosts {
            let mut all = Tally::default();
            wanted.values().filter_map(|hosts| hosts.get(place)).for_each(|tally| all.add(tally));
            listed(&mut text, 3, place, &all, context);
        }
    }
    put(&mut text, 1, "rules:");
    let mut names: BTreeSet<String> =
        context.egress.rules.iter().map(|rule| rule.name.to_string()).collect();
    for (who, hosts) in &wanted {
        rule(&mut text, who, hosts, &shared, context, &mut names);
    }
    text
}

fn rule(
    text: &mut String,
    who: &Who,
    hosts: &Hosts,
    shared: &[(String, BTreeSet<Where>)],
    context: &Context<'_>,
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
    for (group, of_group) in covering(hosts, context) {
        put(text, 4, "# Of its hosts were called:");
        for place in &of_group {
            left.remove(place);
            let tally = &hosts[*place];
            put(text, 4, &format!("#   {}: {}", place.rule(), facts(tally)));
            risky(text, 4, place, tally, context);
        }
        put(text, 4, &format!("- {}", quoted(group)));
    }
    for (group, of_group) in shared {
        // A caller of one of them calls all.
        if of_group.iter().all(|place| left.contains(place)) {
            put(text, 4, &format!("- {}", quoted(group)));
            left.retain(|place| !of_group.contains(*place));
        }
    }
    for place in left {
        listed(text, 4, place, &hosts[place], context);
    }
}

/// A host whose name is allowed, or need not be: another check refused it.
fn refused_otherwise(
    who: &Who,
    place: &Where,
    tally: &Tally,
    context: &Context<'_>,
) -> Vec<String> {
    let host = place.rule();
    let mut notes = Vec::new();
    notes.extend(tally.by_hello.iter().map(|(fault, times)| {
        format!(
            "{host} for {who}: refused for its ClientHello: {}, {}; see docs/egress.md",
            fault.sentence(),
            counted(*times, "time")
        )
    }));
    if tally.by_address > 0 {
        let times = counted(tally.by_address, "time");
        notes.push(format!("{host} for {who}: refused by its address, {times}"));
        let of = tally.addresses.some.iter();
        let refused = of.filter_map(|ip| Some((*ip, context.refuses(place, *ip)?)));
        notes.extend(refused.map(|(ip, c)| format!("{host}: {}", risks::private(place, ip, c))));
    }
    notes
}

fn listed(text: &mut String, depth: usize, place: &Where, tally: &Tally, context: &Context<'_>) {
    put(text, depth, &format!("# {}", facts(tally)));
    risky(text, depth, place, tally, context);
    put(text, depth, &format!("- {}", quoted(&place.rule().to_string())));
}

fn risky(text: &mut String, depth: usize, place: &Where, tally: &Tally, context: &Context<'_>) {
    for risk in risks::of(place, tally, context) {
        put(text, depth, &format!("# Risk: {risk}"));
    }
}

fn facts(tally: &Tally) -> String {
    let times = counted(tally.calls, "call");
    let (first, last) = (seconds(&tally.first), seconds(&tally.last));
    let when = if first == last { first } else { format!("{first} to {last}") };
    let mut facts = format!("{times}, {when}");
    if !tally.callers.some.is_empty() {
        let _ = write!(facts, "; callers {}", tally.callers);
    }
    let strengths: Vec<&str> = tally.strengths.iter().copied().collect();
    let _ = write!(facts, "; identity_strength {}", strengths.join(", "));
    facts
}

/// A time without its fraction.
fn seconds(time: &str) -> String {
    format!("{}Z", time.trim_end_matches('Z').split('.').next().unwrap_or_default())
}

fn put(text: &mut String, depth: usize, line: &str) {
    let _ = writeln!(text, "{:1$}{line}", "", depth * 2);
}

/// Names and hosts are safe as they are, but `on` and `1.10` are no texts without quotes.
fn quoted(text: &str) -> String {
    format!("{text:?}")
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
