//! The route tables we ship, and how an operator uses one.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Access, Authority, Breaker, Class, Coalesce, Detail, ErrorFormat, Fallback, HostPattern,
    IgnoredFailure, Limit, Located, Method, Name, PathTemplate, Problems, QueryRules, Route,
    RouteOptions, Size, StreamMax, Timeouts, WorkspaceNeed, WrittenBy, read_shipped,
};

/// Uses a built-in route table. `stagedoor explain --preset dxcp` prints one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PresetUse {
    /// Which: `argocd`, `azure-devops`, `backstage`, `dxcp`, `grafana`, `harbor`, `jenkins`,
    /// `jira`, `kubernetes`, `pagerduty`, `sonarqube`, `spacelift` or `vault`.
    pub preset: Located<String>,
    /// The first part of its routes' names. Default: the preset's name. Required if a preset is used twice.
    #[serde(default)]
    pub name: Option<Name>,
    /// The upstream its routes go to. For a plugin, this is Backstage, which hosts it.
    pub upstream: Located<Name>,
    /// The listeners its routes are on. Default: all reverse listeners.
    #[serde(default)]
    pub listeners: Vec<Located<Name>>,
    /// The hosts its routes are for. Default: any host.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// The path prefix of its routes. Default: the preset's own, for example `/api/argocd`, below
    /// `strip_prefix`.
    #[serde(default)]
    pub prefix: Option<Located<PathTemplate>>,
    /// The part of that path that only Stagedoor uses, for a portal at `https://corp.example.com/backstage`:
    /// `/backstage`. The upstream gets the rest of the path, as Backstage serves it, and this part in
    /// `X-Forwarded-Prefix`. The part is put before `Location` and before the `Path` of cookies, unless they
    /// begin with it.
    #[serde(default)]
    pub strip_prefix: Option<Located<PathTemplate>>,
    /// Routes to open that the preset leaves closed, by name. Routes that the preset closes for good cannot
    /// be opened. A route that is not opened yields to a route of yours that matches the request and has
    /// every literal segment of its path: `/api/proxy/**` has those of `/api/proxy/{endpoint}/**`, `/api/**`
    /// does not.
    #[serde(default)]
    pub open: Vec<Located<Name>>,
    /// Routes to close, by name.
    #[serde(default)]
    pub close: Vec<Located<Name>>,
    /// Who may use its reads.
    #[serde(default)]
    pub reads: Access,
    /// Who may use its actions.
    #[serde(default)]
    pub actions: Access,
    /// Allowed values of query parameters that the preset would otherwise remove, by parameter: `{host:
    /// [dev.azure.com], org: [acme]}` for `azure-devops`, whose plugin refuses some requests without them. A
    /// request with another value gets 403 `query_refused`.
    #[serde(default)]
    pub query_allow: IndexMap<String, Vec<String>>,
    /// What differs for individual routes, by name.
    #[serde(default)]
    pub routes: IndexMap<Name, Located<RouteChanges>>,
    /// How much its denials reveal.
    #[serde(default)]
    pub detail: Option<Detail>,
}

/// What differs for one route of a preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteChanges {
    /// Who may use it, instead of `reads` or `actions`.
    pub access: Option<Access>,
    /// How many requests each workspace may send to it; on a public route, how many each client address may,
    /// instead of its bucket.
    pub rate_limit: Option<Limit>,
    /// The bucket that it counts in, instead of the preset's.
    pub bucket: Option<Name>,
    /// Its own timeouts; values that are not given stay the preset's.
    pub timeouts: Timeouts,
    /// Bytes of a request body.
    pub body_max: Option<Size>,
    /// Allowed values of query parameters, by parameter.
    pub query_allow: IndexMap<String, Vec<String>>,
    /// Path parameters that must name a resource of the workspace, by kind.
    pub resources: IndexMap<Name, String>,
    /// Whether identical requests are sent to the upstream once (request coalescing).
    pub coalesce: Option<Coalesce>,
    /// Whether the last good response is served while the upstream fails (stale response).
    pub fallback: Option<Fallback>,
    /// When its streams end at the latest.
    pub stream_max: Option<StreamMax>,
    /// Whether its responses are streams.
    pub stream: Option<bool>,
}

