//! What the checks prove of a request: each step takes what an earlier one proved.

use std::{net::IpAddr, sync::Arc};

use super::routes::Route;
use crate::{
    Secret,
    checks::{
        body::{BodyAnswer, Operation},
        switches::About,
        workspaces::Workspace,
    },
    identity::Caller,
    limits::idempotency::Running,
    request::normal_form::NormalPath,
};

/// A request that can be asked for here, by whomever.
#[derive(Debug)]
pub(super) struct Passable {
    pub(super) route: Arc<Route>,
    pub(super) path: NormalPath,
    /// The query that the upstream is asked with, if that is another.
    pub(super) query: Option<String>,
}

/// A request that passed every check which needs no upstream.
pub struct Judged {
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    /// The route that takes it.
    pub route: Arc<Route>,
    /// Its path in normal form.
    pub path: NormalPath,
    /// The query that the upstream is to be asked with, if that is another.
    pub query: Option<String>,
    /// Who is calling.
    pub who: Who,
    /// What it does, as its body says or its route.
    pub class: config::Class,
    /// The caller's token, if what the upstream is shown is made from it.
    pub token: Option<Secret>,
    /// Its place among requests with the same idempotency key; given up when this is dropped.
    pub running: Option<Running>,
    /// The answer, if it gets no further than here.
    pub(super) answer: Option<BodyAnswer>,
}

/// Who is calling.
#[derive(Debug)]
pub enum Who {
    /// Anybody: the route asks nobody.
    Anonymous,
    /// Somebody.
    Known {
        /// Who.
        caller: Arc<Caller>,
        /// The workspace it is for.
        workspace: Option<Workspace>,
    },
}

/// What is supposed instead of being asked for, to try a policy with. Nothing that serves requests
/// supposes anything.
#[derive(Debug, Default)]
pub struct Supposed {
    /// Who is calling.
    pub caller: Option<Arc<Caller>>,
    /// What the body asks for.
    pub operation: Option<Operation>,
}

impl Who {
    /// The caller, if somebody is known.
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        match self {
            Self::Anonymous => None,
            Self::Known { caller, .. } => Some(caller),
        }
    }

    /// The workspace, if it is for one.
    pub fn workspace(&self) -> Option<&Workspace> {
        match self {
            Self::Anonymous => None,
            Self::Known { workspace, .. } => workspace.as_ref(),
        }
    }
}

impl Judged {
    /// What switches are about.
    pub fn about(&self) -> About<'_> {
        let (caller, workspace) = (self.who.caller(), self.who.workspace());
        self.route.about(workspace, caller.map(|caller| &**caller), self.class)
    }

    /// The part of its upstream that has a breaker of its own.
    pub fn breaker_part(&self) -> Option<&str> {
        self.route.breaker_part(&self.path)
    }
}
