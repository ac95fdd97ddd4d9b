//! The metrics. Labels are closed sets: names from the config, codes, classes of statuses.

mod counts;
mod keep;
pub(crate) mod renamed;

use std::time::Duration;

use filters::{
    Exchange, Label,
    exchange::{Served, Shared},
};
use parking_lot::Mutex;
use prometheus::{
    CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

pub use self::counts::Counts;
use self::{counts::RouteCounts, keep::Keep};

/// Everything that is counted.
pub struct Metrics {
    pub(crate) registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    upstream_durations: HistogramVec,
    shared: IntCounterVec,
    turns: CounterVec,
    retries: IntCounterVec,
    denials: IntCounterVec,
    workspaces: IntCounterVec,
    calls: IntCounterVec,
    call_bytes: IntCounterVec,
    pub(crate) tunnels: IntGauge,
    pub(crate) breaker: IntGaugeVec,
    pub(crate) breakers_open: IntGaugeVec,
    breaker_probes: IntCounterVec,
    pub(crate) addresses: IntGaugeVec,
    ejections: IntCounterVec,
    health_check_failures: IntCounterVec,
    pub(crate) switches: IntGaugeVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) audit_writable: IntGauge,
    pub(crate) audit_lost: IntCounter,
    pub(crate) audit_bytes: IntCounter,
    pub(crate) shipped: IntCounterVec,
    pub(crate) ship_failures: IntCounterVec,
    pub(crate) ship_refused: IntCounterVec,
    pub(crate) ship_lost: IntCounterVec,
    pub(crate) ship_lag: IntGaugeVec,
    reload_success: IntGauge,
    reload_time: IntGauge,
    reload_failures: IntGauge,
    needs_restart: IntGauge,
    keys_fetches: IntCounterVec,
    credential_fetches: IntCounterVec,
    control_fetches: IntCounterVec,
    /// A vector without labels, so that the metric does not exist without a source.
    pub(crate) control_time: IntGaugeVec,
    pub(crate) control_stale: IntGaugeVec,
    pub(crate) store_up: IntGaugeVec,
    pub(crate) store_replicas: IntGaugeVec,
    store_round_trips: IntCounterVec,
    store_errors: IntCounterVec,
    pub(crate) store_tokens: IntCounterVec,
    pub(crate) certificate_end: IntGaugeVec,
    pub(crate) aliases: Option<Aliases>,
    /// Locked while gauges are set and read: two concurrent scrapes would mix.
    pub(crate) showing: Mutex<()>,
}

/// The names of the design documents.
pub(crate) struct Aliases {
    pub(crate) breaker: IntGaugeVec,
    failures: IntCounter,
    retries: IntCounter,
    cache_hits: IntCounter,
    duration: Histogram,
    requests: IntCounterVec,
    errors: IntCounterVec,
    limited: IntCounter,
}

/// What of an exchange is counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// The status sent to the client; 0 if none was.
    pub status: u16,
    /// The denial's code, if it was denied.
    pub code: Option<&'static str>,
    /// Whether the upstream is the reason for that.
    pub upstream_failed: bool,
    /// The method.
    pub method: &'a str,
    /// The whole exchange.
    pub took: Duration,
    /// The upstream's part.
    pub upstream_took: Option<Duration>,
    /// How the response was produced.
    pub served: Served,
}

