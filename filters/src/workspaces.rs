//! For which workspace a request is, and whether the caller may act for it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{Denial, Head, Label, identity::Caller, normal_form::NormalPath, routes::Route};

/// The workspaces, ready to be asked.
#[derive(Debug)]
pub struct Workspaces {
    choose_by: Vec<config::Choice>,
    undeclared: bool,
    named: HashMap<Label, Arc<Declared>>,
    /// The workspaces that a group or a caller opens, so that a caller's memberships are found
    /// without asking every workspace.
    by_group: HashMap<String, Vec<Label>>,
    by_caller: HashMap<String, Vec<Label>>,
    header: http::HeaderName,
    /// Workspaces fixed by a listener, by its number.
    by_listener: Vec<Option<Label>>,
}

/// A workspace that the config declares.
#[derive(Debug)]
pub struct Declared {
    groups: HashSet<String>,
    callers: HashSet<String>,
    /// Plugins switched on or off here.
    pub plugins: HashMap<String, bool>,
    /// What is its own in the systems behind, by kind.
    pub resources: HashMap<String, Vec<String>>,
    /// A limit of its own.
    pub rate_limit: Option<config::Limit>,
    /// Its number in the config, for metrics.
    pub index: usize,
}

/// The workspace of a request.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its name.
    pub name: Label,
    /// What the config says of it, if it does.
    pub declared: Option<Arc<Declared>>,
}

impl Workspaces {
    /// From what the operator wrote. `listeners` in their order.
    pub fn new(written: &config::Config) -> Self {
        let mut by_group: HashMap<String, Vec<Label>> = HashMap::new();
        let mut by_caller: HashMap<String, Vec<Label>> = HashMap::new();
        let mut named = HashMap::new();
        for (index, (name, workspace)) in written.workspaces.named.iter().enumerate() {
            let label = Label::from(name);
            for group in &workspace.groups {
                by_group.entry(group.clone()).or_default().push(label.clone());
            }
            for caller in &workspace.callers {
                by_caller.entry(caller.clone()).or_default().push(label.clone());
            }
            let declared = Declared {
                groups: workspace.groups.iter().cloned().collect(),
                callers: workspace.callers.iter().cloned().collect(),
                plugins: workspace.plugins.iter().map(|(p, on)| (p.to_string(), *on)).collect(),
                resources: workspace
                    .resources
                    .iter()
                    .map(|(kind, names)| (kind.to_string(), names.clone()))
                    .collect(),
                rate_limit: workspace.rate_limit,
                index,
            };
            named.insert(label, Arc::new(declared));
        }
        Self {
            choose_by: written.workspaces.choose_by.clone(),
            undeclared: written.workspaces.undeclared,
            named,
            by_group,
            by_caller,
            header: crate::headers::name(&written.headers.workspace),
            by_listener: written
                .listeners
                .values()
                .map(|l| l.workspace.as_ref().map(|w| Label::from(&w.value)))
                .collect(),
        }
    }

    /// What is declared of a workspace.
    #[cfg(test)]
    pub(crate) fn declared(&self, name: &Label) -> Option<Arc<Declared>> {
        self.named.get(name).cloned()
    }

    /// The header by which a request chooses.
    pub(crate) fn header(&self) -> &http::HeaderName {
        &self.header
    }

    /// The workspace of a request, if it has one.
    ///
    /// # Errors
    /// [`Denial::WorkspaceMissing`] if the route needs one, [`Denial::WorkspaceAmbiguous`] for two
    /// headers, [`Denial::WorkspaceUnknown`], and [`Denial::WorkspaceNotGranted`] if the caller is
    /// no member.
    pub fn resolve(
        &self,
        head: &Head<'_>,
        path: &NormalPath,
        route: &Route,
        caller: &Caller,
    ) -> Result<Option<Workspace>, Denial> {
        let fixed = self.by_listener.get(head.listener).and_then(Option::as_ref);
        let chosen = match fixed {
            Some(fixed) => Some(fixed.clone()),
            None => self.chosen(head, path, route, caller)?,
        };
        let Some(name) = chosen else {
            return match route.options.workspace {
                config::WorkspaceNeed::Required => Err(Denial::WorkspaceMissing),
                config::WorkspaceNeed::Optional => Ok(None),
            };
        };
        let declared = self.named.get(&name).cloned();
        if declared.is_none() && !self.undeclared {
            return Err(Denial::WorkspaceUnknown { workspace: name });
        }
        if !is_member(caller, &name, declared.as_deref()) {
            return Err(Denial::WorkspaceNotGranted { workspace: name });
        }
        Ok(Some(Workspace { name, declared }))
    }

    /// The workspace that a call on a forward listener is for, if it is for one: the listener's, or
    /// the only one of its caller.
    ///
    /// # Errors
    /// If there is no such workspace.
    pub fn of_call(&self, listener: usize, caller: &Caller) -> Result<Option<Workspace>, Denial> {
        let fixed = self.by_listener.get(listener).cloned().flatten();
        let Some(name) = fixed.or_else(|| self.only_membership(caller)) else { return Ok(None) };
        let declared = self.named.get(&name).cloned();
        if declared.is_none() && !self.undeclared {
            return Err(Denial::WorkspaceUnknown { workspace: name });
        }
        Ok(Some(Workspace { name, declared }))
    }

    fn chosen(
        &self,
        head: &Head<'_>,
        path: &NormalPath,
        route: &Route,
        caller: &Caller,
    ) -> Result<Option<Label>, Denial> {
        for choice in &self.choose_by {
            let chosen = match choice {
                config::Choice::Header => self.by_header(head)?,
                config::Choice::Path => route
                    .workspace_segment
                    .and_then(|nth| path.segments().nth(nth))
                    .map(Label::lossy),
                config::Choice::OnlyMembership => self.only_membership(caller),
            };
            if chosen.is_some() {
                return Ok(chosen);
            }
        }
        Ok(None)
    }

    fn by_header(&self, head: &Head<'_>) -> Result<Option<Label>, Denial> {
        let mut values = head.headers.get_all(&self.header).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Denial::WorkspaceAmbiguous);
        }
        let text = value.to_str().unwrap_or("?");
        match self.named.get_key_value(text) {
            Some((name, _)) => Ok(Some(name.clone())),
            None => Ok(Some(Label::lossy(text))),
        }
    }

    /// The caller's workspace, if it is a member of exactly one.
    fn only_membership(&self, caller: &Caller) -> Option<Label> {
        let claimed = caller.workspaces.iter();
        let claimed = claimed.filter(|name| self.undeclared || self.named.contains_key(*name));
        let grouped = caller.groups.iter().filter_map(|g| self.by_group.get(&**g)).flatten();
        let listed = self.by_caller.get(&*caller.subject).into_iter().flatten();
        let user = caller.on_behalf_of.as_ref().and_then(|user| self.by_caller.get(&**user));
        let mut all = claimed.chain(grouped).chain(listed).chain(user.into_iter().flatten());
        let first = all.next()?;
        all.all(|other| other == first).then(|| first.clone())
    }
}

fn is_member(caller: &Caller, name: &Label, declared: Option<&Declared>) -> bool {
    let listed = |declared: &Declared| {
        caller.groups.iter().any(|group| declared.groups.contains(&**group))
            || declared.callers.contains(&*caller.subject)
            || caller.on_behalf_of.as_ref().is_some_and(|user| declared.callers.contains(&**user))
    };
    caller.workspaces.contains(name) || declared.is_some_and(listed)
}
