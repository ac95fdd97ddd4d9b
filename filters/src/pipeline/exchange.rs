//! The facts of one request or call until it ended or was refused: what its record says.
//!
//! Nothing here proves that a check was passed. Later phases get what they need from the check itself:
//! [`Judged`](crate::reverse::Judged) and its kin.

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

/// The facts, filled in step by step; after a denial, those known until then.
#[derive(Default)]
pub struct Exchange {
    /// The checks that it has reached.
    pub steps: Steps,
    /// The client's address, behind trusted proxies.
    pub client: Option<IpAddr>,
    /// The path in normal form.
    pub path: Option<NormalPath>,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// The more exact route of a preset that yielded to it because it is not opened.
    pub yielded: Option<Arc<Route>>,
    /// Who is calling.
    pub caller: Option<Arc<Caller>>,
    /// The workspace it is for.
    pub workspace: Option<Workspace>,
    /// The operation in its body, if its route has rules for that.
    pub operation: Option<Operation>,
    /// The tightest limit it counted against.
    pub quota: Option<QuotaStatus>,
    /// The upstream's credential. Set once every other check has passed.
    pub credential: Option<Arc<Credential>>,
    /// On a forward listener: what was called.
    pub call: Option<CallDetails>,
    /// What could change the decision, if it were fetched.
    pub lack: Option<Lack>,
}

impl Exchange {
    /// Its class, by its body or its route, as far as it is known.
    pub fn class(&self) -> Option<config::Class> {
        let of_body = self.operation.as_ref().and_then(Operation::class);
        of_body.or(self.route.as_ref().map(|route| route.class))
    }

    /// The facts that switches can match, as far as they are known.
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

    /// The details of a call to this target.
    pub(crate) fn call_to(&mut self, target: &Target) -> &mut CallDetails {
        self.call.get_or_insert_with(|| CallDetails::new(target.clone()))
    }
}

/// How a response was produced, apart from the exchange with the upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Its source, if not the upstream for this request alone.
    pub shared: Option<Shared>,
    /// Why a stored response was served in place of the upstream's.
    pub fallback_for: Option<&'static str>,
    /// How long the request was delayed by the upstream's quota.
    pub pacing_delay: Duration,
}

/// The source of a shared response (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// From the response to an identical concurrent request.
    Collapsed,
    /// From a stored response.
    Hit,
    /// From a response stored for when the upstream fails.
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

/// The details of a call on a forward listener.
#[derive(Debug)]
pub struct CallDetails {
    /// Its target.
    pub target: Target,
    /// The plugin that called, if known.
    pub plugin: Option<Label>,
    /// The rule that allowed it.
    pub rule: Option<Arc<Rule>>,
    /// The code it would have been denied with, if its rule or listener did not only report.
    pub would_deny: Option<&'static str>,
    /// The addresses that the host resolved to.
    pub found: SmallVec<[IpAddr; 4]>,
    /// Those of them that are this machine's.
    pub own: SmallVec<[IpAddr; 1]>,
    /// The parent proxy that it goes through, and that resolves its name.
    pub parent: Option<Label>,
    /// The client's first bytes, if they had to be TLS.
    pub first_bytes: Option<FirstBytes>,
    /// Whether the client may have hidden the server's name within TLS.
    pub encrypted_client_hello: bool,
}

/// The first bytes in a tunnel that must carry TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// A ClientHello for this server.
    Hello(Option<Label>),
    /// Malformed or unsupported TLS.
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
    /// With nothing known but the target.
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
            encrypted_client_hello: false,
        }
    }
}
