//! What was learned of one request or call until it ended or was refused: what its record says.
//!
//! Nothing here proves that a check was passed. What later phases need, they are given by the check
//! itself: [`Judged`](crate::reverse::Judged) and its kin.

use std::{net::IpAddr, sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::routes::Route;
use crate::{
    Label,
    checks::{body::Operation, switches::About, workspaces::Workspace},
    denial::{Lack, QuotaStatus, step::Steps},
    egress::{allowlist::Rule, target::Target},
    identity::{Caller, credentials::Credential},
    request::normal_form::NormalPath,
};

/// What was learned, step by step; after a denial, all that was known until then.
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
    /// Who is calling.
    pub caller: Option<Arc<Caller>>,
    /// The workspace it is for.
    pub workspace: Option<Workspace>,
    /// What its body asks for, if its route asks that.
    pub operation: Option<Operation>,
    /// The tightest limit it counted against.
    pub quota: Option<QuotaStatus>,
    /// What the upstream is to be shown. Set once nothing else stands in the way.
    pub credential: Option<Arc<Credential>>,
    /// On a forward listener: what was called.
    pub call: Option<CallDetails>,
    /// What would have let the decision come out differently, if it were fetched.
    pub lack: Option<Lack>,
}

impl Exchange {
    /// What it does, as its body says or its route, as far as that is known.
    pub fn class(&self) -> Option<config::Class> {
        let of_body = self.operation.as_ref().and_then(Operation::class);
        of_body.or(self.route.as_ref().map(|route| route.class))
    }

    /// What switches are about, as far as it is known.
    pub fn about(&self) -> About<'_> {
        let call = self.call.as_ref();
        let route = self.route.as_ref();
        About {
            upstream: route.map(|route| &route.upstream),
            plugin: match route {
                Some(route) => route.plugin.as_ref(),
                None => call.and_then(|call| call.plugin.as_ref()),
            },
            workspace: self.workspace.as_ref().map(|workspace| &workspace.name),
            caller: self.caller.as_deref(),
            class: self.class(),
        }
    }

    /// What is known of a call to this target.
    pub(crate) fn call_to(&mut self, target: &Target) -> &mut CallDetails {
        self.call.get_or_insert_with(|| CallDetails::new(target.clone()))
    }
}

/// How an answer came about, beside the exchange with the upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Where it came from, if not from the upstream for this request alone.
    pub shared: Option<Shared>,
    /// Why it is one that was kept for when the upstream fails.
    pub fallback_for: Option<&'static str>,
    /// How long the request had to wait until the upstream could be asked.
    pub pacing_delay: Duration,
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
pub struct CallDetails {
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
    pub first_bytes: Option<FirstBytes>,
    /// Whether the client may have hidden the server's name within TLS.
    pub encrypted_hello: bool,
}

/// What a client said first in a tunnel that must carry TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// A hello of TLS, for this server.
    Hello(Option<Label>),
    /// TLS, but broken or not to be understood.
    Malformed,
    /// Something else.
    NotTls,
}

impl FirstBytes {
    /// Its name in records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "tls",
            Self::Malformed => "malformed",
            Self::NotTls => "not_tls",
        }
    }
}

impl CallDetails {
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
            first_bytes: None,
            encrypted_hello: false,
        }
    }
}
