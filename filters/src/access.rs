//! Whether a caller may use a route: its class, and the roles, groups and callers it asks for.

use crate::{Denial, Head, identity::Caller, routes::Route};

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
/// [`Denial::AccessDenied`].
pub fn permit(route: &Route, caller: &Caller) -> Result<(), Denial> {
    let access = &route.options.access;
    let has = |own: &[crate::Label], wanted: &[String]| {
        own.iter().any(|own| wanted.iter().any(|wanted| **own == **wanted))
    };
    let named = |name: &crate::Label| access.callers.iter().any(|wanted| **name == **wanted);
    let fits = access.is_open()
        || has(&caller.roles, &access.roles)
        || has(&caller.groups, &access.groups)
        || named(&caller.subject)
        || caller.on_behalf_of.as_ref().is_some_and(named);
    if fits { Ok(()) } else { Err(Denial::AccessDenied { route: route.name.clone() }) }
}
