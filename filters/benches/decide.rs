//! What a decision costs, with few routes and workspaces and with many. `cargo bench -p filters`.

use std::{fmt::Write, net::IpAddr, sync::Arc, time::Duration};

use filters::{
    Exchange, Label, Now, Policy, Replay, State,
    assertion::Assertions,
    audit::{Ended, Entry, Received},
    explain::Request,
    identity::{KeySet, Source, install_crypto},
    leases::{LeaseGrant, Leases},
    rate_limit::Limiters,
    replay::record::Record,
};

fn main() {
    divan::main();
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

struct Rig {
    loaded: config::Loaded,
    policy: Policy,
    state: State,
    request: Request,
}

/// A config of `count` routes and `count` workspaces, and a request for one in their middle.
fn rig(count: usize) -> Rig {
    install_crypto();
    let mut text = String::from(
        "version: stagedoor/v1
listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}}
identity: {issuers: {orbit: {issuer: orbit, audiences: [stagedoor], algorithms: [HS256], keys: {secret_file: s}}}}
upstreams: {up: {url: 'http://127.0.0.1:1'}}
rate_limit: {per_workspace: {rate: 1000000000/s, burst: 1000000000}}
workspaces:
  named:
",
    );
    for n in 0..count {
        let _ = writeln!(text, "    ws-{n}: {{groups: [group-{n}]}}");
    }
    text.push_str("routes:\n");
    for n in 0..count {
        let _ = writeln!(
            text,
            "- {{name: r{n}, hosts: [portal.example], methods: [GET], path: '/api/plugin-{n}/items/{{id}}', upstream: up, plugin: p{n}, class: read}}"
        );
    }
    let loaded = config::parse("bench.yaml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    let policy = Policy::new(&loaded.config, "bench");
    let state = State::new(Assertions::with_new_key());
    let orbit = &loaded.config.identity.issuers["orbit"];
    let source = Source::new(Label::lossy("orbit"), orbit, None);
    let keys = KeySet::from_secret(SECRET).expect("it is long enough");
    state.keys.replace(&source, keys, now());
    let middle = count / 2;
    let claims = format!(
        r#"{{"iss":"orbit","aud":"stagedoor","sub":"user:default/ada","exp":9999999999,"groups":["group-{middle}"],"pad":"{}"}}"#,
        "x".repeat(600)
    );
    let token = token(&claims);
    let text = format!(
        "GET /api/plugin-{middle}/items/42?full=1 HTTP/1.1\nhost: portal.example\nauthorization: Bearer {token}\naccept: application/json\nuser-agent: bench\n"
    );
    Rig { loaded, policy, state, request: Request::read(&text).expect("a good request") }
}

/// A day in 2027: stale keys are not trusted, so they are fetched at the same time.
fn now() -> Now {
    Now::default().plus(Duration::from_secs(1_800_000_000))
}

fn token(claims: &str) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
    let part = |text: &str| BASE64URL.encode(text);
    let message = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    let tag = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64URL.encode(tag.as_ref()))
}

/// A whole decision for a token that was seen before: what nearly every request costs.
#[divan::bench(args = [10, 1_000, 10_000])]
fn decide(bencher: divan::Bencher<'_, '_>, count: usize) {
    let rig = rig(count);
    let now = now();
    let client: IpAddr = [192, 0, 2, 1].into();
    let head = rig.request.head(0, client, true);
    bencher.bench(|| {
        let mut exchange = Exchange::default();
        let admitted = filters::decide(&rig.policy, &rig.state, &head, now, &mut exchange);
        admitted.unwrap_or_else(|denial| panic!("{denial}"));
        exchange
    });
}

