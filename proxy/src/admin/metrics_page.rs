//! Gauges, which are read when `/metrics` is requested.

use std::sync::{Arc, atomic::Ordering};

use filters::{
    breaker::{Cause, Key, Position, Status},
    health::Condition,
    switches::Switch,
};
use prometheus::{Encoder, TextEncoder};

use super::breakers;
use crate::{
    clock,
    lifecycle::process::Process,
    observability::{
        audit::ship::DeliveryStatus,
        metrics::{Metrics, renamed},
    },
};

impl Metrics {
    /// All metrics, in Prometheus' text format. Gauges are read now, so that no series stays after its
    /// subject is gone.
    pub(super) fn text(&self, process: &Process) -> Vec<u8> {
        let _only = self.showing.lock();
        self.in_flight.set(i64::try_from(process.gateway.drain.in_flight()).unwrap_or(i64::MAX));
        self.audit_writable.set(process.gateway.state.recording.works().into());
        self.audit_lost.inc_by(process.gateway.audit.lost() - self.audit_lost.get());
        self.audit_bytes.inc_by(process.gateway.audit.written() - self.audit_bytes.get());
        self.show_shipping(process.shipping.delivery_status());
        self.tunnels.set(i64::try_from(process.gateway.state.tunnels.len()).unwrap_or(i64::MAX));
        self.show_breakers(&breakers::all(&process.gateway));
        self.show_addresses(process);
        process.gateway.switchboard.expire();
        self.show_switches(&process.gateway.state.switches.all());
        self.certificate_end.reset();
        for (listener, facts) in process.certificates() {
            let name = facts.names.first().map_or("?", String::as_str);
            self.certificate_end.with_label_values(&[&*listener, name]).set(facts.not_after);
        }
        self.show_control(process);
        self.show_store(process);
        let mut out = Vec::new();
        let mut families = self.registry.gather();
        if self.aliases.is_some() {
            renamed::add_old_names(&mut families);
        }
        TextEncoder::new().encode(&families, &mut out).expect("memory takes all that is written");
        out
    }

    fn show_shipping(&self, sinks: &[Arc<DeliveryStatus>]) {
        for sink in sinks {
            let name = [&*sink.name];
            let counters = [
                (&self.shipped, &sink.shipped),
                (&self.ship_failures, &sink.failures),
                (&self.ship_refused, &sink.refused),
                (&self.ship_lost, &sink.lost_segments),
            ];
            for (counter, delivery_status) in counters {
                let counter = counter.with_label_values(&name);
                counter.inc_by(delivery_status.load(Ordering::Relaxed) - counter.get());
            }
            let now = clock::now().unix_seconds();
            let lag = sink.now().oldest.map_or(0, |oldest| now.saturating_sub(oldest));
            let lag = i64::try_from(lag).unwrap_or(i64::MAX);
            self.ship_lag.with_label_values(&name).set(lag);
        }
    }

    fn show_store(&self, process: &Process) {
        let Some(store) = &process.gateway.store else { return };
        let facts = store.leases.status();
        let none: [&str; 0] = [];
        self.store_up.with_label_values(&none).set(facts.there.into());
        self.store_replicas.with_label_values(&none).set(facts.replicas.into());
        for (change, now) in [("leased", facts.leased), ("spent", facts.spent)] {
            let counter = self.store_tokens.with_label_values(&[change]);
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }

    fn show_control(&self, process: &Process) {
        self.control_time.reset();
        self.control_stale.reset();
        let Some(facts) = process.control.facts(&process.gateway.snapshot.load().files) else {
            return;
        };
        let none: [&str; 0] = [];
        let confirmed = facts.confirmed.unwrap_or_default().cast_signed();
        self.control_time.with_label_values(&none).set(confirmed);
        self.control_stale.with_label_values(&none).set(facts.stale.into());
    }

    fn show_breakers(&self, breakers: &[(Key, Status)]) {
        self.breaker.reset();
        self.breakers_open.reset();
        // The worst is set last, and stays: the parts of an upstream are not labels, because clients name
        // them.
        let mut breakers: Vec<_> = breakers.iter().collect();
        breakers.sort_by_key(|(_, facts)| match facts.position {
            Position::Closed => 0,
            Position::HalfOpen => 1,
            Position::Open => 2,
        });
        for (key, facts) in &breakers {
            let plugin = key.plugin.as_deref().unwrap_or_default();
            let host = key.host.as_deref().unwrap_or_default();
            let labels = [&*key.upstream, plugin, host];
            self.breaker.with_label_values(&labels).set(value(facts.position));
            for cause in Cause::NAMES {
                let labels = [&*key.upstream, plugin, host, cause];
                let open = self.breakers_open.with_label_values(&labels);
                let is_open = facts.position != Position::Closed
                    && facts.cause.is_some_and(|own| own.name() == cause);
                open.add(is_open.into());
            }
        }
        let Some(aliases) = &self.aliases else { return };
        aliases.breaker.reset();
        for (key, facts) in breakers {
            aliases.breaker.with_label_values(&[&*key.upstream]).set(value(facts.position));
        }
    }

    fn show_addresses(&self, process: &Process) {
        self.addresses.reset();
        for (name, upstream) in process.gateway.snapshot.load().upstreams.iter() {
            for condition in Condition::NAMES {
                self.addresses.with_label_values(&[&**name, condition]).set(0);
            }
            for facts in upstream.pool.facts() {
                self.addresses.with_label_values(&[&**name, facts.condition.name()]).inc();
            }
        }
    }

    fn show_switches(&self, all: &[Arc<Switch>]) {
        self.switches.reset();
        for switch in all {
            let scope: Vec<&str> = switch.scope.members().map(|(name, _)| name).collect();
            let label = [&*scope.join("+"), switch.position.name()];
            self.switches.with_label_values(&label).inc();
        }
    }
}

fn value(position: Position) -> i64 {
    match position {
        Position::Closed => 0,
        Position::Open => 1,
        Position::HalfOpen => 2,
    }
}
