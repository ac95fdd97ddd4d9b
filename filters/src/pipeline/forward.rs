//! The way out: every check a call of Backstage passes on a forward listener, in order.
//!
//! First by name: a host that nobody allowed is not even looked up. Then by address: a name can
//! resolve to anything. Then, in a tunnel to a TLS port, by what the client says in TLS itself.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::{
    Denial, Exchange, Label, Now, Policy, State,
    checks::switches::About,
    denial::step::Step,
    egress::{
        addresses::AddressClass,
        client_hello::{ClientHello, Peek},
        guard,
        hello_fault::HelloFault,
        target::{Host, Target},
    },
    identity::{ClientCertificate, Shown},
    pipeline::exchange::{Called, Said},
};

/// What of a call a decision is made from.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The listener it came to, as [`Policy`] numbers them.
    pub listener: usize,
    /// The address that connected to us.
    pub peer: IpAddr,
    /// The client certificate that was verified, if any.
    pub certificate: Option<&'a ClientCertificate>,
    /// The lines of `Proxy-Authorization`.
    pub authorization: &'a [&'a [u8]],
    /// Where it wants to go.
    pub target: &'a Target,
}

/// Decides about a call by who calls and by name. Reads no clock and does no I/O.
///
/// # Errors
/// The reason to say no; see [`crate::decide`] for `exchange.lack`.
pub fn decide(
    policy: &Policy,
    state: &State,
    call: &Call<'_>,
    now: Now,
    exchange: &mut Exchange,
) -> Result<(), Denial> {
    let listener = &policy.listeners[call.listener];
    exchange.client = Some(call.peer.to_canonical());
    exchange.called = Some(Called::new(call.target.clone()));

    exchange.steps.enter(Step::Target);
    exchange.steps.enter(Step::Caller);
    let shown = Shown {
        authorization: call.authorization,
        certificate: call.certificate,
        listener: call.listener,
    };
    let known = match exchange.supposed.take() {
        Some(supposed) => Ok(Some(supposed)),
        None => policy.identity.authenticate_call(
            &shown,
            (&state.keys, &state.tokens, &state.passwords),
            now,
        ),
    };
    let known = known.map_err(|refusal| {
        exchange.lack = refusal.lack;
        let stranger = refusal
            .suspect
            .then(|| policy.rate_limits.take_stranger(&state.limiters, call.peer, now));
        stranger.and_then(Result::err).unwrap_or(refusal.denial)
    })?;
    let known = known.or_else(|| listener.caller.clone()).ok_or(Denial::CallerMissing)?;
    let caller = exchange.caller.insert(known);
    exchange.steps.enter(Step::Workspace);
    let workspace = policy.workspaces.of_call(call.listener, caller)?;
    exchange.workspace = workspace;
    let workspace = exchange.workspace.as_ref();
    exchange.steps.enter(Step::Plugin);
    let called = exchange.called.as_mut().expect("just set");
    called.plugin = listener.plugin.clone().or_else(|| caller.plugin.clone());
    let plugin = called.plugin.as_ref();
    policy.plugins.enabled(plugin, workspace)?;
    // Also where the listener only reports: it is no rule that is being tried out.
    let about = About {
        upstream: None,
        plugin,
        workspace: workspace.map(|workspace| &workspace.name),
        caller: Some(caller),
        class: None,
    };
    exchange.steps.enter(Step::Switches);
    state.switches.pass(&about, now)?;
    exchange.steps.enter(Step::EgressRule);
    match policy.allowlist.allow(call.target, plugin, workspace.map(|w| &w.name), now) {
        Ok(rule) => {
            called.rule = Some(rule.clone());
            if rule.report_only {
                called.would_deny = Some("host_refused");
            }
        }
        Err(denial) if listener.report_only => called.would_deny = Some(denial.code()),
        Err(denial) => return Err(denial),
    }
    exchange.steps.enter(Step::RateLimit);
    let quota = policy.rate_limits.take_call(
        &state.limiters,
        caller,
        workspace,
        now,
        &mut exchange.lack,
    )?;
    exchange.quota = Some(quota);
    let whose = workspace.map_or(&caller.subject, |workspace| &workspace.name);
    exchange.steps.enter(Step::Tunnels);
    exchange.tunnel = Some(state.tunnels.open(whose, policy.egress.tunnels_max)?);
    Ok(())
}

