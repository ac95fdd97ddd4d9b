//! How many intents of actions the proxy's own writer makes durable each second, and how long one sync of
//! the same device takes: `intents FOLDER TASKS SECONDS`.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use filters::{State, assertion::Assertions};
use proxy::observability::audit::Audit;

/// As long as one usually is.
const BYTES: usize = 560;
const SYNCS: usize = 200;

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("a folder"));
    let mut number = || args.next().and_then(|text| text.parse().ok()).expect("a number");
    let (tasks, seconds): (usize, u64) = (number(), number() as u64);

    let syncs = syncs(&folder);
    println!(
        "one sync of the device    {:>8} us median, {:>6} us p99",
        at(&syncs, 50),
        at(&syncs, 99)
    );
    let config = config::Audit { directory: Some(folder), ..config::Audit::default() };
    let state = Arc::new(State::new(Assertions::with_new_key()));
    let audit = Audit::start(&config, None, state, false).expect("a folder to write to");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let waits =
        runtime.expect("a runtime").block_on(load(&audit, tasks, Duration::from_secs(seconds)));
    audit.stop();
    println!(
        "{tasks} concurrent tasks: {:>8} durable a second; each waited {} us median, {} us p99",
        waits.len() as u64 / seconds,
        at(&waits, 50),
        at(&waits, 99)
    );
}

/// How long small appends took to become durable, in microseconds, sorted.
fn syncs(folder: &Path) -> Vec<u64> {
    let path = folder.join("probe");
    let mut file = File::create(&path).expect("a file");
    let mut all: Vec<u64> = (0..SYNCS)
        .map(|_| {
            file.write_all(&[b'x'; BYTES]).expect("room");
            let began = Instant::now();
            file.sync_data().expect("a device");
            micros(began)
        })
        .collect();
    std::fs::remove_file(path).expect("our own file");
    all.sort_unstable();
    all
}

/// How long each intent waited, in microseconds, in order.
async fn load(audit: &Audit, tasks: usize, lasting: Duration) -> Vec<u64> {
    let line = format!("{{\"kind\":\"intent\",\"of\":\"{}\"}}\n", "x".repeat(BYTES));
    let began = Instant::now();
    let each = (0..tasks).map(|_| async {
        let mut waits = Vec::new();
        while began.elapsed() < lasting {
            let asked = Instant::now();
            let durable = audit.intent(|out| out.extend_from_slice(line.as_bytes()));
            assert!(durable.expect("room").await.expect("an answer"), "not durable");
            waits.push(micros(asked));
        }
        waits
    });
    let mut all = futures::future::join_all(each).await.concat();
    all.sort_unstable();
    all
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn at(sorted: &[u64], percent: usize) -> u64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}