impl Metrics {
    /// For this config.
    pub fn new(config: &config::Config) -> Self {
        let registry = Registry::new();
        let keep = Keep(&registry);
        let aliases = config.process.metric_aliases.then(|| Aliases {
            breaker: keep.gauges(
                "backstage_circuit_breaker_state",
                "The worst stagedoor_breaker_state of an upstream (0 closed, 1 open, 2 half-open)",
                &["service"],
            ),
            failures: keep
                .counter("backstage_request_failures_total", "Exchanges whose upstream failed"),
            retries: keep.counter("backstage_retry_attempts_total", "Retries"),
            cache_hits: keep
                .counter("backstage_cache_hits_total", "Requests that got a stale response"),
            duration: keep.histogram(
                "backstage_request_duration_seconds",
                "Time until the upstream responded",
            ),
            requests: keep.counters(
                "plugins_requests_total",
                "Exchanges on a plugin's routes",
                &["method", "status", "workspace_id"],
            ),
            errors: keep.counters(
                "plugins_errors_total",
                "Denials on a plugin's routes",
                &["type", "plugin_id"],
            ),
            limited: keep
                .counter("plugins_rate_limit_exceeded_total", "Requests over a rate limit"),
        });
        let info = keep.gauges("stagedoor_build_info", "The running version", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: keep.counters(
                "stagedoor_requests_total",
                "Exchanges by route, method class and status",
                &["route", "class", "status"],
            ),
            durations: keep.histograms(
                "stagedoor_request_duration_seconds",
                "Time from the head to the end of an exchange",
                &["route"],
            ),
            upstream_durations: keep.histograms(
                "stagedoor_upstream_duration_seconds",
                "Time until the upstream's response began",
                &["route"],
            ),
            shared: keep.counters(
                "stagedoor_shared_responses_total",
                "Requests that got another request's response (request coalescing)",
                &["route", "shared"],
            ),
            retries: keep.counters(
                "stagedoor_retries_total",
                "Retries",
                &["upstream"],
            ),
            turns: keep.seconds(
                "stagedoor_pacing_delay_seconds_total",
                "Time that requests waited for an upstream's pace",
                &["upstream"],
            ),
            denials: keep.counters(
                "stagedoor_denials_total",
                "Denied requests, by code",
                &["code"],
            ),
            workspaces: keep.counters(
                "stagedoor_workspace_requests_total",
                "Exchanges by workspace; those beyond the cap are `other`",
                &["workspace", "decision"],
            ),
            calls: keep.counters(
                "stagedoor_calls_total",
                "Calls on forward listeners, by the rule that let them through",
                &["rule", "decision"],
            ),
            call_bytes: keep.counters(
                "stagedoor_call_bytes_total",
                "Bytes of calls, in both directions",
                &["rule"],
            ),
            tunnels: keep.gauge("stagedoor_calls_in_flight", "Calls in flight"),
            breaker: keep.gauges(
                "stagedoor_breaker_state",
                "0 closed, 1 open, 2 half-open",
                &["upstream", "plugin", "host"],
            ),
            breakers_open: keep.gauges(
                "stagedoor_breakers_open",
                "Breakers that are not closed, by cause: no response (no_response) or failed responses (failures)",
                &["upstream", "plugin", "host", "cause"],
            ),
            breaker_probes: keep.counters(
                "stagedoor_breaker_probes_total",
                "Probes of an upstream while one of its breakers was open",
                &["upstream", "result"],
            ),
            addresses: keep.gauges(
                "stagedoor_upstream_addresses",
                "Addresses of an upstream, by condition",
                &["upstream", "condition"],
            ),
            ejections: keep.counters(
                "stagedoor_ejections_total",
                "Addresses that were ejected or found unhealthy, by cause",
                &["upstream", "reason"],
            ),
            health_check_failures: keep.counters(
                "stagedoor_health_check_failures_total",
                "Failed health checks of an upstream's addresses",
                &["upstream"],
            ),
            switches: keep.gauges(
                "stagedoor_switches",
                "Switches that operators have set, by what they name",
                &["scope", "position"],
            ),
            in_flight: keep.gauge("stagedoor_requests_in_flight", "Exchanges in flight"),
            audit_writable: keep.gauge(
                "stagedoor_audit_writable",
                "Whether audit records can be written; while they cannot, actions are refused",
            ),
            audit_lost: keep.counter(
                "stagedoor_audit_records_lost_total",
                "Audit records that were lost",
            ),
            audit_bytes: keep
                .counter("stagedoor_audit_bytes_total", "Bytes of audit records written"),
            shipped: keep.counters(
                "stagedoor_audit_shipped_records_total",
                "Audit records that a sink has accepted",
                &["sink"],
            ),
            ship_failures: keep.counters(
                "stagedoor_audit_ship_failures_total",
                "Failed attempts to ship audit records",
                &["sink"],
            ),
            ship_refused: keep.counters(
                "stagedoor_audit_ship_refused_records_total",
                "Audit records that a sink refused",
                &["sink"],
            ),
            ship_lost: keep.counters(
                "stagedoor_audit_ship_lost_segments_total",
                "Segments that were removed before they were shipped",
                &["sink"],
            ),
            ship_lag: keep.gauges(
                "stagedoor_audit_ship_lag_seconds",
                "Age of the oldest audit record not yet shipped to a sink",
                &["sink"],
            ),
            reload_success: keep.gauge(
                "stagedoor_config_last_reload_successful",
                "1 if the last reload was applied",
            ),
            reload_time: keep.gauge(
                "stagedoor_config_last_reload_success_timestamp_seconds",
                "When a config was last applied",
            ),
            reload_failures: keep.gauge(
                "stagedoor_config_last_reload_failures",
                "Certificates, CAs, keys and secrets that the last reload could not apply",
            ),
            needs_restart: keep.gauge(
                "stagedoor_config_needs_restart",
                "Changes of the config that take effect at the next start",
            ),
            keys_fetches: keep.counters(
                "stagedoor_keys_fetches_total",
                "Fetches of an issuer's keys",
                &["issuer", "result"],
            ),
            credential_fetches: keep.counters(
                "stagedoor_credential_fetches_total",
                "Fetches of tokens for upstreams",
                &["credential", "result"],
            ),
            control_fetches: keep.counters(
                "stagedoor_control_fetches_total",
                "Polls of the control source",
                &["result"],
            ),
            control_time: keep.gauges(
                "stagedoor_control_last_success_timestamp_seconds",
                "When the control source last confirmed the state in force",
                &[],
            ),
            control_stale: keep.gauges(
                "stagedoor_control_stale",
                "1 if the last confirmation is older than `control.stale_after`",
                &[],
            ),
            store_up: keep.gauges(
                "stagedoor_store_up",
                "1 while the store that replicas share is reachable",
                &[],
            ),
            store_replicas: keep.gauges(
                "stagedoor_store_replicas",
                "Replicas that count in the store, or the last known number",
                &[],
            ),
            store_round_trips: keep.counters(
                "stagedoor_store_round_trips_total",
                "Batches sent to the store",
                &["result"],
            ),
            store_errors: keep.counters(
                "stagedoor_store_errors_total",
                "Failures of the store, by cause",
                &["cause"],
            ),
            store_tokens: keep.counters(
                "stagedoor_store_tokens_total",
                "Tokens that the store leased, and how many of them were spent",
                &["change"],
            ),
            certificate_end: keep.gauges(
                "stagedoor_certificate_not_after_seconds",
                "When a certificate expires",
                &["listener", "name"],
            ),
            aliases,
            showing: Mutex::default(),
            registry,
        }
    }

