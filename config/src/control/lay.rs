//! What a control source says, laid over the files: it fills what they leave open, and narrows.

use std::{path::PathBuf, sync::Arc};

use super::{Control, ControlDocument, ControlFormat, WorkspaceDocument, answer};
use crate::{
    BeforeFirstResponse, Config, Limit, Loaded, Located, Name, Percent, Place, Problems, Workspace,
    check, cuts::Cuts, tree::Node,
};

impl Loaded {
    /// The same config with what its control source answered.
    ///
    /// # Errors
    /// Everything that is wrong with both together.
    pub fn with(&self, answer: &ControlDocument) -> Result<Self, Problems> {
        let mut config = self.config.clone();
        let mut warnings = self.warnings.clone();
        let Some(control) = self.config.control.as_ref() else { return Ok(self.clone()) };
        let place = answer::place(control);
        let mut over =
            Over { config: &mut config, tree: &self.tree, place, warnings: &mut warnings };
        over.lay(control, answer);
        let mut found = check::check(&config, &config, Cuts::new(Arc::clone(&self.tree)));
        if !found.problems.is_empty() {
            found.problems.sort();
            return Err(found.problems);
        }
        warnings.extend(found.warnings);
        let mut files = self.files.clone();
        files.push((PathBuf::from(control.url.to_string()), answer.text()));
        Ok(Self { config, warnings, files, tree: self.tree.clone() })
    }
}

impl Loaded {
    /// The same config as long as its control source has not answered. It is never wider than with
    /// an answer, unless the files ask for that.
    #[must_use]
    pub fn unanswered(&self) -> Self {
        let Some(control) = self.config.control.as_ref() else { return self.clone() };
        if control.before_first_response == BeforeFirstResponse::Files {
            return self.clone();
        }
        let plugins: Vec<Name> = match control.format {
            ControlFormat::Orbit => {
                control.plugins.iter().map(|plugin| plugin.value.clone()).collect()
            }
            ControlFormat::Stagedoor => self.config.known_plugins().into_iter().collect(),
        };
        let mut without = self.clone();
        let nothing = ControlDocument::of_nobody();
        let mut over = Over {
            config: &mut without.config,
            tree: &self.tree,
            place: answer::place(control),
            warnings: &mut without.warnings,
        };
        plugins.iter().for_each(|plugin| over.only_where_said(plugin, &nothing));
        // So that records show by their digest which of the two held.
        without.files.push((PathBuf::from(control.url.to_string()), b"unanswered".to_vec()));
        without
    }
}

struct Over<'a> {
    config: &'a mut Config,
    /// What stands in the files.
    tree: &'a Node,
    place: Place,
    warnings: &'a mut Problems,
}

impl Over<'_> {
    fn lay(&mut self, control: &Control, answer: &ControlDocument) {
        for (name, said) in &answer.workspaces {
            self.workspace(name, said);
        }
        // After the workspaces, which ask what the files say of a plugin.
        for (name, said) in &answer.plugins {
            self.percent(name, said.enabled_percent);
        }
        if control.format == ControlFormat::Orbit {
            control.plugins.iter().for_each(|plugin| self.only_where_said(plugin, answer));
        }
        self.unknown_plugins(answer);
    }

    fn workspace(&mut self, name: &Name, said: &WorkspaceDocument) {
        let each = self.config.rate_limit.per_workspace;
        let named = Arc::make_mut(&mut self.config.workspaces.named);
        let written = named.entry(name.clone());
        let workspace = &mut written
            .or_insert_with(|| Located { value: Workspace::default(), place: self.place.clone() })
            .value;
        let mut ignored = Vec::new();
        let own =
            ["workspaces", "named", name].iter().try_fold(self.tree, |node, key| node.get(key));
        let lists_members =
            own.is_some_and(|own| own.get("groups").is_some() || own.get("callers").is_some());
        if !lists_members {
            workspace.groups.clone_from(&said.groups);
            workspace.callers.clone_from(&said.callers);
        } else if (&said.groups, &said.callers) != (&workspace.groups, &workspace.callers)
            && !(said.groups.is_empty() && said.callers.is_empty())
        {
            ignored.push("the files list its members, and they stay".to_owned());
        }
        for (plugin, on) in &said.plugins {
            let percent = self.config.plugins.get(plugin).map_or(100, |p| p.enabled_percent.0);
            match workspace.plugins.get(plugin) {
                None if *on && percent < 100 => ignored.push(format!(
                    "the files have plugin `{plugin}` at {percent} %, which cannot be raised"
                )),
                Some(false) if *on => {
                    ignored
                        .push(format!("the files switch plugin `{plugin}` off, and it stays off"));
                }
                Some(true) if *on => {}
                _ => {
                    workspace.plugins.insert(plugin.clone(), *on);
                }
            }
        }
        if let Some(limit) = said.rate_limit {
            let own = workspace.rate_limit.unwrap_or(each);
            let tighter = tighter(own, limit);
            if (tighter.rate, tighter.burst()) != (limit.rate, limit.burst()) {
                ignored.push(format!(
                    "{} with a burst of {} is above the files' limit; {} with a burst of {} stays",
                    limit.rate,
                    limit.burst(),
                    tighter.rate,
                    tighter.burst()
                ));
            }
            workspace.rate_limit = Some(tighter);
        }
        for ignored in ignored {
            self.warnings.add(&self.place, format!("workspace `{name}`: {ignored}"));
        }
    }

    /// The lower of both.
    fn percent(&mut self, plugin: &Name, said: Percent) {
        let plugin = self.config.plugins.entry(plugin.clone()).or_default();
        plugin.enabled_percent = plugin.enabled_percent.min(said);
    }

    /// Off in every workspace that the answer does not name it for.
    fn only_where_said(&mut self, plugin: &Name, answer: &ControlDocument) {
        self.percent(plugin, Percent(0));
        for (name, workspace) in Arc::make_mut(&mut self.config.workspaces.named) {
            let said = answer.workspaces.get(name).and_then(|said| said.plugins.get(plugin));
            if said != Some(&true) {
                workspace.value.plugins.insert(plugin.clone(), false);
            }
        }
    }

    fn unknown_plugins(&mut self, answer: &ControlDocument) {
        let known = self.config.known_plugins();
        let known: Vec<&str> = known.iter().map(|name| &**name).collect();
        let switched = answer.workspaces.values().flat_map(|said| said.plugins.keys());
        for plugin in answer.plugins.keys().chain(switched) {
            if !known.contains(&&**plugin) {
                self.warnings
                    .add(&self.place, format!("nothing here belongs to plugin `{plugin}`"));
            }
        }
    }
}

