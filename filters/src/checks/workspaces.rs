//! Which workspace a request is for, and whether the caller is a member.

use std::{collections::HashMap, sync::Arc};

use http::HeaderMap;

use crate::{
    Denial, Head, Label,
    identity::Caller,
    request::{header_name, host, normal_form::NormalPath},
};

/// The workspaces, indexed for lookup.
#[derive(Debug)]
pub struct Workspaces {
    choose_by: Vec<config::Choice>,
    undeclared: bool,
    named: HashMap<Label, Arc<Declared>>,
    /// The workspaces of a group or a caller, so that memberships are found without a search through every
    /// workspace.
    by_group: HashMap<String, Vec<Label>>,
    by_caller: HashMap<String, Vec<Label>>,
    header: http::HeaderName,
    cookie: Box<str>,
    /// What follows a workspace and a dot in hosts.
    domains: Vec<Box<str>>,
    default: Option<Label>,
    /// Workspaces fixed by a listener, by its number.
    by_listener: Vec<Option<Label>>,
}

/// A workspace that the config declares.
#[derive(Debug)]
pub struct Declared {
    groups: Members,
    callers: Members,
    /// Plugins switched on or off here.
    pub plugins: HashMap<String, bool>,
    /// The resources that it owns in upstream systems, by kind.
    pub resources: HashMap<String, Vec<String>>,
    /// Its own limit.
    pub rate_limit: Option<config::Limit>,
    /// Its number in the config, for metrics.
    pub index: usize,
}

/// Sorted texts. A hash set with one text takes five times the memory, and there may be very many
/// workspaces.
#[derive(Debug)]
struct Members(Box<[Box<str>]>);

impl Members {
    fn of(written: &[String]) -> Self {
        let mut all: Vec<Box<str>> = written.iter().map(|one| one.as_str().into()).collect();
        all.sort_unstable();
        Self(all.into())
    }

