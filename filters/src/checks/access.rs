//! Whether a caller may use a route: its class, the roles, groups and callers it requires, and the resources
//! that the workspace owns.

use crate::{
    Denial, Head, Label,
    checks::workspaces::Workspace,
    identity::Caller,
    request::normal_form::{NormalPath, decoded},
};

/// Who may use a route, and for what.
#[derive(Debug)]
pub struct Rules {
    /// The route's name.
    pub route: Label,
    /// What it does.
    pub class: config::Class,
    /// Whether it is closed: it matches requests in order to refuse them.
    pub closed: bool,
    /// Whether it allows WebSockets.
    pub upgrade: bool,
    /// The roles, groups and callers it requires.
    pub access: config::Access,
    /// The segments of its path that must name resources of these kinds.
    pub resources: Vec<(Label, usize)>,
}

impl Rules {
    /// The checks that do not depend on the caller.
    ///
    /// # Errors
    /// [`Denial::RouteClosed`], [`Denial::ClassAdmin`] and [`Denial::UpgradeRefused`].
    pub fn open(&self, head: &Head<'_>) -> Result<(), Denial> {
        let route = || self.route.clone();
        if self.closed {
            return Err(Denial::RouteClosed { route: route() });
        }
        if self.class == config::Class::Admin {
            return Err(Denial::ClassAdmin { route: route() });
        }
        if head.is_upgrade() && !self.upgrade {
            return Err(Denial::UpgradeRefused { route: route() });
        }
        Ok(())
    }

    /// Permits a caller that has one of the roles, groups or names that the route requires, for resources
    /// that its workspace owns.
    ///
    /// # Errors
    /// [`Denial::AccessDenied`], or [`Denial::GroupsLeftOut`] if the token leaves out what would decide;
    /// [`Denial::ResourceRefused`].
    pub fn permit(
        &self,
        caller: &Caller,
        path: &NormalPath,
        workspace: Option<&Workspace>,
    ) -> Result<(), Denial> {
        if !fits(&self.access, caller) {
            return Err(refusal(&self.access, caller, &self.route));
        }
        for (kind, segment) in &self.resources {
            let named = path.segments().nth(*segment).map(|text| decoded(text, false));
            Resources::of(workspace).permit(kind, named.as_deref())?;
        }
        Ok(())
    }
}

/// Why `access` does not permit a caller: it does not match, or the token leaves out what would decide.
pub(crate) fn refusal(access: &config::Access, caller: &Caller, route: &Label) -> Denial {
    let out = caller.left_out;
    if out.groups && !access.groups.is_empty() || out.roles && !access.roles.is_empty() {
        return Denial::GroupsLeftOut { issuer: caller.issuer.clone() };
    }
    Denial::AccessDenied { route: route.clone() }
}

/// Whether a caller has one of the required roles, groups or names.
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

/// The resources that a workspace owns in upstream systems.
pub(crate) struct Resources<'a>(Option<&'a Workspace>);

impl<'a> Resources<'a> {
    pub(crate) fn of(workspace: Option<&'a Workspace>) -> Self {
        Self(workspace)
    }

    /// # Errors
    /// [`Denial::ResourceRefused`] if no resource is named, or one of another workspace.
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