/// A route table we ship (`presets/<name>.yaml`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What it covers, in a sentence or two.
    pub about: String,
    /// The plugin its routes belong to.
    #[serde(default)]
    pub plugin: Option<Name>,
    /// The path its routes are under by default.
    #[serde(default)]
    pub prefix: Option<PathTemplate>,
    /// What its upstream decides about; the upstream must say the same.
    #[serde(default)]
    pub authority: Authority,
    /// Its upstream must have a listener or a host of its own, because its clients drop any path.
    #[serde(default)]
    pub at_root: bool,
    /// How denials on its routes are written, unless a route says otherwise.
    #[serde(default)]
    pub errors: ErrorFormat,
    /// Answers that are no failure of its upstream.
    #[serde(default)]
    pub ignore_failures: Vec<IgnoredFailure>,
    /// Members removed from JSON answers of all its routes.
    #[serde(default)]
    pub redact: Vec<String>,
    /// The bucket of its reads by known callers, unless a route says another. Actions count against
    /// `rate_limit.per_workspace`.
    #[serde(default)]
    pub bucket: Option<Name>,
    /// Its routes.
    pub routes: Vec<PresetRoute>,
}

/// One route of a preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in `Route` and `RouteOptions`")]
pub struct PresetRoute {
    pub name: Name,
    pub methods: Vec<Method>,
    pub path: PathTemplate,
    pub class: Class,
    #[serde(default)]
    pub state: PresetState,
    #[serde(default)]
    pub public: bool,
    #[serde(default)]
    pub workspace: WorkspaceNeed,
    #[serde(default)]
    pub cookie: bool,
    #[serde(default)]
    pub upgrade: bool,
    #[serde(default)]
    pub stream: bool,
    #[serde(default)]
    pub stream_if: Vec<String>,
    #[serde(default)]
    pub breaker_by: Option<String>,
    #[serde(default)]
    pub encoded_slashes: bool,
    #[serde(default)]
    pub unsafe_get: bool,
    #[serde(default)]
    pub query: QueryRules,
    /// Those of the parameters it removes without which its plugin refuses a request.
    #[serde(default)]
    pub query_needed: Vec<String>,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub body_max: Option<Size>,
    #[serde(default)]
    pub errors: Option<ErrorFormat>,
    /// The plugin it belongs to, instead of the preset's.
    #[serde(default)]
    pub plugin: Option<Name>,
    /// The bucket it counts in, instead of the preset's.
    #[serde(default)]
    pub bucket: Option<Name>,
}

/// Whether a preset's route is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresetState {
    /// Open, unless the operator closes it.
    #[default]
    Open,
    /// Closed, unless the operator opens it.
    OptIn,
    /// Closed for good.
    Closed,
}

macro_rules! shipped {
    ($($name:literal),*) => {
        /// The names of the presets we ship, with their texts.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../presets/", $name, ".yaml")))),*];
    };
}

shipped!(
    "argocd",
    "azure-devops",
    "backstage",
    "dxcp",
    "grafana",
    "harbor",
    "jenkins",
    "jira",
    "kubernetes",
    "pagerduty",
    "sonarqube",
    "spacelift",
    "vault"
);

impl Preset {
    /// The preset of this name, if we ship one.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
        Some(read_shipped(name, text))
    }
}