    /// Counts another attempt.
    pub fn retried(&self, upstream: &Label) {
        self.retries.with_label_values(&[&**upstream]).inc();
        if let Some(aliases) = &self.aliases {
            aliases.retries.inc();
        }
    }

    /// Counts an address that is out from now on.
    pub fn ejected(&self, upstream: &Label, reason: &'static str) {
        self.ejections.with_label_values(&[&**upstream, reason]).inc();
    }

    /// Counts a probe of an upstream whose breaker is open.
    pub fn breaker_probed(&self, upstream: &Label, up: bool) {
        let result = if up { "up" } else { "down" };
        self.breaker_probes.with_label_values(&[&**upstream, result]).inc();
    }

    /// Counts a health check that failed.
    pub fn health_check_failed(&self, upstream: &Label) {
        self.health_check_failures.with_label_values(&[&**upstream]).inc();
    }

    /// Counts an exchange; `counts` are those of its policy.
    pub fn exchange(&self, counts: &Counts, exchange: &Exchange, counted: &Counted<'_>) {
        let route = counts.route(exchange);
        self.requests(route, counted.status);
        let (whole, upstream) = route.durations.get_or_init(|| {
            let label = [route.name.as_str()];
            let of_upstream = self.upstream_durations.with_label_values(&label);
            (self.durations.with_label_values(&label), of_upstream)
        });
        whole.observe(counted.took.as_secs_f64());
        if let Some(took) = counted.upstream_took {
            upstream.observe(took.as_secs_f64());
        }
        if let Some(shared) = counted.served.shared {
            self.shared.with_label_values(&[&route.name, shared.name()]).inc();
            if let Some(aliases) = self.aliases.as_ref().filter(|_| shared != Shared::Collapsed) {
                aliases.cache_hits.inc();
            }
        }
        let delay = counted.served.pacing_delay;
        if !delay.is_zero()
            && let Some(of) = &exchange.route
        {
            self.turns.with_label_values(&[&*of.upstream]).inc_by(delay.as_secs_f64());
        }
        if let Some(code) = counted.code {
            self.denials.with_label_values(&[code]).inc();
        }
        let workspace = exchange.workspace.as_ref().map(|workspace| counts.workspace(workspace));
        if let Some(workspace) = workspace {
            let (counter, decision) = match counted.code {
                Some(_) => (&workspace.denied, "deny"),
                None => (&workspace.allowed, "allow"),
            };
            let label = [workspace.name.as_str(), decision];
            counter.get_or_init(|| self.workspaces.with_label_values(&label)).inc();
        }
        if let Some(aliases) = &self.aliases {
            aliases.exchange(exchange, counted, workspace.map(|workspace| &*workspace.name));
        }
    }

