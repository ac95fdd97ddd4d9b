//! Changes that would refuse what is allowed.

use config::{Config, Located, Name};

use super::{
    super::Decided,
    edit::{
        Edit, RouteOwner, access_change, edit, option, quoted, whose, workspace_in, workspace_of,
    },
};

/// The changes that would refuse it.
pub(super) fn closing(config: &Config, decided: &Decided) -> Vec<Edit> {
    let exchange = &decided.exchange;
    let mut edits = Vec::new();
    let called = exchange.call.as_ref();
    let route = exchange.route.as_deref();
    let plugin = called.and_then(|c| c.plugin.as_ref()).or(route.and_then(|r| r.plugin.as_ref()));
    let workspace = exchange.workspace.as_ref().and_then(|w| workspace_of(config, &w.name));
    if let (Some(Ok(plugin)), Some((key, place))) = (plugin.map(|p| Name::new(p)), &workspace) {
        let key = key.clone();
        edits.push(edit(
            place,
            format!("workspaces.named.{key}.plugins.{plugin}: false"),
            move |config| {
                workspace_in(config, &key).plugins.insert(plugin.clone(), false);
            },
        ));
    }
    if let (Some(route), Some(caller)) = (route, exchange.caller.as_deref()) {
        let required = &route.options.access;
        let held = |own: &[crate::Label], wanted: &[String]| -> Vec<String> {
            wanted.iter().filter(|w| own.iter().any(|own| **own == ***w)).cloned().collect()
        };
        let named = held(std::slice::from_ref(&caller.subject), &required.callers);
        let (roles, groups) =
            (held(&caller.roles, &required.roles), held(&caller.groups, &required.groups));
        let all: Vec<String> = [named, groups, roles].concat();
        if !all.is_empty() {
            let change = format!("access: without {}", quoted(&all));
            edits.extend(access_change(config, &route.name, &change, move |access| {
                for list in [&mut access.callers, &mut access.groups, &mut access.roles] {
                    list.retain(|one| !all.contains(one));
                }
                if access.is_open() {
                    // An empty list allows everyone.
                    access.callers.push("nobody".to_owned());
                }
            }));
        }
        if let Some((key, place)) = workspace {
            let declared = &config.workspaces.named[&key];
            let groups = held(&caller.groups, &declared.groups);
            let callers = held(std::slice::from_ref(&caller.subject), &declared.callers);
            let all: Vec<String> = [callers, groups].concat();
            if !all.is_empty() {
                let change = format!("workspaces.named.{key}: without {} as members", quoted(&all));
                edits.push(edit(&place, change, move |config| {
                    let declared = workspace_in(config, &key);
                    declared.groups.retain(|one| !all.contains(one));
                    declared.callers.retain(|one| !all.contains(one));
                }));
            }
        }
    }
    if let Some(route) = route {
        edits.extend(option(config, &route.name, "closed: true", |options| options.closed = true));
        if let Some((RouteOwner::Preset(at, name), place)) = whose(config, &route.name) {
            edits.push(edit(&place, format!("close: [{name}]"), move |config| {
                config.presets[at].value.close.push(Located::nowhere(name.clone()));
            }));
        }
    }
    if let Some(rule) = called.and_then(|called| called.rule.as_ref()) {
        let name = rule.name.clone();
        edits.push(edit(
            &rule.place,
            format!("egress.rules: without `{name}`, or for other plugins and workspaces"),
            move |config| config.egress.rules.retain(|rule| *rule.name != *name),
        ));
    }
    edits
}
