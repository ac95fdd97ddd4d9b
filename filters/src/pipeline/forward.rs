//! Egress: every check that an outbound call passes on a forward listener, in order.
//!
//! First by name: a host that no rule allows is not even looked up. Then by address: a name can resolve to
//! anything. Then, in a tunnel to a TLS port, by the ClientHello.

use std::{net::IpAddr, sync::Arc};

use smallvec::SmallVec;

use super::{
    exchange::{CallDetails, Exchange, FirstBytes},
    policy::{Listener, Policy},
    state::State,
};
use crate::{
    Denial, Label, Now,
    checks::{switches::About, workspaces::Workspace},
    denial::step::Step,
    egress::{
        addresses::AddressClass,
        client_hello::{ClientHello, Peek},
        guard,
        hello_fault::HelloFault,
        target::{Host, Target},
    },
    identity::{Caller, ProxyCredentials},
    limits::tunnels::Open,
    request::certificate::ClientCertificate,
};

/// The parts of a call that a decision reads.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The number of its listener in the [`Policy`].
    pub listener: usize,
    /// The address that connected to us.
    pub peer: IpAddr,
    /// The client certificate that was verified, if any.
    pub certificate: Option<&'a ClientCertificate>,
    /// The lines of `Proxy-Authorization`.
    pub authorization: &'a [&'a [u8]],
    /// Its target.
    pub target: &'a Target,
}

/// A call that is allowed by its host's name, and counted among its workspace's tunnels. Its address has not
/// been judged yet.
pub struct NamedCall {
    target: Target,
    /// Whether what the rules refuse is allowed and recorded.
    report_only: bool,
    /// Counted until the call ends.
    _tunnel: Open,
}

/// A call that may be dialled. In a tunnel to a TLS port the ClientHello has not been judged yet.
pub struct AddressedCall {
    call: NamedCall,
    /// The addresses that may be dialled, and no others; empty if a parent proxy resolves the name.
    pub addresses: SmallVec<[IpAddr; 4]>,
}

/// Decides a call by its caller and its host's name. Reads no clock and does no I/O.
///
/// # Errors
/// Why it is refused; see [`crate::decide`] for `exchange.lack`.
pub fn decide(
    policy: &Policy,
    state: &State,
    call: &Call<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<NamedCall, Denial> {
    decide_supposing(None, policy, state, call, now, exchange)
}

/// As [`decide`], with an assumed caller.
///
/// # Errors
/// As [`decide`].
pub fn decide_supposing(
    supposed: Option<&Arc<Caller>>,
    policy: &Policy,
    state: &State,
    call: &Call<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<NamedCall, Denial> {
    let listener = &policy.listeners[call.listener];
    exchange.client = Some(call.peer.to_canonical());
    exchange.call = Some(CallDetails::new(call.target.clone()));
    Checks { policy, state, call, listener, now, supposed }.judge(exchange)
}

/// One call, and everything that it is checked against.
struct Checks<'a> {
    policy: &'a Policy,
    state: &'a State,
    call: &'a Call<'a>,
    listener: &'a Listener,
    now: Now,
    supposed: Option<&'a Arc<Caller>>,
}

/// The order.
impl Checks<'_> {
    fn judge(&self, exchange: &mut Exchange) -> Result<NamedCall, Denial> {
        exchange.steps.enter(Step::Target);
        let caller = self.caller(exchange)?;
        let own = self.workspace(&caller, exchange)?;
        let workspace = own.as_ref();
        let plugin = self.plugin(&caller, workspace, exchange)?;
        // Also on a report-only listener: a switch is not a rule that is being tried out.
        self.switches(&caller, plugin.as_ref(), workspace, exchange)?;
        self.rule(plugin.as_ref(), workspace, exchange)?;
        self.rate_limit(&caller, workspace, exchange)?;
        let tunnel = self.tunnel(&caller, workspace, exchange)?;
        let target = self.call.target.clone();
        Ok(NamedCall { target, report_only: self.listener.report_only, _tunnel: tunnel })
    }
}

