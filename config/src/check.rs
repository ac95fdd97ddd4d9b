//! What one field cannot know about another. Collects everything, then judges.
//!
//! A problem stops the config from being used; a warning is printed and does not.

mod control;
mod credentials;
mod delivery;
mod egress;
mod identity;
mod listeners;
mod rate_limit;
mod routes;
mod ship;
mod spacelift;
mod store;
mod tokens;
mod upstreams;
mod workspaces;

use crate::{Config, HeaderName, Located, Name, Place, Problems, SHIPPED, cuts::Cuts};

/// What was found.
pub(crate) struct Findings {
    pub(crate) problems: Problems,
    pub(crate) warnings: Problems,
    /// What is not to be missed.
    cuts: Cuts,
}

impl Findings {
    fn problem(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.add(place, message.into());
    }

    fn warning(&mut self, place: &Place, message: impl Into<String>) {
        self.warnings.add(place, message.into());
    }
}

/// Checks a config as far as it is intact. `read` is the same with what could be read of entries
/// that are not.
pub(crate) fn check(config: &Config, read: &Config, cuts: Cuts) -> Findings {
    let (problems, warnings) = Default::default();
    let mut found = Findings { problems, warnings, cuts };
    listeners::check(config, &mut found);
    identity::check(config, &mut found);
    tokens::check(config, &mut found);
    workspaces::check(config, &mut found);
    upstreams::check(config, &mut found);
    credentials::check(config, &mut found);
    spacelift::check(config, &mut found);
    presets(config, &mut found);
    routes::references(config, read, &mut found);
    routes::check(config, &mut found);
    rate_limit::check(config, &mut found);
    delivery::check(config, &mut found);
    egress::check(config, &mut found);
    control::check(config, &mut found);
    headers(config, &mut found);
    ship::check(config, &mut found);
    store::check(config, &mut found);
    found
}

fn presets(config: &Config, found: &mut Findings) {
    for used in &config.presets {
        if !SHIPPED.iter().any(|(name, _)| *name == *used.preset) {
            let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            let hint = crate::de::suggestion(&used.preset, &names);
            found.problem(&used.preset.place, format!("no preset `{}`; {hint}", *used.preset));
            // Its routes, which would say the same, are not known.
            routes::upstream_exists(config, &used.upstream, found);
        }
    }
    let uses: Vec<_> = config.presets_used().collect();
    for (index, (used, preset)) in uses.iter().enumerate() {
        used.check(preset, &mut found.problems);
        let name = used.prefix_of_names();
        if uses[..index].iter().any(|(other, _)| other.prefix_of_names() == name) {
            found.problem(
                &used.place,
                format!("`{name}` is used twice; give one of them another `name`"),
            );
        }
        let above =
            config.upstreams.get(&used.upstream.value).is_some_and(|u| u.url.path.is_empty());
        if let (Some(prefix), None) = (&used.prefix, &used.strip_prefix)
            && *used.preset == "backstage"
            && above
        {
            found.warning(
                &prefix.place,
                format!("Backstage serves `/` and `/api`, whatever its `baseUrl` says, and would receive requests for `{0}/api`; write `strip_prefix: {0}` instead", **prefix),
            );
        }
        if preset.at_root && used.prefix.is_some() {
            found.problem(
                &used.place,
                format!("preset `{name}` must be at the root: its clients drop any path; remove `prefix`"),
            );
        }
        if preset.at_root && used.hosts.is_empty() && used.listeners.is_empty() {
            found.problem(
                &used.place,
                format!(
                    "preset `{name}` needs its own host or listener; add `hosts` or `listeners`"
                ),
            );
        }
        let (lacking_routes, lacking) = used.lacks(preset);
        if !lacking.is_empty() {
            let values: Vec<String> =
                lacking.iter().map(|parameter| format!("{parameter}: [...]")).collect();
            found.warning(
                &used.place,
                format!(
                    "the plugin of preset `{name}` refuses {} without `{}`, which the preset removes; list the allowed values: `query_allow: {{{}}}`",
                    lacking_routes.join(", "),
                    lacking.join("`, `"),
                    values.join(", ")
                ),
            );
        }
        let open_actions = preset.routes.iter().filter(|route| {
            route.class == crate::Class::Action
                && !route.public
                && used.actions.is_open()
                && used.routes.get(&route.name).is_none_or(|c| c.access.is_none())
                && (route.state == crate::PresetState::Open
                    && !used.close.iter().any(|n| **n == route.name)
                    || used.open.iter().any(|n| **n == route.name))
        });
        let names: Vec<String> = open_actions.map(|route| format!("`{}`", route.name)).collect();
        // Where a credential is shown, `credentials` tells it.
        let upstream = config.upstreams.get(&used.upstream.value);
        let shown = upstream.is_some_and(|upstream| upstream.credential.is_some());
        if !names.is_empty() && !shown && preset.authority == crate::Authority::None {
            found.warning(
                &used.place,
                format!(
                    "every caller of a workspace may use {} of `{name}`; name roles, groups or callers in `actions`",
                    names.join(", ")
                ),
            );
        }
    }
}

fn headers(config: &Config, found: &mut Findings) {
    if found.cuts.touch(&["headers"]) {
        return;
    }
    let headers = &config.headers;
    let ours = [&headers.workspace, &headers.caller, &headers.plugin, &headers.assertion];
    for (index, name) in ours.iter().enumerate() {
        if ours[..index].iter().any(|other| other.value == name.value) {
            found.problem(&name.place, format!("header `{}` cannot carry two values", name.value));
        }
        not_protected(name, found);
    }
    for pattern in &headers.remove {
        if let Some(name) = PROTECTED.iter().find(|name| pattern.covers(name)) {
            let message = match pattern.ends_with('*') {
                true => format!("`{}` would remove `{name}`, which belongs to HTTP", &***pattern),
                false => format!("header `{name}` belongs to HTTP; use a different one"),
            };
            found.problem(&pattern.place, message);
        }
    }
}

/// Whether no workspace of this name is declared, though it must be.
fn is_unknown_workspace(config: &Config, name: &Name, found: &Findings) -> bool {
    !config.workspaces.undeclared
        && !config.workspaces.named.contains_key(name)
        && !found.cuts.may_name(&["workspaces", "named"], name)
        && !found.cuts.touch(&["workspaces", "undeclared"])
}

/// Headers that mean something to HTTP itself.
const PROTECTED: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// They cannot be ours.
fn not_protected(name: &Located<HeaderName>, found: &mut Findings) {
    if PROTECTED.contains(&&*name.value) || name.starts_with(':') {
        found.problem(
            &name.place,
            format!("header `{}` belongs to HTTP; use a different one", name.value),
        );
    }
}