    fn contains(&self, one: &str) -> bool {
        self.0.binary_search_by(|member| (**member).cmp(one)).is_ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A route's rules about workspaces.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether its requests must be for a workspace.
    pub need: config::WorkspaceNeed,
    /// The segment of its path that holds `{workspace}`.
    pub segment: Option<usize>,
}

/// The workspace of a request.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its name.
    pub name: Label,
    /// Its declaration in the config, if it has one.
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
                groups: Members::of(&workspace.groups),
                callers: Members::of(&workspace.callers),
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
        // Most have one.
        by_group.values_mut().chain(by_caller.values_mut()).for_each(Vec::shrink_to_fit);
        Self {
            choose_by: written.workspaces.choose_by.clone(),
            undeclared: written.workspaces.undeclared,
            named,
            by_group,
            by_caller,
            header: header_name::of_config(&written.headers.workspace),
            cookie: (*written.workspaces.cookie).into(),
            domains: written
                .workspaces
                .hosts
                .iter()
                .filter_map(|host| host.wildcard())
                .map(Into::into)
                .collect(),
            default: written.workspaces.default.as_ref().map(|name| Label::from(&name.value)),
            by_listener: written
                .listeners
                .values()
                .map(|l| l.workspace.as_ref().map(|w| Label::from(&w.value)))
                .collect(),
        }
    }

    /// The declaration of a workspace.
    pub fn declared(&self, name: &Label) -> Option<Arc<Declared>> {
        self.named.get(name).cloned()
    }

    /// The header that names a request's workspace.
    pub(crate) fn header(&self) -> &http::HeaderName {
        &self.header
    }

    /// The lines of the cookie that names a request's workspace, if a cookie may.
    pub(crate) fn cookies<'a>(&self, headers: &'a HeaderMap) -> Option<Cookies<'a>> {
        let lines = || headers.get_all(http::header::COOKIE).iter();
        if !self.choose_by.contains(&config::Choice::Cookie) || lines().next().is_none() {
            return None;
        }
        let mut values = values_of(headers, &self.cookie);
        let first = values.next()?;
        Some(Cookies { first, several: values.next().is_some() })
    }

    /// The name of that cookie.
    pub(crate) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// The workspace of a request, if it has one.
    ///
    /// # Errors
    /// [`Denial::WorkspaceMissing`] if the route needs one, [`Denial::WorkspaceAmbiguous`] for two
    /// headers or cookies, [`Denial::WorkspaceUnknown`], and [`Denial::WorkspaceNotGranted`] if the
    /// caller is no member; [`Denial::GroupsLeftOut`] if it may be, by groups that its token leaves out.
    pub fn resolve(
        &self,
        head: &Head<'_>,
        path: &NormalPath,
        rules: &Rules,
        caller: &Caller,
    ) -> Result<Option<Workspace>, Denial> {
        let fixed = self.by_listener.get(head.listener).and_then(Option::as_ref);
        let chosen = match fixed {
            Some(fixed) => Some(fixed.clone()),
            None => self.chosen(head, path, rules, caller)?,
        };
        let left_out = || Denial::GroupsLeftOut { issuer: caller.issuer.clone() };
        let Some(name) = chosen else {
            let by_groups = caller.left_out.groups && !self.by_group.is_empty();
            return match rules.need {
                config::WorkspaceNeed::Optional => Ok(None),
                _ if by_groups || caller.left_out.workspaces => Err(left_out()),
                config::WorkspaceNeed::Required => Err(Denial::WorkspaceMissing),
            };
        };
        if !self.exists(&name) {
            return Err(Denial::WorkspaceUnknown { workspace: name });
        }
        let declared = self.named.get(&name).cloned();
        if !is_member(caller, &name, declared.as_deref()) {
            let by_groups = declared.is_some_and(|declared| !declared.groups.is_empty());
            if caller.left_out.groups && by_groups || caller.left_out.workspaces {
                return Err(left_out());
            }
            return Err(Denial::WorkspaceNotGranted { workspace: name });
        }
        Ok(Some(Workspace { name, declared }))
    }

    /// The workspace that a call on a forward listener is for, if it is for one: the listener's, or
    /// the only one of its caller.
    ///
    /// # Errors
    /// If that workspace does not exist.
    pub fn of_call(&self, listener: usize, caller: &Caller) -> Result<Option<Workspace>, Denial> {
        let fixed = self.by_listener.get(listener).cloned().flatten();
        let Some(name) = fixed.or_else(|| self.only_membership(caller)) else { return Ok(None) };
        if !self.exists(&name) {
            return Err(Denial::WorkspaceUnknown { workspace: name });
        }
        let declared = self.named.get(&name).cloned();
        Ok(Some(Workspace { name, declared }))
    }

    fn chosen(
        &self,
        head: &Head<'_>,
        path: &NormalPath,
        rules: &Rules,
        caller: &Caller,
    ) -> Result<Option<Label>, Denial> {
        use config::Choice as C;
        for choice in &self.choose_by {
            // What the request names counts, even if it is then refused.
            let asked = match choice {
                C::Header => self.by_header(head)?,
                C::Path => rules.segment.and_then(|nth| path.segments().nth(nth)).map(Label::lossy),
                C::Host => self.by_host(head),
                C::Cookie => self.by_cookie(head)?,
                C::OnlyMembership | C::Claim | C::Default => None,
            };
            if asked.is_some() {
                return Ok(asked);
            }
            // A default does not apply to every caller.
            let instead = match choice {
                C::OnlyMembership => self.only_membership(caller),
                C::Claim => caller.default_workspace.clone(),
                C::Default => self.default.clone(),
                C::Header | C::Path | C::Host | C::Cookie => None,
            };
            let is_granted = |name: &Label| {
                self.exists(name)
                    && is_member(caller, name, self.named.get(name).map(|declared| &**declared))
            };
            if let Some(name) = instead.filter(is_granted) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Whether the workspace exists. A name that only a token has must be one that the config could declare:
    /// it goes into headers, keys and paths.
    fn exists(&self, name: &Label) -> bool {
        let is_plain = || config::Name::is_one(name) && !name.contains("..");
        self.named.contains_key(name) || self.undeclared && is_plain()
    }

    fn by_cookie(&self, head: &Head<'_>) -> Result<Option<Label>, Denial> {
        let mut values = values_of(head.headers, &self.cookie);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Denial::WorkspaceAmbiguous);
        }
        // A page clears the cookie by setting it without a value.
        let text = std::str::from_utf8(value).unwrap_or("?");
        Ok((!text.is_empty()).then(|| Label::lossy(text)))
    }

    fn by_host(&self, head: &Head<'_>) -> Option<Label> {
        if self.domains.is_empty() {
            return None;
        }
        let host = host::of(head).ok()?;
        let host = host.as_str();
        let mut names = self.domains.iter().filter_map(|domain| {
            let name = host.strip_suffix(&**domain)?.strip_suffix('.')?;
            (!name.is_empty() && !name.contains('.')).then_some(name)
        });
        names.next().map(Label::lossy)
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
        let claimed = claimed.filter(|name| self.exists(name));
        let grouped = caller.groups.iter().filter_map(|g| self.by_group.get(&**g)).flatten();
        let listed = self.by_caller.get(&*caller.subject).into_iter().flatten();
        let user = caller.on_behalf_of.as_ref().and_then(|user| self.by_caller.get(&**user));
        let mut all = claimed.chain(grouped).chain(listed).chain(user.into_iter().flatten());
        let first = all.next()?;
        all.all(|other| other == first).then(|| first.clone())
    }
}

/// The workspace cookie of a request.
pub(crate) struct Cookies<'a> {
    pub(crate) first: &'a [u8],
    pub(crate) several: bool,
}

/// The values of a cookie. Parsed as bytes, so that nothing else in the line can hide one.
fn values_of<'a, 'n>(
    headers: &'a HeaderMap,
    name: &'n str,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    let lines = headers.get_all(http::header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.filter_map(move |pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        (pair[..at].trim_ascii() == name.as_bytes()).then(|| pair[at + 1..].trim_ascii())
    })
}

fn is_member(caller: &Caller, name: &Label, declared: Option<&Declared>) -> bool {
    let listed = |declared: &Declared| {
        caller.groups.iter().any(|group| declared.groups.contains(group))
            || declared.callers.contains(&caller.subject)
            || caller.on_behalf_of.as_ref().is_some_and(|user| declared.callers.contains(user))
    };
    caller.workspaces.contains(name) || declared.is_some_and(listed)
}