/// The checks themselves.
impl Checks<'_> {
    fn caller(&self, exchange: &mut Exchange) -> Result<Arc<Caller>, Denial> {
        exchange.steps.enter(Step::Caller);
        let Self { policy, state, call, now, .. } = *self;
        let shown = ProxyCredentials {
            authorization: call.authorization,
            certificate: call.certificate,
            listener: call.listener,
        };
        let known = match self.supposed {
            Some(supposed) => Ok(Some(Arc::clone(supposed))),
            None => state.authenticator(&policy.identity, now).call(&shown),
        };
        let known = known.map_err(|refusal| {
            exchange.lack = refusal.lack;
            let stranger = refusal
                .suspect
                .then(|| policy.rate_limits.take_stranger(&state.limiters, call.peer, now));
            stranger.and_then(Result::err).unwrap_or(refusal.denial)
        })?;
        let caller = known.or_else(|| self.listener.caller.clone()).ok_or(Denial::CallerMissing)?;
        exchange.caller = Some(Arc::clone(&caller));
        Ok(caller)
    }

    fn workspace(
        &self,
        caller: &Caller,
        exchange: &mut Exchange,
    ) -> Result<Option<Workspace>, Denial> {
        exchange.steps.enter(Step::Workspace);
        let workspace = self.policy.workspaces.of_call(self.call.listener, caller)?;
        exchange.workspace.clone_from(&workspace);
        Ok(workspace)
    }

    /// The calling plugin, if known.
    fn plugin(
        &self,
        caller: &Caller,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<Option<Label>, Denial> {
        exchange.steps.enter(Step::Plugin);
        let plugin = self.listener.plugin.clone().or_else(|| caller.plugin.clone());
        exchange.call_to(self.call.target).plugin.clone_from(&plugin);
        self.policy.plugins.enabled(plugin.as_ref(), workspace)?;
        Ok(plugin)
    }

    fn switches(
        &self,
        caller: &Caller,
        plugin: Option<&Label>,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::Switches);
        let workspace = workspace.map(|workspace| &workspace.name);
        let about = About { upstream: None, plugin, workspace, caller: Some(caller), class: None };
        self.state.switches.pass(&about, self.now)
    }

    fn rule(
        &self,
        plugin: Option<&Label>,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::EgressRule);
        let Self { policy, call, now, .. } = *self;
        let details = exchange.call_to(call.target);
        match policy.allowlist.allow(call.target, plugin, workspace.map(|w| &w.name), now) {
            Ok(rule) => {
                details.rule = Some(rule.clone());
                if rule.report_only {
                    details.would_deny = Some("host_refused");
                }
            }
            Err(denial) if self.listener.report_only => details.would_deny = Some(denial.code()),
            Err(denial) => return Err(denial),
        }
        Ok(())
    }

    fn rate_limit(
        &self,
        caller: &Caller,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        exchange.steps.enter(Step::RateLimit);
        let (limits, limiters) = (&self.policy.rate_limits, &self.state.limiters);
        let quota = limits.take_call(limiters, caller, workspace, self.now, &mut exchange.lack)?;
        exchange.quota = Some(quota);
        Ok(())
    }

    fn tunnel(
        &self,
        caller: &Caller,
        workspace: Option<&Workspace>,
        exchange: &mut Exchange,
    ) -> Result<Open, Denial> {
        exchange.steps.enter(Step::Tunnels);
        let whose = workspace.map_or(&caller.subject, |workspace| &workspace.name);
        self.state.tunnels.open(whose, self.policy.egress.tunnels_max)
    }
}

