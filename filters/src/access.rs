//! Whether a caller may use a route: its class, the roles, groups and callers it asks for, and the
//! resources that its workspace owns.

use crate::{
    Denial, Head, Label,
    identity::Caller,
    normal_form::{NormalPath, decoded},
    routes::Route,
    workspaces::Workspace,
};

/// What can be said of a route before anyone is asked who they are.
///
/// # Errors
/// [`Denial::RouteClosed`], [`Denial::ClassAdmin`] and [`Denial::UpgradeRefused`].
pub fn passable(route: &Route, head: &Head<'_>) -> Result<(), Denial> {
    let name = || route.name.clone();
    if route.options.closed {
        return Err(Denial::RouteClosed { route: name() });
    }
    if route.class == config::Class::Admin {
        return Err(Denial::ClassAdmin { route: name() });
    }
    if head.is_upgrade() && !route.options.upgrade {
        return Err(Denial::UpgradeRefused { route: name() });
    }
    Ok(())
}

/// Lets a caller through that has one of the roles, groups or names the route asks for.
///
/// # Errors
/// [`Denial::AccessDenied`], or [`Denial::GroupsLeftOut`] if the token leaves out what would decide.
pub fn permit(route: &Route, caller: &Caller) -> Result<(), Denial> {
    if fits(&route.options.access, caller) {
        return Ok(());
    }
    Err(refusal(&route.options.access, caller, &route.name))
}

/// Why a caller may not do what `access` is about: it is not among those, or nobody knows.
pub(crate) fn refusal(access: &config::Access, caller: &Caller, route: &Label) -> Denial {
    let out = caller.left_out;
    if out.groups && !access.groups.is_empty() || out.roles && !access.roles.is_empty() {
        return Denial::GroupsLeftOut { issuer: caller.issuer.clone() };
    }
    Denial::AccessDenied { route: route.clone() }
}

/// Whether a caller has one of the roles, groups or names that are asked for.
pub(crate) fn fits(access: &config::Access, caller: &Caller) -> bool {
    let has = |own: &[Label], wanted: &[String]| {
        own.iter().any(|own| wanted.iter().any(|wanted| **own == **wanted))
    };
    let named = |name: &Label| access.callers.iter().any(|wanted| **name == **wanted);
    access.is_open()
        || has(&caller.roles, &access.roles)
        || has(&caller.groups, &access.groups)
        || named(&caller.subject)
        || caller.on_behalf_of.as_ref().is_some_and(named)
}

/// Lets a path through whose parameters name resources of the workspace.
///
/// # Errors
/// [`Denial::ResourceRefused`].
pub(crate) fn resources(
    route: &Route,
    path: &NormalPath,
    workspace: Option<&Workspace>,
) -> Result<(), Denial> {
    for (kind, segment) in &route.resources {
        let named = path.segments().nth(*segment).map(|text| decoded(text, false));
        Resources::of(workspace).permit(kind, named.as_deref())?;
    }
    Ok(())
}

/// What a workspace owns in the systems behind.
pub(crate) struct Resources<'a>(Option<&'a Workspace>);

impl<'a> Resources<'a> {
    pub(crate) fn of(workspace: Option<&'a Workspace>) -> Self {
        Self(workspace)
    }

    /// # Errors
    /// [`Denial::ResourceRefused`] if nothing is named, or what is another's.
    pub(crate) fn permit(&self, kind: &Label, named: Option<&str>) -> Result<(), Denial> {
        let declared = self.0.and_then(|workspace| workspace.declared.as_ref());
        let own = declared.and_then(|declared| declared.resources.get(&**kind));
        let is_own = |named: &str| {
            own.into_iter().flatten().any(|own| match own.strip_suffix('*') {
                Some(beginning) => named.starts_with(beginning),
                None => named == own,
            })
        };
        if named.is_some_and(is_own) {
            return Ok(());
        }
        let name = named.map_or_else(|| Label::lossy("?"), Label::lossy);
        Err(Denial::ResourceRefused { kind: kind.clone(), name })
    }
}