impl PresetUse {
    /// The first part of its routes' names.
    pub fn prefix_of_names(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.preset)
    }

    /// The routes it stands for, as if the operator had written them.
    pub fn routes(&self, preset: &Preset) -> Vec<Route> {
        preset.routes.iter().map(|route| self.route(preset, route)).collect()
    }

    fn route(&self, preset: &Preset, route: &PresetRoute) -> Route {
        let listed = |names: &[Located<Name>]| names.iter().any(|name| **name == route.name);
        let open = match route.state {
            PresetState::Open => !listed(&self.close),
            PresetState::OptIn => listed(&self.open) && !listed(&self.close),
            PresetState::Closed => false,
        };
        let changes = self.routes.get(&route.name).map(|c| c.value.clone()).unwrap_or_default();
        let by_class = match route.class {
            Class::Action => &self.actions,
            Class::Read | Class::Admin => &self.reads,
        };
        let mut query = route.query.clone();
        let wanted = self.query_allow.iter().filter(|(name, _)| route.query.remove.contains(*name));
        let wanted = wanted.map(|(name, values)| (name.clone(), values.clone()));
        for (parameter, values) in wanted.collect::<Vec<_>>().into_iter().chain(changes.query_allow)
        {
            query.remove.retain(|removed| *removed != parameter);
            query.allow.insert(parameter, values);
        }
        let path = match self.prefix.as_deref().or(preset.prefix.as_ref()) {
            Some(prefix) => route.path.under(prefix),
            None => route.path.clone(),
        };
        let path = match self.strip_prefix.as_deref().filter(|_| self.prefix.is_none()) {
            Some(ours) => path.under(ours),
            None => path,
        };
        let ours = self.strip_prefix.as_deref();
        // What does not fit is said once, and not of each route.
        let ours = ours.filter(|ours| ours.is_plain() && path.segments.starts_with(&ours.segments));
        let of_reads =
            preset.bucket.as_ref().filter(|_| route.class == Class::Read && !route.public);
        let bucket = changes.bucket.or_else(|| route.bucket.clone()).or_else(|| of_reads.cloned());
        let name = format!("{}.{}", self.prefix_of_names(), route.name);
        Route {
            name: Name::new(&name).unwrap_or_else(|_| route.name.clone()),
            listeners: self.listeners.clone(),
            hosts: self.hosts.clone(),
            methods: route.methods.clone(),
            path,
            upstream: self.upstream.clone(),
            plugin: route.plugin.clone().or_else(|| preset.plugin.clone()),
            class: route.class,
            written_by: match route.state {
                PresetState::OptIn if !open && !listed(&self.close) => WrittenBy::Unopened,
                PresetState::Closed => WrittenBy::ClosedForGood,
                _ => WrittenBy::Preset,
            },
            options: RouteOptions {
                closed: !open,
                public: route.public,
                workspace: route.workspace,
                access: changes.access.unwrap_or_else(|| by_class.clone()),
                cookie: route.cookie,
                upgrade: route.upgrade,
                stream_max: changes.stream_max,
                stream: changes.stream.unwrap_or(route.stream),
                stream_if: route.stream_if.clone(),
                breaker_by: route.breaker_by.clone(),
                encoded_slashes: route.encoded_slashes,
                any_bytes: false,
                unsafe_get: route.unsafe_get,
                query,
                resources: changes.resources,
                graphql: None,
                strip_prefix: ours.cloned(),
                coalesce: changes.coalesce,
                fallback: changes.fallback,
                redact: preset.redact.clone(),
                rate_limit: changes.rate_limit,
                bucket,
                timeouts: changes.timeouts.or(route.timeouts),
                body_max: changes.body_max.or(route.body_max),
                errors: Some(route.errors.unwrap_or(preset.errors)),
                detail: self.detail,
            },
        }
    }

    /// Open routes that need parameters nobody listed the values of, and those parameters.
    pub(crate) fn lacks(&self, preset: &Preset) -> (Vec<String>, Vec<String>) {
        let (mut routes, mut lacking) = (Vec::new(), Vec::new());
        for route in &preset.routes {
            let own = self.routes.get(&route.name);
            let listed = |parameter: &String| {
                self.query_allow.contains_key(parameter)
                    || own.is_some_and(|own| own.query_allow.contains_key(parameter))
            };
            let closed = self.close.iter().any(|name| **name == route.name);
            let needed: Vec<_> = route.query_needed.iter().filter(|p| !listed(p)).collect();
            if closed || needed.is_empty() {
                continue;
            }
            routes.push(format!("`{}`", route.name));
            lacking.extend(
                needed.into_iter().filter(|p| !lacking.contains(*p)).cloned().collect::<Vec<_>>(),
            );
        }
        (routes, lacking)
    }

    /// What one preset cannot know about its use.
    pub(crate) fn check(&self, preset: &Preset, problems: &mut Problems) {
        if let Some(ours) = &self.strip_prefix {
            self.check_strip_prefix(preset, ours, problems);
        }
        let known = |name: &Name| preset.routes.iter().find(|route| route.name == *name);
        for name in self.open.iter().chain(&self.close) {
            if known(name).is_none() {
                problems.add(
                    &name.place,
                    format!("preset `{}` has no route `{}`", *self.preset, **name),
                );
            }
        }
        for parameter in self.query_allow.keys() {
            if !preset.routes.iter().any(|route| route.query.remove.contains(parameter)) {
                problems.add(
                    &self.preset.place,
                    format!(
                        "preset `{}` removes no parameter `{}`; put it under `routes`",
                        *self.preset,
                        parameter.escape_debug()
                    ),
                );
            }
        }
        for (name, changes) in &self.routes {
            if known(name).is_none() {
                problems.add(
                    &changes.place,
                    format!("preset `{}` has no route `{name}`", *self.preset),
                );
            }
        }
        for name in &self.open {
            if known(name).is_some_and(|route| route.state == PresetState::Closed) {
                problems.add(
                    &name.place,
                    format!(
                        "`{}` of preset `{}` is closed for good and cannot be opened; remove it",
                        **name, *self.preset
                    ),
                );
            }
        }
    }
}