    /// Counts a call on a forward listener, and its bytes both ways.
    pub fn call(&self, counts: &Counts, exchange: &Exchange, counted: &Counted<'_>, bytes: u64) {
        self.exchange(counts, exchange, counted);
        let rule = exchange.call.as_ref().and_then(|call| call.rule.as_ref());
        let rule = rule.map_or("none", |rule| rule.name.as_str());
        let would = exchange.call.as_ref().is_some_and(|call| call.would_deny.is_some());
        let decision = match counted.code {
            Some(_) => "deny",
            None if would => "would_deny",
            None => "allow",
        };
        self.calls.with_label_values(&[rule, decision]).inc();
        self.call_bytes.with_label_values(&[rule]).inc_by(bytes);
    }

    /// Counts a head that never became a request.
    pub fn refused(&self, code: &'static str) {
        self.denials.with_label_values(&[code]).inc();
    }

    /// Counts a fetch of an issuer's keys.
    pub fn keys_fetched(&self, issuer: &str, went_well: Result<(), ()>) {
        let result = if went_well.is_ok() { "ok" } else { "error" };
        self.keys_fetches.with_label_values(&[issuer, result]).inc();
    }

    /// Counts a fetch of a token for upstreams. `result` is `ok`, `error`, or `refused` if that concerns one
    /// caller.
    pub fn credential_fetched(&self, credential: &str, result: &'static str) {
        self.credential_fetches.with_label_values(&[credential, result]).inc();
    }

    /// Counts a poll of the control source. `result` is `ok`, `unchanged`, `refused` for an invalid
    /// response, or `error` for none.
    pub fn control_fetched(&self, result: &'static str) {
        self.control_fetches.with_label_values(&[result]).inc();
    }

    /// Counts a batch of questions to the store.
    pub fn store_asked(&self, went_well: Result<(), ()>) {
        let result = if went_well.is_ok() { "ok" } else { "error" };
        self.store_round_trips.with_label_values(&[result]).inc();
    }

    /// Counts a failure of the store.
    pub fn store_failed(&self, cause: &'static str) {
        self.store_errors.with_label_values(&[cause]).inc();
    }

