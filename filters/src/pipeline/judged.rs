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

/// A request that its route can take, whoever the caller is.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) route: Arc<Route>,
    pub(super) path: NormalPath,
    /// The query for the upstream, if it differs.
    pub(super) query: Option<String>,
}

/// A request that passed every check which needs no upstream.
pub struct Judged {
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    /// Its route.
    pub route: Arc<Route>,
    /// Its path in normal form.
    pub path: NormalPath,
    /// The query for the upstream, if it differs.
    pub query: Option<String>,
    /// Who is calling.
    pub who: Who,
    /// Its class, by its body or its route.
    pub class: config::Class,
    /// The caller's token, if the upstream's credential is exchanged for it.
    pub token: Option<Secret>,
    /// Its claim on its idempotency key, released on drop.
    pub running: Option<Running>,
    /// The response, if it is answered here.
    pub(super) answer: Option<BodyAnswer>,
}

/// Who is calling.
#[derive(Debug)]
pub enum Who {
    /// Unknown: the route is public.
    Anonymous,
    /// An authenticated caller.
    Known {
        /// The caller.
        caller: Arc<Caller>,
        /// The workspace it is for.
        workspace: Option<Workspace>,
    },
}

/// Facts that are assumed instead of verified, to try a policy with. Never used to serve requests.
#[derive(Debug, Default)]
pub struct Supposed {
    /// Who is calling.
    pub caller: Option<Arc<Caller>>,
    /// The operation in the body.
    pub operation: Option<Operation>,
}

impl Who {
    /// The caller, if known.
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
    /// The facts that switches can match.
    pub fn about(&self) -> About<'_> {
        let (caller, workspace) = (self.who.caller(), self.who.workspace());
        self.route.about(workspace, caller.map(|caller| &**caller), self.class)
    }

    /// The part of its upstream that has its own breaker.
    pub fn breaker_part(&self) -> Option<&str> {
        self.route.breaker_part(&self.path)
    }
}
