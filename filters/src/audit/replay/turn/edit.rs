//! Changes to a config, each with its place in the file.

use std::sync::Arc;

use config::{Access, Config, Located, Name};

/// A change that may.
pub(super) struct Edit {
    pub(super) place: String,
    pub(super) change: String,
    pub(super) apply: Box<dyn Fn(&mut Config)>,
}

/// Who wrote a route.
pub(super) enum RouteOwner {
    /// The operator: its number.
    Own(usize),
    /// A preset: the number of its use, and the route's name within.
    Preset(usize, Name),
}

pub(super) fn whose(config: &Config, route: &str) -> Option<(RouteOwner, String)> {
    if let Some(at) = config.routes.iter().position(|own| *own.name == *route) {
        return Some((RouteOwner::Own(at), config.routes[at].place.to_string()));
    }
    config.presets.iter().enumerate().find_map(|(at, used)| {
        let short = route.strip_prefix(used.prefix_of_names())?.strip_prefix('.')?;
        let preset = config::Preset::named(&used.preset)?;
        let found = preset.routes.iter().find(|one| *one.name == *short)?;
        Some((RouteOwner::Preset(at, found.name.clone()), used.place.to_string()))
    })
}

pub(super) fn edit(place: &str, change: String, apply: impl Fn(&mut Config) + 'static) -> Edit {
    Edit { place: place.to_owned(), change, apply: Box::new(apply) }
}

pub(super) fn quoted(all: &[String]) -> String {
    all.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ")
}

pub(super) fn workspace_of(config: &Config, name: &str) -> Option<(Name, String)> {
    let (key, declared) = config.workspaces.named.get_key_value(name)?;
    Some((key.clone(), declared.place.to_string()))
}

/// A workspace that the config declares, to be changed.
pub(super) fn workspace_in<'a>(config: &'a mut Config, key: &Name) -> &'a mut config::Workspace {
    &mut Arc::make_mut(&mut config.workspaces.named)[key].value
}

pub(super) fn member(key: &Name, place: &str, list: &'static str, who: &str) -> Edit {
    let (key, who) = (key.clone(), who.to_owned());
    edit(place, format!("workspaces.named.{key}.{list}: add `{who}`"), move |config| {
        let declared = workspace_in(config, &key);
        let to = if list == "groups" { &mut declared.groups } else { &mut declared.callers };
        to.push(who.clone());
    })
}

pub(super) fn access(config: &Config, route: &str, list: &'static str, who: &str) -> Vec<Edit> {
    let who = who.to_owned();
    access_change(config, route, &format!("access.{list}: add `{who}`"), move |access| {
        let to = match list {
            "roles" => &mut access.roles,
            "groups" => &mut access.groups,
            _ => &mut access.callers,
        };
        to.push(who.clone());
    })
}

/// A change to who may use a route, and to each of its GraphQL rules.
pub(super) fn access_change(
    config: &Config,
    route: &str,
    change: &str,
    apply: impl Fn(&mut Access) + Clone + 'static,
) -> Vec<Edit> {
    match whose(config, route) {
        None => Vec::new(),
        Some((RouteOwner::Own(at), place)) => {
            let rules = config.routes[at].options.graphql.as_ref().map_or(0, Vec::len);
            let of_rules = (0..rules).map(|nth| {
                let apply = apply.clone();
                edit(&place, format!("options.graphql[{nth}].{change}"), move |config| {
                    if let Some(rules) = &mut config.routes[at].value.options.graphql {
                        apply(&mut rules[nth].access);
                    }
                })
            });
            let of_rules: Vec<Edit> = of_rules.collect();
            let own = edit(&place, format!("options.{change}"), move |config| {
                apply(&mut config.routes[at].value.options.access);
            });
            std::iter::once(own).chain(of_rules).collect()
        }
        Some((RouteOwner::Preset(at, name), place)) => {
            let Some(now) = config.all_routes().into_iter().find(|r| *r.name == *route) else {
                return Vec::new();
            };
            let before = now.options.access.clone();
            vec![edit(&place, format!("routes.{name}.{change}"), move |config| {
                let changes = &mut config.presets[at].value.routes;
                let changes = changes
                    .entry(name.clone())
                    .or_insert_with(|| Located::nowhere(config::RouteChanges::default()));
                apply(changes.value.access.get_or_insert_with(|| before.clone()));
            })]
        }
    }
}

/// A change to an option of one of the operator's routes.
pub(super) fn option(
    config: &Config,
    route: &str,
    change: &str,
    apply: impl Fn(&mut config::RouteOptions) + 'static,
) -> Option<Edit> {
    let (RouteOwner::Own(at), place) = whose(config, route)? else { return None };
    Some(edit(&place, format!("options.{change}"), move |config| {
        apply(&mut config.routes[at].value.options);
    }))
}
