//! The way out: calls of Backstage, as tunnels (CONNECT) and as plain requests in absolute form.
//!
//! Both pass `filters::forward` in the same order; nothing is decided here.

mod copy;
mod plain;
mod tunnel;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use filters::{
    Denial, Exchange, Label, Now, Step,
    exchange::Served,
    forward::{self, AddressedCall, Call},
    identity::ClientCertificate,
    target::{Host, Target},
};

use crate::{
    clock,
    data_plane::gateway::{Gateway, Snapshot},
    net::parent::Parent,
    observability::metrics::Counted,
    request_id::RequestId,
};

pub use plain::Plain;

/// One forward listener.
pub struct Forward {
    /// What every call needs.
    pub gateway: Arc<Gateway>,
    /// Its number in the config.
    pub listener: usize,
}

/// What a call shows of who calls.
struct ProxyCaller<'a> {
    peer: IpAddr,
    certificate: Option<&'a ClientCertificate>,
    authorization: &'a [&'a [u8]],
}

/// How a call ended.
struct CallOutcome<'a> {
    began: Now,
    id: &'a RequestId,
    peer: IpAddr,
    method: &'a str,
    trace_id: Option<&'a str>,
    /// What it asked for, if that is no target.
    host: Option<&'a [u8]>,
    /// The path of a plain request; a tunnel has none.
    path: &'a [u8],
    tls: bool,
    certificate: Option<&'a ClientCertificate>,
    status: u16,
    denial: Option<&'a Denial>,
    address: Option<SocketAddr>,
    bytes_in: u64,
    bytes_out: u64,
    cut: bool,
}

/// A call that may go out.
struct AdmittedCall {
    /// What was proved of it, and its place among the tunnels.
    call: AddressedCall,
    /// The proxy that it goes through and that looks the name up, if there is one.
    parent: Option<Arc<Parent>>,
}

/// More than this cannot be lacking for one call.
const LACKS_MAX: usize = 6;

impl AdmittedCall {
    /// Where it is dialled: those addresses that passed, and no others.
    fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.call.target().port;
        self.call.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
    }
}

impl Forward {
    /// Whether the call may go out, and how. `secure` is one that asks for a tunnel.
    async fn admit(
        &self,
        snapshot: &Snapshot,
        (target, secure): (&Target, bool),
        shown: &ProxyCaller<'_>,
        now: Now,
        exchange: &mut Exchange,
    ) -> Result<AdmittedCall, Denial> {
        let call = Call {
            listener: self.listener,
            peer: shown.peer,
            certificate: shown.certificate,
            authorization: shown.authorization,
            target,
        };
        let (policy, state) = (&snapshot.policy, &self.gateway.state);
        let mut decided = forward::decide(policy, state, &call, now, exchange);
        for _ in 0..LACKS_MAX {
            let Some(lack) = decided.as_ref().err().and_then(|_| exchange.lack.take()) else {
                break;
            };
            if !self.gateway.supply(&snapshot.loaded.config, &lack).await {
                break;
            }
            *exchange = Exchange::default();
            // As of now: others were let through while this one waited, and limits know.
            decided = forward::decide(policy, state, &call, clock::now(), exchange);
        }
        let named = decided?;
        exchange.steps.enter(Step::Address);
        let parent = snapshot.parents.on_the_way_to(&target.host.to_string(), target.port, secure);
        if let Some(parent) = parent {
            let own = self.gateway.dial.own_addresses();
            let call = named.pass_on(policy, &parent.name, &own, clock::now(), exchange)?;
            return Ok(AdmittedCall { call, parent: Some(Arc::clone(parent)) });
        }
        let found = match &target.host {
            Host::Address(ip) => vec![*ip],
            Host::Name(name) => self.gateway.dial.lookup(name).await.map_err(|error| {
                tracing::debug!(%error, "a called host cannot be resolved");
                Denial::HostUnresolved { target: Label::lossy(&target.to_string()) }
            })?,
        };
        let own = self.gateway.dial.own_addresses();
        // The addresses that passed are the ones dialled: a name could change in between.
        let call = named.choose(policy, &found, &own, clock::now(), exchange)?;
        Ok(AdmittedCall { call, parent: None })
    }

    /// Puts a call on record and counts it.
    fn record(&self, snapshot: &Snapshot, exchange: &Exchange, ended: &CallOutcome<'_>) {
        let took = clock::elapsed().saturating_sub(ended.began.elapsed);
        let counted = Counted {
            status: ended.status,
            code: ended.denial.map(Denial::code),
            upstream_failed: ended.denial.is_some_and(Denial::is_upstream_failure),
            method: ended.method,
            took,
            upstream_took: None,
            served: Served::default(),
        };
        self.gateway.metrics.call(
            &snapshot.counts,
            exchange,
            &counted,
            ended.bytes_in + ended.bytes_out,
        );
        let observed = filters::audit::Observed {
            began: ended.began,
            request_id: ended.id.as_str(),
            trace_id: ended.trace_id,
            listener: &snapshot.policy.listeners[self.listener].name,
            peer: ended.peer,
            method: ended.method,
            host: ended.host,
            raw_path: ended.path,
            query: None,
            tls: ended.tls,
            headers: None,
            certificate: ended.certificate,
            status: ended.status,
            denial: ended.denial,
            upstream_address: ended.address,
            attempts: u32::from(ended.address.is_some()),
            bytes_in: ended.bytes_in,
            bytes_out: ended.bytes_out,
            took,
            upstream_took: None,
            served: Served::default(),
            upgraded: false,
            cut: ended.cut,
            intended: false,
            idempotency_key: None,
            control_id: None,
        };
        self.gateway.audit.record(|out| {
            filters::audit::write(out, &snapshot.policy, exchange, &observed);
        });
    }
}
