//! `/state`: how the process is right now. Its schema is `stagedoor schema --state`.

use std::{path::PathBuf, sync::atomic::Ordering};

use base64::{Engine, engine::general_purpose::STANDARD};
use filters::{
    Now,
    audit::checkpoint::PublicKey,
    breaker::{Key, Position, Status},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{breakers, switches};
use crate::{
    clock,
    data_plane::gateway::{Gateway, Snapshot},
    lifecycle::{process::Process, reload::ReloadResult},
    observability::audit::{Head, ship},
};

/// The current state of the process. Times are seconds since 1970 unless their name says otherwise.
#[derive(Serialize, JsonSchema)]
pub struct State {
    /// The running version.
    version: &'static str,
    /// The digest of the config in force.
    config: String,
    /// The result of the last reload.
    last_reload: ReloadResult,
    /// Config changes that take effect at the next start.
    needs_restart: Vec<String>,
    /// Whether the process is draining.
    draining: bool,
    /// Exchanges in flight.
    requests_in_flight: usize,
    /// Requests that wait for the response to an identical one.
    requests_waiting: usize,
    /// Memory of responses stored for when an upstream fails.
    fallback_bytes: u64,
    /// The circuit breakers of the config in force.
    breakers: Vec<Breaker>,
    /// Operators' switches.
    switches: Vec<switches::SwitchStatus>,
    /// Rate limiters in memory.
    limiters: Limiters,
    /// Verified tokens in the cache.
    tokens_verified: u64,
    /// Idempotency keys with requests in flight.
    idempotency_keys_in_flight: usize,
    /// Signing keys of issuers.
    keys: Vec<SigningKey>,
    /// Certificates of TLS listeners.
    certificates: Vec<Certificate>,
    /// Credentials for upstreams.
    credentials: Vec<Credential>,
    /// The control source, if the config has one.
    control: Option<Control>,
    /// The store that replicas share, if the config has one.
    store: Option<Store>,
    /// Upstreams and their addresses.
    upstreams: Vec<Upstream>,
    /// Audit records.
    audit: Audit,
}

/// A circuit breaker.
#[derive(Serialize, JsonSchema)]
pub(super) struct Breaker {
    /// The upstream that it protects.
    upstream: String,
    /// The plugin that it is for, if several share the upstream.
    plugin: Option<String>,
    /// The hosts that it is for, if the upstream serves several.
    host: Option<String>,
    /// The part of the upstream that it is for (`breaker_by`).
    part: Option<String>,
    /// `closed`, `open` or `half_open`.
    position: &'static str,
    /// Why it is not closed: `no_response` or `failures`.
    cause: Option<&'static str>,
    /// Whether it probes the upstream.
    probing: bool,
}

/// Rate limiters in memory.
#[derive(Serialize, JsonSchema)]
struct Limiters {
    /// Of callers and workspaces.
    verified: u64,
    /// Of client addresses.
    strangers: u64,
}

/// A signing key.
#[derive(Serialize, JsonSchema)]
struct SigningKey {
    /// The issuer's name in the config.
    issuer: String,
    /// The plugin, for keys of Backstage's plugins.
    plugin: Option<String>,
    /// Its key id.
    kid: Option<String>,
    /// Its type, such as `RSA` or `P-256`.
    kind: &'static str,
    /// How long ago it was fetched.
    age_seconds: u64,
    /// Whether the issuer has another key with this id.
    repeated: bool,
}

/// A certificate in use.
#[derive(Serialize, JsonSchema)]
struct Certificate {
    /// The listener.
    listener: String,
    /// The file it came from.
    file: PathBuf,
    /// Its subject.
    subject: String,
    /// Its issuer.
    issuer: String,
    /// Its DNS names and addresses.
    names: Vec<String>,
    /// Its serial number, in hex.
    serial: String,
    /// Start of its validity.
    not_before: i64,
    /// End of its validity.
    not_after: i64,
}

/// A credential for upstreams.
#[derive(Serialize, JsonSchema)]
struct Credential {
    /// Its name in the config.
    name: String,
    /// Its kind in the config.
    kind: &'static str,
    /// When its token expires, if it has one.
    until: Option<u64>,
    /// Why the last fetch failed, if it did.
    failing: Option<String>,
}

/// The control source.
#[derive(Serialize, JsonSchema)]
struct Control {
    /// Where it is.
    url: String,
    /// The format of its responses.
    format: &'static str,
    /// Whether one of its responses is in force.
    answered: bool,
    /// The `ETag` of that response.
    etag: Option<String>,
    /// When it last confirmed that response.
    confirmed: Option<u64>,
    /// How long ago that was.
    age_seconds: Option<u64>,
    /// Whether that was longer ago than `control.stale_after`.
    stale: bool,
    /// Why the last request failed, if it did.
    failing: Option<String>,
}

/// The store that replicas share.
#[derive(Serialize, JsonSchema)]
struct Store {
    /// Its kind in the config.
    kind: config::StoreKind,
    /// Whether it is reachable.
    there: bool,
    /// Since when it is reachable or unreachable.
    since: u64,
    /// Why it is unreachable, in one word.
    cause: Option<&'static str>,
    /// Why it is unreachable, in a sentence.
    failing: Option<String>,
    /// How limits apply without it.
    on_error: config::OnStoreError,
    /// Replicas that share it, or the last known number.
    replicas: u32,
    /// Limits on which this replica has leases.
    leases: u64,
    /// Tokens that it has leased.
    tokens_leased: u64,
    /// How many of them were spent.
    tokens_spent: u64,
}

/// An upstream.
#[derive(Serialize, JsonSchema)]
struct Upstream {
    /// Its name in the config.
    name: config::Name,
    /// Its addresses.
    addresses: Vec<Address>,
}

/// An address of an upstream.
#[derive(Serialize, JsonSchema)]
struct Address {
    /// Address and port.
    address: String,
    /// Whether it is `healthy`, `ejected` and so on.
    condition: &'static str,
    /// Why it is not healthy.
    reason: Option<&'static str>,
    /// Until when it is ejected.
    until: Option<u64>,
    /// Whether requests go there: if all addresses are out, all are used.
    used: bool,
    /// Exchanges in flight with it.
    in_flight: usize,
}

/// Audit records.
#[derive(Serialize, JsonSchema)]
struct Audit {
    /// Whether they can be written.
    works: bool,
    /// Lost records.
    records_lost: u64,
    /// Bytes written.
    bytes_written: u64,
    /// The end of their chain.
    head: Chain,
    /// Sinks to which they are shipped.
    ship: Vec<Sink>,
}

/// The end of the chain of audit records.
#[derive(Serialize, JsonSchema)]
pub(super) struct Chain {
    /// The id of the process that writes it.
    run: String,
    /// Lines of this run.
    lines: u64,
    /// How many of them a checkpoint signs.
    signed: u64,
    /// The digest of the last line.
    last: String,
    /// The current segment.
    segment: Option<PathBuf>,
    /// The key that signs checkpoints, if there is one.
    key: Option<CheckpointKey>,
}

/// The key that signs checkpoints.
#[derive(Serialize, JsonSchema)]
struct CheckpointKey {
    /// Its id.
    id: String,
    /// The public key, as SubjectPublicKeyInfo in Base64.
    spki: String,
}

/// A sink that audit records are shipped to.
#[derive(Serialize, JsonSchema)]
struct Sink {
    /// Its name in the config.
    name: config::Name,
    /// Its kind in the config.
    kind: &'static str,
    /// The segment of the last line that it has accepted.
    segment: Option<String>,
    /// The byte after that line.
    byte: Option<u64>,
    /// The age of the oldest record that it does not have yet.
    behind_seconds: u64,
    /// Since when it has been failing.
    failing_since: Option<u64>,
    /// Why.
    failing: Option<String>,
    /// Whether another process ships there.
    elsewhere: bool,
    /// Records that it has accepted.
    records_shipped: u64,
    /// Records that it refused.
    records_refused: u64,
    /// Segments that were removed before they were shipped.
    segments_lost: u64,
}

/// How the process is right now.
pub(super) fn read(process: &Process) -> State {
    let (now, gateway) = (clock::now(), &*process.gateway);
    let snapshot = gateway.snapshot.load();
    let (verified, strangers) = gateway.state.limiters.len();
    State {
        version: env!("CARGO_PKG_VERSION"),
        config: snapshot.policy.digest.to_string(),
        last_reload: process.last_reload.lock().clone(),
        needs_restart: snapshot.needs_restart.clone(),
        draining: gateway.drain.is_draining(),
        requests_in_flight: gateway.drain.in_flight(),
        requests_waiting: gateway.coalescing.waiting(),
        fallback_bytes: gateway.fallback.bytes(),
        breakers: breakers::all(gateway)
            .iter()
            .map(|(key, status)| Breaker::of(key, *status))
            .collect(),
        switches: switches::all(process),
        limiters: Limiters { verified, strangers },
        tokens_verified: gateway.state.tokens.len(),
        idempotency_keys_in_flight: gateway.state.in_flight.len(),
        keys: keys(gateway, now),
        certificates: certificates(process),
        credentials: credentials(&snapshot),
        control: control(process, &snapshot),
        store: store(gateway),
        upstreams: snapshot
            .loaded
            .config
            .upstreams
            .keys()
            .map(|name| upstream(name, &snapshot))
            .collect(),
        audit: Audit {
            works: gateway.state.recording.works(),
            records_lost: gateway.audit.lost(),
            bytes_written: gateway.audit.written(),
            head: chain(&gateway.audit.last_head()),
            ship: process
                .shipping
                .delivery_status()
                .iter()
                .map(|delivery_status| sink(delivery_status, now))
                .collect(),
        },
    }
}

impl Breaker {
    pub(super) fn of(key: &Key, status: Status) -> Self {
        Self {
            upstream: key.upstream.to_string(),
            plugin: key.plugin.as_deref().map(str::to_owned),
            host: key.host.as_deref().map(str::to_owned),
            part: key.part.as_deref().map(str::to_owned),
            position: status.position.name(),
            cause: status.cause.map(|cause| cause.name()),
            probing: status.position == Position::Open,
        }
    }
}

fn keys(gateway: &Gateway, now: Now) -> Vec<SigningKey> {
    let all = gateway.state.keys.describe().into_iter();
    all.map(|key| SigningKey {
        issuer: key.source.issuer.to_string(),
        plugin: key.source.plugin.as_deref().map(str::to_owned),
        kid: key.id,
        kind: key.kind,
        age_seconds: now.elapsed.saturating_sub(key.fetched.elapsed).as_secs(),
        repeated: key.repeated,
    })
    .collect()
}

fn certificates(process: &Process) -> Vec<Certificate> {
    let all = process.certificates().into_iter();
    all.map(|(listener, facts)| Certificate {
        listener,
        file: facts.file,
        subject: facts.subject,
        issuer: facts.issuer,
        names: facts.names,
        serial: facts.serial,
        not_before: facts.not_before,
        not_after: facts.not_after,
    })
    .collect()
}

fn credentials(snapshot: &Snapshot) -> Vec<Credential> {
    let all = snapshot.credentials.facts().into_iter();
    all.map(|facts| Credential {
        name: facts.name.to_string(),
        kind: facts.kind,
        until: facts.until,
        failing: facts.failing,
    })
    .collect()
}

fn control(process: &Process, snapshot: &Snapshot) -> Option<Control> {
    let facts = process.control.facts(&snapshot.files)?;
    Some(Control {
        url: facts.url,
        format: facts.format,
        answered: facts.answered,
        etag: facts.etag,
        confirmed: facts.confirmed,
        age_seconds: facts.age.map(|age| age.as_secs()),
        stale: facts.stale,
        failing: facts.failing,
    })
}

fn store(gateway: &Gateway) -> Option<Store> {
    let store = gateway.store.as_ref()?;
    let (facts, delivery_status) = (store.leases.status(), store.told());
    Some(Store {
        kind: store.written().kind,
        there: facts.there,
        since: delivery_status.since,
        cause: delivery_status.fault.as_ref().map(|fault| fault.cause),
        failing: delivery_status.fault.as_ref().map(ToString::to_string),
        on_error: store.written().on_error,
        replicas: facts.replicas,
        leases: facts.limits,
        tokens_leased: facts.leased,
        tokens_spent: facts.spent,
    })
}

fn upstream(name: &config::Name, snapshot: &Snapshot) -> Upstream {
    let facts = snapshot.upstreams.get(&name.into()).map(|upstream| upstream.pool.facts());
    let addresses = facts.unwrap_or_default().into_iter().map(|facts| Address {
        address: facts.at.to_string(),
        condition: facts.condition.name(),
        reason: facts.condition.fault().map(|fault| fault.name()),
        until: facts.condition.until().map(|until| until.unix_seconds()),
        used: facts.used,
        in_flight: facts.in_flight,
    });
    Upstream { name: name.clone(), addresses: addresses.collect() }
}

pub(super) fn chain(head: &Head) -> Chain {
    let spki = |key: &PublicKey| STANDARD.encode(key.spki());
    Chain {
        run: head.run.clone(),
        lines: head.lines,
        signed: head.signed,
        last: head.last.to_string(),
        segment: head.segment.clone(),
        key: head.key.as_ref().map(|key| CheckpointKey { id: key.id.clone(), spki: spki(key) }),
    }
}

fn sink(sink: &ship::DeliveryStatus, now: Now) -> Sink {
    let delivery_status = sink.now();
    let (segment, byte) = delivery_status.cursor.unzip();
    let (failing_since, failing) = delivery_status.failing.unzip();
    Sink {
        name: sink.name.clone(),
        kind: sink.kind.name(),
        segment,
        byte,
        behind_seconds: delivery_status
            .oldest
            .map_or(0, |oldest| now.unix_seconds().saturating_sub(oldest)),
        failing_since,
        failing,
        elsewhere: delivery_status.elsewhere,
        records_shipped: sink.shipped.load(Ordering::Relaxed),
        records_refused: sink.refused.load(Ordering::Relaxed),
        segments_lost: sink.lost_segments.load(Ordering::Relaxed),
    }
}

/// The JSON Schema of `/state`.
pub fn schema() -> String {
    let schema = schemars::schema_for!(State);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_in_the_docs_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/state.schema.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, super::schema()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == super::schema(), "docs/state.schema.json: UPDATE=1 cargo test -p proxy");
    }
}