    /// Sets the result of a reload.
    pub fn reloaded(&self, went_well: bool, unix_seconds: u64) {
        self.reload_success.set(i64::from(went_well));
        if went_well {
            self.reload_time.set(unix_seconds.cast_signed());
        }
    }

    /// Sets how many certificates, CAs, keys and secrets of the config in force could not be used.
    pub fn not_taken_over(&self, count: usize) {
        self.reload_failures.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Adds to that number.
    pub fn not_taken_over_either(&self, count: usize) {
        self.reload_failures.add(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets how many changes take effect only at the next start.
    pub fn need_restart(&self, count: usize) {
        self.needs_restart.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn requests(&self, route: &RouteCounts, status: u16) {
        let known = |all: &[(u16, IntCounter)]| {
            let counter = all.iter().find(|(of, _)| *of == status).map(|(_, counter)| counter);
            counter.map(IntCounter::inc).is_some()
        };
        if known(&route.requests.read()) {
            return;
        }
        let counter = self.requests.with_label_values(&[&*route.name, route.class, &*itoa(status)]);
        let mut all = route.requests.write();
        if !known(&all) {
            counter.inc();
            all.push((status, counter));
        }
    }
}

impl Aliases {
    fn exchange(&self, exchange: &Exchange, counted: &Counted<'_>, workspace: Option<&str>) {
        if counted.upstream_failed {
            self.failures.inc();
        }
        if let Some(took) = counted.upstream_took {
            self.duration.observe(took.as_secs_f64());
        }
        if counted.code == Some("rate_limited") {
            self.limited.inc();
        }
        let plugin = exchange.route.as_ref().and_then(|route| route.plugin.as_ref());
        let Some(plugin) = plugin else { return };
        let method = match counted.method {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "_OTHER",
        };
        let status = itoa(counted.status);
        let workspace = workspace.unwrap_or_default();
        self.requests.with_label_values(&[method, &*status, workspace]).inc();
        if let Some(code) = counted.code {
            self.errors.with_label_values(&[code, plugin.as_str()]).inc();
        }
    }
}

fn itoa(status: u16) -> String {
    // Anything but a status below 600 is not a label.
    if (100..600).contains(&status) { status.to_string() } else { "0".to_owned() }
}

#[cfg(test)]
mod tests {
    use filters::Policy;

    use super::*;

    #[test]
    fn an_exchange_counts_for_its_route_whatever_was_loaded_meanwhile() {
        let written = |routes: &str| {
            let text = format!(
                "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
                 upstreams: {{up: {{url: 'http://127.0.0.1:1'}}}}\nroutes: [{routes}]\n"
            );
            config::parse("test", &text).unwrap().config
        };
        let route = |name: &str| {
            format!("{{name: {name}, methods: [GET], path: /{name}, upstream: up, class: read}}")
        };
        let (a, b) = (route("a"), route("b"));
        let first = written(&format!("{a}, {b}"));
        let metrics = Metrics::new(&first);
        let loaded = [first, written(&format!("{b}, {a}"))].map(|written| {
            let policy = Policy::new(&written, "test");
            (Counts::new(&policy, &written), policy)
        });
        let counted = Counted {
            status: 200,
            code: None,
            upstream_failed: false,
            method: "GET",
            took: Duration::ZERO,
            upstream_took: None,
            served: Served::default(),
        };
        for which in [0, 1, 0] {
            let (counts, policy) = &loaded[which];
            let route = policy.routes.all().iter().find(|route| &*route.name == "a").cloned();
            metrics.exchange(counts, &Exchange { route, ..Exchange::default() }, &counted);
            metrics.exchange(counts, &Exchange::default(), &counted);
        }
        let count = |route, class| metrics.requests.with_label_values(&[route, class, "200"]).get();
        assert_eq!([count("a", "read"), count("b", "read"), count("none", "none")], [3, 0, 3]);
    }
}