impl PresetUse {
    fn check_strip_prefix(
        &self,
        preset: &Preset,
        ours: &Located<PathTemplate>,
        problems: &mut Problems,
    ) {
        let name = &*self.preset;
        if !ours.is_plain() {
            problems.add(
                &ours.place,
                "`strip_prefix` is not a plain path; write for example `/backstage`".to_owned(),
            );
        } else if preset.at_root {
            problems.add(
                &ours.place,
                format!(
                    "preset `{name}` must be at the root: its clients drop any path; remove `strip_prefix`"
                ),
            );
        } else if let Some(prefix) = &self.prefix
            && !prefix.segments.starts_with(&ours.segments)
        {
            problems.add(
                &ours.place,
                format!(
                    "`prefix: {}` does not begin with `strip_prefix: {}`; write `prefix: {}{}`, or remove `prefix`",
                    **prefix, **ours, **ours, **prefix
                ),
            );
        }
    }
}

impl Timeouts {
    /// These, with what they leave open taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            connect: self.connect.or(other.connect),
            upstream: self.upstream.or(other.upstream),
            total: self.total.or(other.total),
            stream_idle: self.stream_idle.or(other.stream_idle),
            upgrade: self.upgrade.or(other.upgrade),
            rate_min: self.rate_min.or(other.rate_min),
        }
    }
}

impl Breaker {
    /// This breaker, excusing these answers too.
    #[must_use]
    pub fn ignoring(mut self, more: &[IgnoredFailure]) -> Self {
        self.ignore.extend_from_slice(more);
        self
    }
}

#[cfg(test)]
mod tests {
    fn loaded(preset: &str) -> Result<crate::Loaded, String> {
        let text = format!(
            "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
             upstreams: {{portal: {{url: 'http://127.0.0.1:1'}}}}\npresets: [{{upstream: portal, {preset}}}]\n"
        );
        crate::parse("t", &text).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_parameter_that_a_preset_removes_may_be_listed_for_all_its_routes() {
        let query = |preset: &str, name: &str| {
            let loaded = loaded(preset).unwrap();
            let routes = loaded.config.all_routes();
            let route = routes.iter().find(|route| *route.name == *name).unwrap();
            (route.options.query.clone(), loaded.warnings.to_string())
        };
        let (bare, told) = query("preset: azure-devops", "azure-devops.projects");
        assert_eq!((bare.remove.len(), bare.allow.len()), (2, 0));
        assert!(
            told.contains("refuses `projects`, `all-teams`, `team-ids` without `host`, `org`")
                && told.contains("`query_allow: {host: [...], org: [...]}`"),
            "{told}"
        );
        let listed = "preset: azure-devops, query_allow: {host: [dev.azure.com], org: [acme]}";
        let (query, told) = query(listed, "azure-devops.projects");
        assert_eq!((query.remove.len(), &*query.allow["org"]), (0, &["acme".to_owned()][..]));
        assert_eq!(told, "");
        let told = loaded("preset: argocd, query_allow: {host: [a]}").unwrap_err();
        assert!(
            told.contains("preset `argocd` removes no parameter `host`; put it under `routes`")
        );
    }

    #[test]
    fn a_wrong_preset_does_not_hide_its_wrong_upstream() {
        let text = "version: stagedoor/v1\nlisteners: {edge: {kind: reverse, address: '127.0.0.1:1'}}\n\
             upstreams: {portal: {url: 'http://127.0.0.1:1'}}\npresets: [{preset: argocdd, upstream: portl}]\n";
        let told = crate::parse("t", text).unwrap_err().to_string();
        assert!(told.contains("did you mean `argocd`?"), "{told}");
        assert!(told.contains("no upstream `portl`; did you mean `portal`?"), "{told}");
    }
}
