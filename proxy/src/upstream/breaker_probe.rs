//! Probes upstreams whose breaker is open, so that they get requests again as soon as they are reachable:
//! every second, off the request path, and like a request would reach them.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use filters::{Label, Policy, guard::Guard};
use pingora::connectors::http::Connector;
use tokio::{task::JoinSet, time::timeout};

use super::{
    Lookup, Upstream, Upstreams,
    health::{self, Watch},
};
use crate::{clock, observability::changes::breaker_moved};

/// The upstreams that are probed.
#[derive(Default)]
pub(crate) struct Probing {
    sought: HashMap<Label, Sought>,
    probes: JoinSet<(Label, bool)>,
}

struct Sought {
    /// When the next probe is due.
    due: Duration,
    /// Probes in progress.
    in_flight: u32,
}

/// The interval of probes, or up to a fifth more, so that replicas do not probe together.
const EVERY: Duration = Duration::from_millis(900);
/// A probe that waits for a lost packet does not prevent the next.
const UNDER_WAY_MAX: u32 = 2;
/// The timeout of a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// The maximum of addresses in one probe.
const ADDRESSES_MAX: usize = 3;

impl Probing {
    /// Collects results, and starts the probes that are due.
    pub(crate) fn tick(
        &mut self,
        watch: &Watch,
        upstreams: &Upstreams,
        policy: &Arc<Policy>,
        connector: &OnceLock<Arc<Connector>>,
    ) {
        let now = clock::now();
        while let Some(looked) = self.probes.try_join_next() {
            // A probe that panicked has no result, and keeps its place until its upstream is reachable.
            let Ok((name, there)) = looked else { continue };
            if let Some(sought) = self.sought.get_mut(&name) {
                sought.in_flight -= 1;
            }
            watch.metrics.breaker_probed(&name, there);
            for moved in watch.state.breakers.found(&name, there, now) {
                breaker_moved(&watch.audit, &moved);
            }
        }
        let names = watch.state.breakers.sought(now);
        for name in &names {
            let Some(upstream) = upstreams.get(name) else { continue };
            let sought = self
                .sought
                .entry(name.clone())
                .or_insert(Sought { due: now.elapsed, in_flight: 0 });
            if sought.due > now.elapsed || sought.in_flight >= UNDER_WAY_MAX {
                continue;
            }
            sought.due = now.elapsed + EVERY.mul_f64(1.0 + fastrand::f64() / 5.0);
            sought.in_flight += 1;
            let connector = connector.get_or_init(|| Arc::new(Connector::new(None)));
            let (watch, policy) = (watch.clone(), Arc::clone(policy));
            let (upstream, connector) = (Arc::clone(upstream), Arc::clone(connector));
            self.probes.spawn(async move {
                let there = is_there(&watch, &policy.guard, &upstream, &connector).await;
                (upstream.name.clone(), there)
            });
        }
        // The time of the last probe is remembered until the next may start.
        self.sought.retain(|name, sought| {
            sought.due > now.elapsed || sought.in_flight > 0 || names.contains(name)
        });
    }
}

/// Whether one of its addresses accepts a connection, or passes the health check if there is one.
async fn is_there(
    watch: &Watch,
    guard: &Guard,
    upstream: &Arc<Upstream>,
    connector: &Arc<Connector>,
) -> bool {
    // It may have a new address.
    if upstream.written.url.ip().is_none() {
        let _ = timeout(
            CONNECT,
            upstream.resolve(&Lookup { dial: &watch.dial, guard, health: &watch.state.health }),
        )
        .await;
    }
    let mut addresses: Vec<_> = upstream.pool.facts().iter().map(|facts| facts.at).collect();
    fastrand::shuffle(&mut addresses);
    addresses.truncate(ADDRESSES_MAX);
    let mut probes = JoinSet::new();
    for at in addresses {
        let (upstream, connector) = (Arc::clone(upstream), Arc::clone(connector));
        probes.spawn(async move {
            if let Some(rules) = &upstream.written.health_check {
                let asked = timeout(*rules.timeout, health::ask(&connector, &upstream, at)).await;
                return matches!(asked, Ok(Ok(status)) if rules.status.contains(status.as_u16()));
            }
            health::takes_connections(&connector, &upstream, at, CONNECT).await
        });
    }
    while let Some(looked) = probes.join_next().await {
        if matches!(looked, Ok(true)) {
            return true;
        }
    }
    false
}
