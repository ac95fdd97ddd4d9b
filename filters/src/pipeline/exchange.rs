//! One request and its answer, as far as we know it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use smallvec::SmallVec;

use crate::{
    Label, Secret,
    checks::{api_key::SignedIn, graphql::Operation, switches::About, workspaces::Workspace},
    denial::{Lack, QuotaStatus, step::Steps},
    egress::{allowlist::Rule, target::Target},
    identity::{Caller, Proof, credentials::Credential, headers::Edits},
    limits::{idempotency::Running, tunnels::Open},
    pipeline::routes::Route,
    request::normal_form::NormalPath,
    response::coalesce,
    upstream::breaker::Permit,
};

/// What we have learned about one request. Filled in step by step; after a denial it holds all that
/// was known until then.
#[derive(Default)]
pub struct Exchange {
    /// The checks that it has come to.
    pub steps: Steps,
    /// The client's address, behind trusted proxies.
    pub client: Option<IpAddr>,
    /// The path in normal form.
    pub path: Option<NormalPath>,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// The more exact route of a preset that yielded to it, as nobody opened it.
    pub yielded: Option<Arc<Route>>,
    /// A caller to suppose instead of asking who it is: `explain` and scenario pages set it,
    /// nothing that serves requests does.
    pub supposed: Option<Arc<Caller>>,
    /// Who is calling.
    pub caller: Option<Arc<Caller>>,
    /// How the caller proved it.
    pub proof: Option<Proof>,
    /// The workspace it is for.
    pub workspace: Option<Workspace>,
    /// The tightest limit it counted against.
    pub quota: Option<QuotaStatus>,
    /// Its place among requests with the same idempotency key.
    pub running: Option<Running>,
    /// What would have let the decision come out differently, if it were fetched.
    pub lack: Option<Lack>,
    /// What the upstream is to be shown. Set once nothing else stands in the way.
    pub credential: Option<Arc<Credential>>,
    /// What a GraphQL request asks for, if its route asks that.
    pub operation: Option<Label>,
    /// The same in full, as its rules read it.
    pub graphql: Option<Operation>,
    /// An operation to suppose instead of reading a body, as with `supposed`.
    pub supposed_operation: Option<Operation>,
    /// What it does, if its body says so and not its route.
    pub class: Option<config::Class>,
    /// The answer to somebody who signed in here.
    pub signed_in: Option<SignedIn>,
    /// How long it has to wait for its turn at the upstream.
    pub turn: Duration,
    /// Where the answer came from, if not from the upstream for this request alone.
    pub shared: Option<Shared>,
    /// Why it got an answer that was kept for when the upstream fails.
    pub fallback_for: Option<&'static str>,
    /// The caller's token, if what the upstream is to be shown is made from it.
    pub token: Option<Secret>,
    /// The breaker's leave; it takes the outcome.
    pub permit: Option<Permit>,
    /// On a forward listener: what was called.
    pub called: Option<Called>,
    /// On a forward listener: its place among the workspace's tunnels.
    pub tunnel: Option<Open>,
}

impl Exchange {
    /// The part of its upstream that has a breaker of its own.
    pub fn breaker_part(&self) -> Option<&str> {
        let segment = self.route.as_ref()?.breaker_by?;
        self.path.as_ref()?.segments().nth(segment)
    }

    /// What switches are about, as far as it is known.
    pub fn about(&self) -> About<'_> {
        let (workspace, caller) = (self.workspace.as_ref(), self.caller.as_deref());
        match &self.route {
            Some(route) => route.about(workspace, caller, self.class),
            None => About {
                upstream: None,
                plugin: self.called.as_ref().and_then(|called| called.plugin.as_ref()),
                workspace: workspace.map(|workspace| &workspace.name),
                caller,
                class: None,
            },
        }
    }
}

/// Where an answer came from that others have, too (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// From the answer to another request, asked at the same time.
    Collapsed,
    /// From an answer that was kept.
    Hit,
    /// From an answer that was kept for when the upstream fails.
    Fallback,
}

impl Shared {
    /// Its name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Collapsed => "collapsed",
            Self::Hit => "hit",
            Self::Fallback => "fallback",
        }
    }
}

/// What a call on a forward listener was about.
#[derive(Debug)]
pub struct Called {
    /// Where it wanted to go.
    pub target: Target,
    /// The plugin that called, as far as that is known.
    pub plugin: Option<Label>,
    /// The rule that let it through.
    pub rule: Option<Arc<Rule>>,
    /// The code it would have been denied with, if its rule or listener did not only report.
    pub would_deny: Option<&'static str>,
    /// The addresses that the host had.
    pub found: SmallVec<[IpAddr; 4]>,
    /// Those of them that are this machine's.
    pub own: SmallVec<[IpAddr; 1]>,
    /// The proxy that it goes through, and that looks its name up.
    pub parent: Option<Label>,
    /// What the client said first, if it had to be TLS.
    pub said: Option<Said>,
    /// Whether the client may have hidden the server's name within TLS.
    pub encrypted_hello: bool,
}

/// What a client said first in a tunnel that must carry TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A hello of TLS, for this server.
    Hello(Option<Label>),
    /// TLS, but broken or not to be understood.
    Malformed,
    /// Something else.
    NotTls,
}

impl Said {
    /// Its name in records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "tls",
            Self::Malformed => "malformed",
            Self::NotTls => "not_tls",
        }
    }
}

impl Called {
    /// Of which nothing but the target is known.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            plugin: None,
            rule: None,
            would_deny: None,
            found: SmallVec::new(),
            own: SmallVec::new(),
            parent: None,
            said: None,
            encrypted_hello: false,
        }
    }
}

/// A request that passed every check, and what is to be done with it.
#[derive(Debug)]
pub struct Admitted {
    /// Where it goes.
    pub upstream: Label,
    /// How its head is changed on the way.
    pub edits: Edits,
    /// What it has in common with requests that are the same, if it may be one with them. It has
    /// yet to [`crate::pipeline::reverse::depart`] if nobody else asks for it.
    pub key: Option<coalesce::Key>,
}
