//! Egress: calls of Backstage, as tunnels (CONNECT) and as plain requests in absolute form.
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
    forward::{self, AddressedCall, Call},
    identity::ClientCertificate,
    target::{Host, Target},
};

use crate::{
    clock,
    data_plane::gateway::{Gateway, Snapshot},
    net::parent::Parent,
};

pub use plain::Plain;

/// One forward listener.
pub struct Forward {
    /// What every call needs.
    pub gateway: Arc<Gateway>,
    /// Its number in the config.
    pub listener: usize,
}

/// What a call presents to authenticate its caller.
struct ProxyCaller<'a> {
    peer: IpAddr,
    certificate: Option<&'a ClientCertificate>,
    authorization: &'a [&'a [u8]],
}

/// A call that passed every check before its connection.
struct AdmittedCall {
    /// What was proved about it, and its permit among the tunnels.
    call: AddressedCall,
    /// The parent proxy that resolves the name and connects, if there is one.
    parent: Option<Arc<Parent>>,
}

/// A decision about a call cannot lack more than this.
const LACKS_MAX: usize = 6;

impl AdmittedCall {
    /// The addresses to dial: those that passed the guard, and no others.
    fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.call.target().port;
        self.call.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
    }
}

impl Forward {
    /// Decides about the call, and resolves its host. `secure` is true for a tunnel.
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
            // With the present time: limits have counted other requests while this one waited.
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
}