/// Which of the addresses that were found may be dialled. `own` are those of this machine.
///
/// # Errors
/// [`Denial::AddressRefused`] if none.
pub fn choose(
    policy: &Policy,
    listener: usize,
    found: &[IpAddr],
    own: &[IpAddr],
    now: Now,
    called: &mut Called,
) -> Result<SmallVec<[IpAddr; 4]>, Denial> {
    let report_only = policy.listeners[listener].report_only;
    called.found = found.iter().copied().collect();
    called.own = found.iter().copied().filter(|ip| own.contains(ip)).collect();
    let mut chosen = SmallVec::new();
    let mut reported = false;
    let mut refused = None;
    for ip in found {
        match policy.guard.judge(&called.target, *ip, own, now) {
            Ok(()) => chosen.push(*ip),
            Err(class) if report_only && is_merely_private(class) => {
                reported = true;
                chosen.push(*ip);
            }
            Err(class) => refused = refused.or(Some((*ip, class))),
        }
    }
    if reported {
        called.would_deny = called.would_deny.or(Some("address_refused"));
    }
    if chosen.is_empty() {
        // It is refused: nothing would be.
        called.would_deny = None;
        return Err(guard::refusal(&called.target, refused));
    }
    Ok(chosen)
}

/// Lets a call pass on to the proxy that stands between us and the internet. An address is judged as
/// ever; a name is that proxy's to look up.
///
/// # Errors
/// [`Denial::AddressRefused`] for an address that may not be called.
pub fn pass_on(
    policy: &Policy,
    listener: usize,
    parent: &Label,
    own: &[IpAddr],
    now: Now,
    called: &mut Called,
) -> Result<(), Denial> {
    if let Host::Address(ip) = called.target.host {
        choose(policy, listener, &[ip], own, now, called)?;
    }
    called.parent = Some(parent.clone());
    Ok(())
}

/// Whether a tunnel to this target must carry TLS for its name.
pub fn must_be_tls(policy: &Policy, target: &Target) -> bool {
    policy.egress.tls_ports.contains(&target.port)
}

/// Judges what a client says first in a tunnel that must carry TLS. [`Peek::More`] is not judged.
///
/// # Errors
/// [`Denial::HelloRefused`] if it is not TLS, or for another name.
pub fn hello(
    policy: &Policy,
    listener: usize,
    peek: &Peek,
    called: &mut Called,
) -> Result<(), Denial> {
    let fault = match peek {
        Peek::More => return Ok(()),
        Peek::NotTls => {
            called.said = Some(Said::NotTls);
            Some(HelloFault::NotTls)
        }
        Peek::Malformed(why) => {
            called.said = Some(Said::Malformed);
            Some(HelloFault::Malformed(why))
        }
        Peek::Hello(hello) => {
            called.said = Some(Said::Hello(hello.server_name.as_deref().map(Label::lossy)));
            called.encrypted_hello = hello.encrypted;
            name_fault(policy, hello, &called.target)
        }
    };
    let Some(fault) = fault else { return Ok(()) };
    if policy.listeners[listener].report_only {
        called.would_deny = called.would_deny.or(Some("hello_refused"));
        return Ok(());
    }
    let target = Label::lossy(&called.target.to_string());
    Err(Denial::HelloRefused { target, why: fault.sentence() })
}

fn name_fault(policy: &Policy, hello: &ClientHello, target: &Target) -> Option<HelloFault> {
    if hello.encrypted && policy.egress.encrypted_hello == config::EncryptedHello::Refuse {
        return Some(HelloFault::Encrypted);
    }
    HelloFault::of_name(hello.server_name.as_deref(), target)
}

/// Networks that an operator may have called on purpose, and would learn of. The others never.
fn is_merely_private(class: AddressClass) -> bool {
    use AddressClass as A;
    matches!(class, A::Private | A::UniqueLocal | A::SharedNat)
}