/// The same for a path that no route takes.
/// As `decide`, with a limit that replicas share, and tokens of it at hand.
#[divan::bench(args = [10, 1_000, 10_000])]
fn decide_leased(bencher: divan::Bencher<'_, '_>, count: usize) {
    let mut rig = rig(count);
    let leases = Arc::new(Leases::new(config::OnStoreError::Share));
    leases.found(1);
    rig.state.limiters = Limiters::sharing(Arc::clone(&leases));
    let now = now();
    let client: IpAddr = [192, 0, 2, 1].into();
    let head = rig.request.head(0, client, true);
    let decide = || {
        let mut exchange = Exchange::default();
        filters::decide(&rig.policy, &rig.state, &head, now, &mut exchange).map(|_| exchange)
    };
    assert!(decide().is_err(), "it has tokens before it asked for any");
    let batch = leases.begin(now);
    let (wait, again) = (Duration::ZERO, Duration::ZERO);
    leases.end(&batch, &[LeaseGrant { granted: u32::MAX, rest: 0, wait, again }], now, now);
    bencher.bench(|| decide().unwrap_or_else(|denial| panic!("{denial}")));
}

#[divan::bench(args = [10, 1_000, 10_000])]
fn refuse(bencher: divan::Bencher<'_, '_>, count: usize) {
    let mut rig = rig(count);
    rig.request.target = "/api/nothing/like/it".to_owned();
    let client: IpAddr = [192, 0, 2, 1].into();
    let head = rig.request.head(0, client, true);
    bencher.bench(|| {
        let mut exchange = Exchange::default();
        filters::decide(&rig.policy, &rig.state, &head, Now::default(), &mut exchange).is_err()
    });
}

fn ended() -> Ended {
    Ended {
        status: 200,
        upstream_address: Some(([192, 0, 2, 7], 8080).into()),
        attempts: 1,
        bytes_out: 4711,
        took: Duration::from_micros(5_432),
        upstream_took: Some(Duration::from_micros(4_321)),
        ..Ended::default()
    }
}

fn entry<'a>(rig: &'a Rig, exchange: &'a Exchange, received: &'a Received) -> Entry<'a> {
    let request_id = "615bfec50f866b8600000000001c";
    Entry { policy: &rig.policy, exchange, request_id, received }
}

fn written(rig: &Rig) -> Vec<u8> {
    let head = rig.request.head(0, [192, 0, 2, 1].into(), true);
    let mut exchange = Exchange::default();
    let admitted = filters::decide(&rig.policy, &rig.state, &head, now(), &mut exchange);
    admitted.unwrap_or_else(|denial| panic!("{denial}"));
    let received = Received::request(&rig.policy, &head, None, now());
    let mut line = Vec::new();
    entry(rig, &exchange, &received).write(&mut line, &ended());
    line
}

/// Putting a whole decision on record.
#[divan::bench]
fn record(bencher: divan::Bencher<'_, '_>) {
    let rig = rig(1_000);
    let head = rig.request.head(0, [192, 0, 2, 1].into(), true);
    let mut exchange = Exchange::default();
    let _ = filters::decide(&rig.policy, &rig.state, &head, now(), &mut exchange);
    let ended = ended();
    let mut line = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        line.clear();
        let received = Received::request(&rig.policy, &head, None, now());
        entry(&rig, &exchange, &received).write(&mut line, &ended);
        line.len()
    });
}

/// Reading a record, deciding again and comparing.
#[divan::bench(args = [10, 1_000, 10_000])]
fn replay(bencher: divan::Bencher<'_, '_>, count: usize) {
    let rig = rig(count);
    let line = written(&rig);
    let mut replay = Replay::new(Policy::new(&rig.loaded.config, "bench"));
    bencher.bench_local(|| {
        let record = Record::read(&line).expect("it was written");
        let decided = replay.decide(&record);
        decided.unwrap_or_else(|why| panic!("{why:?}")).change(&record)
    });
}

/// Of that: reading.
#[divan::bench]
fn read(bencher: divan::Bencher<'_, '_>) {
    let line = written(&rig(1_000));
    bencher.bench_local(|| Record::read(&line).is_some());
}
