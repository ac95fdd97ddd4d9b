//! What a config of thousands of routes costs when it is taken over. `cargo bench -p filters --bench reload`.

use std::fmt::Write;

use filters::Policy;

fn main() {
    divan::main();
}

const ROUTES: [usize; 3] = [100, 1_000, 10_000];

/// A config of `count` routes to a hundred upstreams; one of them is called `name`.
fn text(count: usize, name: &str) -> String {
    let mut text = String::from(
        "version: stagedoor/v1
listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}}
identity: {issuers: {orbit: {issuer: orbit, audiences: [stagedoor], algorithms: [HS256], keys: {secret_file: s}}}}
upstreams:
",
    );
    for n in 0..100 {
        let _ = writeln!(text, "  up{n}: {{url: 'http://127.0.0.1:{}'}}", 1000 + n);
    }
    text.push_str("routes:\n");
    for n in 0..count {
        let name = if n == count / 2 { name.to_owned() } else { format!("r{n}") };
        let _ = writeln!(
            text,
            "- {{name: {name}, methods: [GET, HEAD], path: '/svc{}/things{}/{{id}}', upstream: up{}, plugin: p{}, class: read}}",
            n / 10,
            n % 10,
            n % 100,
            n % 50
        );
    }
    text
}

fn parse(text: &str) -> config::Loaded {
    config::parse("bench.yaml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Reading and checking it.
#[divan::bench(args = ROUTES)]
fn load(bencher: divan::Bencher<'_, '_>, count: usize) {
    let text = text(count, "one");
    bencher.bench_local(|| parse(&text));
}

/// Making it ready.
#[divan::bench(args = ROUTES)]
fn policy(bencher: divan::Bencher<'_, '_>, count: usize) {
    let loaded = parse(&text(count, "one"));
    bencher.bench_local(|| Policy::new(&loaded.config, "bench"));
}

/// Finding the differences: one route.
#[divan::bench(args = ROUTES)]
fn changes(bencher: divan::Bencher<'_, '_>, count: usize) {
    let (old, new) = (parse(&text(count, "one")), parse(&text(count, "other")));
    bencher.bench_local(|| config::changes(&old.config, &new.config).len());
}