/// The lower rate and the lower burst.
fn tighter(a: Limit, b: Limit) -> Limit {
    let rate = if a.rate.interval() > b.rate.interval() { a.rate } else { b.rate };
    Limit { rate, burst: Some(a.burst().min(b.burst())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "version: stagedoor/v1\n\
        listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}}\n\
        upstreams: {up: {url: 'http://127.0.0.1:1'}}\n\
        routes:\n\
        - {name: a, methods: [GET], path: /a, upstream: up, class: read, plugin: argocd}\n\
        - {name: j, methods: [GET], path: /j, upstream: up, class: read, plugin: jira}\n";

    fn laid(control: &str, files: &str, said: &str) -> Loaded {
        let text = format!(
            "{HEAD}control: {{url: 'https://orbit.example/c', cache_file: /c{control}}}\n{files}\n"
        );
        let loaded = crate::parse("t", &text).unwrap_or_else(|problems| panic!("{problems}"));
        let said = if control.is_empty() {
            format!("{{\"version\": \"stagedoor/control-v1\", {said}}}")
        } else {
            said.to_owned()
        };
        let answer =
            ControlDocument::read(loaded.config.control.as_ref().unwrap(), said.as_bytes());
        loaded.with(&answer.unwrap_or_else(|problems| panic!("{problems}"))).unwrap()
    }

    fn warnings(loaded: &Loaded) -> Vec<String> {
        loaded.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn until_the_source_answers_what_it_decides_about_is_off() {
        let on = |control: &str| {
            let text = format!(
                "{HEAD}control: {{url: 'https://orbit.example/c', {control}}}\n\
                 workspaces: {{named: {{pay: {{plugins: {{jira: true}}}}}}}}\n"
            );
            let files = crate::parse("t", &text).unwrap_or_else(|problems| panic!("{problems}"));
            let config = files.unanswered().config;
            let percent =
                |plugin: &str| config.plugins.get(plugin).map_or(100, |p| p.enabled_percent.0);
            let own = config.workspaces.named["pay"].plugins.get("jira").copied();
            (percent("argocd"), percent("jira"), own)
        };
        assert_eq!(on("format: orbit, plugins: [jira]"), (100, 0, Some(false)));
        assert_eq!(on("interval: 60s"), (0, 0, Some(false)));
        assert_eq!(on("before_first_response: files"), (100, 100, Some(true)));
    }

    #[test]
    fn what_the_files_leave_open_the_source_fills() {
        let said = r#""workspaces": {"new": {"groups": ["g"], "callers": ["c"], "plugins": {"jira": true},
            "rate_limit": {"rate": "50/m"}}, "pay": {"groups": ["p"]}}, "plugins": {"argocd": {"enabled_percent": 10}}"#;
        let loaded = laid("", "workspaces: {named: {pay: }}", said);
        let named = &loaded.config.workspaces.named;
        let new = &named["new"];
        assert_eq!((&new.groups, &new.callers), (&vec!["g".to_owned()], &vec!["c".to_owned()]));
        assert!(new.plugins["jira"]);
        let limit = new.rate_limit.unwrap();
        assert_eq!((limit.rate.to_string(), limit.burst().get()), ("50/m".to_owned(), 5));
        assert_eq!(named["pay"].groups, ["p"]);
        assert_eq!(loaded.config.plugins["argocd"].enabled_percent, Percent(10));
        assert_eq!(warnings(&loaded), [] as [&str; 0]);
        let (name, bytes) = loaded.files.last().unwrap();
        assert_eq!(name.to_str(), Some("https://orbit.example/c"));
        assert!(bytes.starts_with(br#"{"version":"stagedoor/control-v1""#));
    }

    #[test]
    fn nothing_that_the_files_write_gets_wider() {
        let check = |files: &str, said: &str, warned: &[&str]| {
            let loaded = laid("", files, said);
            let told = warnings(&loaded);
            assert_eq!(told.len(), warned.len(), "{told:?}");
            for (told, warned) in told.iter().zip(warned) {
                assert!(told.contains(warned), "{told} lacks {warned}");
            }
            loaded.config
        };
        let groups = r#""workspaces": {"pay": {"groups": ["g"]}}"#;
        for files in ["groups: [own]", "groups: []", "callers: [ada]"] {
            let files = format!("workspaces: {{named: {{pay: {{{files}}}}}}}");
            let config = check(&files, groups, &["the files list its members"]);
            assert!(!config.workspaces.named["pay"].groups.contains(&"g".to_owned()), "{files}");
        }
        let config = check(
            "plugins: {argocd: {enabled_percent: 10}}",
            r#""plugins": {"argocd": {"enabled_percent": 50}}"#,
            &[],
        );
        assert_eq!(config.plugins["argocd"].enabled_percent, Percent(10));
        let on = r#""workspaces": {"pay": {"plugins": {"argocd": true}}}"#;
        let config = check("plugins: {argocd: {enabled_percent: 10}}", on, &["at 10 %"]);
        assert!(config.workspaces.named["pay"].plugins.is_empty());
        let config =
            check("workspaces: {named: {pay: {plugins: {argocd: false}}}}", on, &["stays off"]);
        assert!(!config.workspaces.named["pay"].plugins["argocd"]);

        let limit = |rate: &str| format!(r#""workspaces": {{"pay": {{"rate_limit": {rate}}}}}"#);
        let said = limit(r#"{"rate": "500/m"}"#);
        let config = check("", &said, &["500/m with a burst of 50 is above"]);
        let held = config.workspaces.named["pay"].rate_limit.unwrap();
        assert_eq!((held.rate.to_string(), held.burst().get()), ("100/m".to_owned(), 10));
        let own = "workspaces: {named: {pay: {rate_limit: {rate: 1/s, burst: 2}}}}";
        let config = check(own, &limit(r#"{"rate": "30/m", "burst": 9}"#), &["burst of 2 stays"]);
        let held = config.workspaces.named["pay"].rate_limit.unwrap();
        assert_eq!((held.rate.to_string(), held.burst().get()), ("30/m".to_owned(), 2));
    }

    #[test]
    fn the_source_can_always_switch_off() {
        let said = r#""workspaces": {"pay": {"plugins": {"argocd": false}}}, "plugins": {"jira": {"enabled_percent": 0}}"#;
        let files = "workspaces: {named: {pay: {plugins: {argocd: true}}}}\nplugins: {jira: {enabled_percent: 70}}";
        let config = laid("", files, said).config;
        assert!(!config.workspaces.named["pay"].plugins["argocd"]);
        assert_eq!(config.plugins["jira"].enabled_percent, Percent(0));
    }

    #[test]
    fn what_orbit_does_not_list_is_off() {
        let files = "workspaces: {named: {shop: {plugins: {jira: true, argocd: true}}}}";
        let said = r#"{"integrations": {}, "jira": [{"workspace_id": "pay"}], "other": [{"workspace_id": "x"}]}"#;
        let loaded = laid(", format: orbit, plugins: [jira]", files, said);
        let named = &loaded.config.workspaces.named;
        assert_eq!((named["pay"].plugins["jira"], named["shop"].plugins["jira"]), (true, false));
        assert!(named["shop"].plugins["argocd"], "it is not Orbit's to decide");
        assert_eq!(loaded.config.plugins["jira"].enabled_percent, Percent(0));
        assert!(!named.contains_key("x"));
    }

    #[test]
    fn a_plugin_that_nothing_is_of_is_told() {
        let loaded = laid("", "", r#""plugins": {"argo": {"enabled_percent": 1}}"#);
        assert_eq!(
            warnings(&loaded),
            ["https://orbit.example/c:1:1: nothing here belongs to plugin `argo`"]
        );
    }
}