impl NamedCall {
    /// Chooses the allowed addresses among those that the host resolved to. `own` are this machine's.
    ///
    /// # Errors
    /// [`Denial::AddressRefused`] if there are none.
    pub fn choose(
        self,
        policy: &Policy,
        found: &[IpAddr],
        own: &[IpAddr],
        now: Now,
        exchange: &mut Exchange,
    ) -> Result<AddressedCall, Denial> {
        let details = exchange.call_to(&self.target);
        details.found = found.iter().copied().collect();
        details.own = found.iter().copied().filter(|ip| own.contains(ip)).collect();
        let mut addresses = SmallVec::new();
        let mut reported = false;
        let mut refused = None;
        for ip in found {
            match policy.guard.judge(&self.target, *ip, own, now) {
                Ok(()) => addresses.push(*ip),
                Err(class) if self.report_only && is_merely_private(class) => {
                    reported = true;
                    addresses.push(*ip);
                }
                Err(class) => refused = refused.or(Some((*ip, class))),
            }
        }
        if reported {
            details.would_deny = details.would_deny.or(Some("address_refused"));
        }
        if addresses.is_empty() {
            // It is refused, so there is nothing that would be.
            details.would_deny = None;
            return Err(guard::refusal(&self.target, refused));
        }
        Ok(AddressedCall { call: self, addresses })
    }

    /// Permits it to go through the parent proxy. An address is judged as usual; the parent proxy resolves a
    /// name.
    ///
    /// # Errors
    /// [`Denial::AddressRefused`] for an address that may not be called.
    pub fn pass_on(
        self,
        policy: &Policy,
        parent: &Label,
        own: &[IpAddr],
        now: Now,
        exchange: &mut Exchange,
    ) -> Result<AddressedCall, Denial> {
        let target = self.target.clone();
        let passed = match target.host {
            Host::Address(ip) => self.choose(policy, &[ip], own, now, exchange)?,
            Host::Name(_) => AddressedCall { call: self, addresses: SmallVec::new() },
        };
        exchange.call_to(&target).parent = Some(parent.clone());
        Ok(passed)
    }
}

impl AddressedCall {
    /// Its target.
    pub fn target(&self) -> &Target {
        &self.call.target
    }

    /// Whether it must carry TLS for its host's name.
    pub fn must_be_tls(&self, policy: &Policy) -> bool {
        policy.egress.tls_ports.contains(&self.call.target.port)
    }

    /// Judges the first bytes in a tunnel that must carry TLS. [`Peek::More`] is not judged.
    ///
    /// # Errors
    /// [`Denial::HelloRefused`] if it is not TLS, or for another name.
    pub fn hello(
        &self,
        policy: &Policy,
        peek: &Peek,
        exchange: &mut Exchange,
    ) -> Result<(), Denial> {
        let target = self.target();
        let details = exchange.call_to(target);
        let fault = match peek {
            Peek::More => return Ok(()),
            Peek::NotTls => {
                details.first_bytes = Some(FirstBytes::NotTls);
                Some(HelloFault::NotTls)
            }
            Peek::Malformed(why) => {
                details.first_bytes = Some(FirstBytes::Malformed);
                Some(HelloFault::Malformed(why))
            }
            Peek::Hello(hello) => {
                details.first_bytes =
                    Some(FirstBytes::Hello(hello.server_name.as_deref().map(Label::lossy)));
                details.encrypted_client_hello = hello.encrypted;
                name_fault(policy, hello, target)
            }
        };
        let Some(fault) = fault else { return Ok(()) };
        if self.call.report_only {
            details.would_deny = details.would_deny.or(Some("hello_refused"));
            return Ok(());
        }
        let target = Label::lossy(&target.to_string());
        Err(Denial::HelloRefused { target, why: fault.sentence() })
    }
}

fn name_fault(policy: &Policy, hello: &ClientHello, target: &Target) -> Option<HelloFault> {
    if hello.encrypted
        && policy.egress.encrypted_client_hello == config::EncryptedClientHello::Refuse
    {
        return Some(HelloFault::Encrypted);
    }
    HelloFault::of_name(hello.server_name.as_deref(), target)
}

/// Networks that an operator may want to allow, so that a report is useful. The others never are.
fn is_merely_private(class: AddressClass) -> bool {
    use AddressClass as A;
    matches!(class, A::Private | A::UniqueLocal | A::SharedNat)
}
