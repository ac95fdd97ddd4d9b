//! The wiring: listeners, services, background tasks.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use certs::LoadError;
use config::ListenerKind;
use filters::{State, assertion::Assertions, leases::Leases, rate_limit::Limiters};
use parking_lot::Mutex;
use pingora::{
    apps::HttpServerOptions,
    protocols::http::v2::server::{H2Options, default_h2_options},
    proxy::HttpProxy,
    server::{
        RunArgs, Server, ShutdownWatch,
        configuration::{Opt, ServerConf},
    },
    services::{
        background::{BackgroundService, background_service},
        listening::Service,
    },
};

use crate::{
    admin::{Admin, Answers, Bounded},
    clock,
    data_plane::{
        coalescing::Coalescing,
        forward::{Forward, Plain},
        gateway::Gateway,
        listener::{Limits, Listener, tls},
        long_lived::{LongLived, Severable},
        recorder::RefusalRecorder,
        reverse::Reverse,
        shared_address::SharedAddresses,
        stale_fallback::StaleResponses,
    },
    identity::jwks::Fetcher,
    lifecycle::{
        control::Control,
        file_watch::FileStates,
        process::Process,
        reload::{self, ReloadResult},
        reload_history::History,
        shutdown::Shutdown,
    },
    net::dial::Dial,
    observability::{
        audit::{Audit, chain::Signing, ship::Shipping},
        metrics::Metrics,
    },
    replicas::{
        store::{self, Store},
        switches::Switchboard,
    },
    upstream::health::Watch,
};

/// Serves a config until the process is stopped.
///
/// # Errors
/// What is wrong with the config or with the files it names, before anything listens.
pub fn run(path: &Path, upgrade: bool) -> Result<()> {
    let process = prepare(path, upgrade)?;
    let server = server(&process, upgrade)?;
    started(&process);
    run_until_drained(server, &process);
    // Last, so that every record can be shipped.
    process.shipping.stop();
    Ok(())
}

/// How long the exchanges that the end of the process severs may take to write their records.
const RECORDS: Duration = Duration::from_secs(1);

/// Runs a server until nothing is in progress, or until it must not wait any longer. Then all records are
/// written.
pub fn run_until_drained(server: Server, process: &Arc<Process>) {
    let (drained, may_end) = mpsc::channel();
    let stop = Shutdown { process: Arc::clone(process), drained: drained.clone() };
    std::thread::spawn(move || {
        server.run(RunArgs { shutdown_signal: Box::new(stop) });
        let _ = drained.send(());
    });
    let _ = may_end.recv();
    // Pingora drops them together with its threads, and each then writes its record.
    let begun = Instant::now();
    while process.gateway.drain.in_flight() > 0 && begun.elapsed() < RECORDS {
        std::thread::sleep(Duration::from_millis(5));
    }
    process.gateway.audit.stop();
}

/// Logs what is served.
fn started(process: &Process) {
    let listeners: Vec<String> = process
        .gateway
        .started
        .listeners
        .iter()
        .map(|(name, listener)| {
            let tls = if listener.tls.is_some() { "+tls" } else { "" };
            format!("{name}={}{tls}@{}", listener.kind.name(), listener.address)
        })
        .collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %process.path.display(),
        policy = %process.gateway.snapshot.load().policy.digest,
        listeners = listeners.join(" "),
        "serving"
    );
}

/// Everything but the listeners. With `upgrade` the previous process still runs.
///
/// # Errors
/// What is wrong with the config or with the files it names.
pub fn prepare(path: &Path, upgrade: bool) -> Result<Arc<Process>> {
    certs::provider();
    filters::identity::install_crypto();
    let (seen, files) = FileStates::load(path);
    let files = Arc::new(files.map_err(|problems| anyhow::anyhow!("{problems}"))?);
    let metrics = Arc::new(Metrics::new(&files.config));
    let control = Control::new(Arc::clone(&metrics));
    let (loaded, messages) = control.begin(&files);
    for warning in loaded.warnings.iter() {
        tracing::warn!("{warning}");
    }
    let assertions = assertions(&loaded.config.headers)?;
    let mut state = State::new(assertions);
    let leases = loaded.config.store.as_ref().map(|store| Arc::new(Leases::new(store.on_error)));
    if let Some(leases) = &leases {
        state.limiters = Limiters::sharing(Arc::clone(leases));
    }
    let state = Arc::new(state);
    let dial = Dial::asking(&loaded.config.process.name_servers);
    let mut served = Vec::new();
    for (name, listener) in &loaded.config.listeners {
        if let Some(written) = &listener.tls {
            served.push(tls::certificates(name, written)?);
        }
    }
    let signing = loaded.config.audit.checkpoints.as_ref().map(Signing::new).transpose()?;
    let audit = Audit::start(&loaded.config.audit, signing, Arc::clone(&state), upgrade)
        .with_context(|| {
            let folder = loaded.config.audit.directory.as_deref().unwrap_or(Path::new("-"));
            format!("cannot write audit records to `{}`", folder.display())
        })?;
    let audit = Arc::new(audit);
    let shipping = Shipping::start(&loaded.config)?;
    let started = loaded.config.clone();
    if let Some(written) = &started.store {
        store::files(written).map_err(|cause| anyhow::anyhow!("{}: {cause}", written.place))?;
    }
    let store = started.store.as_ref().zip(leases).map(|(written, leases)| {
        let (metrics, audit) = (Arc::clone(&metrics), Arc::clone(&audit));
        Arc::new(Store::new(written, dial.clone(), metrics, audit, leases))
    });
    let snapshot = reload::make(loaded, files, &dial, &metrics, None)
        .map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
    let now = clock::now().unix_seconds();
    metrics.reloaded(true, now);
    let first = ReloadResult {
        successful: true,
        time: now,
        digest: snapshot.policy.digest.to_string(),
        messages,
    };
    snapshot.parents.tell();
    dial.use_parents(&snapshot.parents);
    let long_lived: Arc<LongLived> = Arc::default();
    let sever = Arc::clone(&long_lived);
    let switchboard = Switchboard::new(
        Arc::clone(&state),
        Arc::clone(&audit),
        store.clone(),
        Box::new(move |switch, now| sever.cut(switch, now)),
    );
    let gateway = Gateway {
        snapshot: ArcSwap::from_pointee(snapshot),
        fetcher: Fetcher::new(
            dial.clone(),
            Arc::clone(&state),
            Arc::clone(&metrics),
            Some(Arc::clone(&audit)),
        ),
        state,
        audit,
        metrics,
        store,
        switchboard,
        dial,
        fallback: StaleResponses::new(started.process.fallback_memory.bytes()),
        coalescing: Coalescing::new(),
        long_lived,
        drain: Arc::default(),
        started,
    };
    let process = Arc::new(Process {
        gateway: Arc::new(gateway),
        shipping,
        control,
        path: path.to_owned(),
        seen: tokio::sync::Mutex::new(seen),
        retired: Mutex::default(),
        last_reload: Mutex::new(first),
        history: History::default(),
        served,
    });
    let messages = process.last_reload.lock().messages.clone();
    process.on_record("start", true, None, &messages);
    process.use_passwords(&process.gateway.snapshot.load());
    Ok(process)
}

/// The signer of the statements for upstreams.
///
/// # Errors
/// Why the key cannot be used.
pub fn assertions(written: &config::Headers) -> Result<Assertions, LoadError> {
    let Some(file) = &written.assertion_key else { return Ok(Assertions::with_new_key()) };
    let wrong =
        |_| LoadError { file: file.value.clone(), cause: "it is not an EC P-256 key".to_owned() };
    Assertions::with_key(&certs::pkcs8(file)?).map_err(wrong)
}

/// A server with all listeners of a config.
///
/// # Errors
/// If an address cannot be listened on.
pub fn server(process: &Arc<Process>, upgrade: bool) -> Result<Server> {
    let config = process.gateway.started.clone();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads: config.process.threads.map_or(cores, |threads| usize::from(threads.get())),
        work_stealing: true,
        upgrade_sock: config
            .process
            .upgrade_socket
            .as_ref()
            .map_or_else(|| "/nonexistent/stagedoor".to_owned(), |p| p.display().to_string()),
        // Longer than any drain: `Shutdown` decides when the process ends.
        grace_period_seconds: Some(86_400),
        graceful_shutdown_timeout_seconds: Some(1),
        max_retries: 3,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    if !upgrade {
        // Pingora would retry for half a minute and then continue without the listener.
        for (name, listener) in &config.listeners {
            if let Err(error) = std::net::TcpListener::bind(listener.address) {
                bail!("listener `{name}` cannot listen on {}: {error}", listener.address);
            }
        }
    }
    let opt = Opt { upgrade, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(Some(opt), conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    for (index, (name, listener)) in config.listeners.iter().enumerate() {
        match listener.kind {
            ListenerKind::Reverse => {
                let service = reverse(process, index, name, listener, &conf)?;
                server.add_service(service);
            }
            ListenerKind::Forward => {
                let service = forward(process, index, name, listener, &conf)?;
                server.add_service(service);
            }
            ListenerKind::Admin | ListenerKind::Status => {
                let service = admin(process, name, listener)?;
                server.add_service(service);
            }
        }
    }
    server.add_service(background_service("background", Background(Arc::clone(process))));
    Ok(server)
}

fn reverse(
    process: &Arc<Process>,
    index: usize,
    name: &config::Name,
    listener: &config::Listener,
    conf: &Arc<ServerConf>,
) -> Result<Service<Listener<Severable<HttpProxy<Reverse>>>>> {
    let reverse = Reverse {
        gateway: Arc::clone(&process.gateway),
        listener: index,
        tls: listener.tls.is_some(),
        body_timeout: *listener.limits.body_timeout,
        write_timeout: *listener.limits.write_timeout,
        shared_addresses: SharedAddresses::default(),
        rate_min: listener.limits.rate_min.bytes(),
    };
    let mut proxy = HttpProxy::new(reverse, Arc::clone(conf));
    let (h2, mut options) = http2(&listener.limits);
    proxy.h2_options = Some(h2);
    // Only so that our own response is sent; the listener accepts no HTTP/1 CONNECT.
    options.allow_connect_method_proxying = true;
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    let refusals = RefusalRecorder::new(&process.gateway, name);
    let limits = Limits::from(&listener.limits);
    let app = Severable(Arc::new(proxy));
    let front = Listener::new(
        Arc::new(app),
        limits,
        Some(Arc::clone(&process.gateway.drain)),
        Arc::new(refusals),
    );
    listen(front, process, name, listener)
}

fn forward(
    process: &Arc<Process>,
    index: usize,
    name: &config::Name,
    listener: &config::Listener,
    conf: &Arc<ServerConf>,
) -> Result<Service<Listener<Severable<HttpProxy<Plain>>>>> {
    let forward = Arc::new(Forward { gateway: Arc::clone(&process.gateway), listener: index });
    let plain = Plain {
        forward: Arc::clone(&forward),
        body_timeout: *listener.limits.body_timeout,
        write_timeout: *listener.limits.write_timeout,
    };
    // `Plain` goes from address to address, and ends with the last.
    let conf =
        ServerConf { threads: conf.threads, max_retries: usize::MAX, ..ServerConf::default() };
    let mut proxy = HttpProxy::new(plain, Arc::new(conf));
    proxy.handle_init_modules();
    let refusals = RefusalRecorder::new(&process.gateway, name);
    let limits = Limits::from(&listener.limits);
    let app = Severable(Arc::new(proxy));
    let front = Listener::new(
        Arc::new(app),
        limits,
        Some(Arc::clone(&process.gateway.drain)),
        Arc::new(refusals),
    )
    .with_tunnel(forward);
    let mut listener = listener.clone();
    if let Some(tls) = &mut listener.tls {
        // Clients speak HTTP/1.1 to proxies, and we support no tunnels within HTTP/2.
        tls.value.http2 = false;
    }
    listen(front, process, name, &listener)
}

fn admin(
    process: &Arc<Process>,
    name: &config::Name,
    listener: &config::Listener,
) -> Result<Service<Listener<Bounded>>> {
    let answers = match listener.kind {
        ListenerKind::Status => Answers::Status,
        _ => Answers::Everything,
    };
    let (h2, options) = http2(&listener.limits);
    let app = Bounded {
        admin: Arc::new(Admin { process: Arc::clone(process), answers }),
        body_timeout: *listener.limits.body_timeout,
        write_timeout: *listener.limits.write_timeout,
        h2,
        options,
    };
    let refusals = RefusalRecorder::new(&process.gateway, name);
    // No drain: health requests must get a response while the process stops, also on existing connections.
    let front =
        Listener::new(Arc::new(app), Limits::from(&listener.limits), None, Arc::new(refusals));
    let mut service = listen(front, process, name, listener)?;
    service.threads = Some(1);
    Ok(service)
}

/// The maximum of streams on one HTTP/2 connection that end by a fault of the client.
const ERRORS_MAX: usize = 100;

fn http2(limits: &config::Limits) -> (H2Options, HttpServerOptions) {
    let mut h2 = default_h2_options();
    h2.max_concurrent_streams(limits.streams_max);
    // A client that makes us reset so many streams by its errors (CVE-2025-8671) gets ENHANCE_YOUR_CALM,
    // like one that resets them itself (CVE-2023-44487).
    h2.max_local_error_reset_streams(Some(ERRORS_MAX));
    h2.max_header_list_size(u32::try_from(limits.head_max.bytes()).unwrap_or(u32::MAX));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(*limits.keepalive_timeout);
    (h2, options)
}

/// Pingora only accepts connections: our listener reads their beginning.
fn listen<A>(
    mut front: Listener<A>,
    process: &Arc<Process>,
    name: &config::Name,
    listener: &config::Listener,
) -> Result<Service<Listener<A>>> {
    if let Some(written) = &listener.tls {
        let served = process.served.iter().find(|served| served.listener == **name);
        let served = served.expect("every TLS listener's certificates were read");
        let settings = tls::settings(written, served)
            .map_err(|error| anyhow::anyhow!("listener `{name}`: {error}"))?;
        front = front.with_tls(settings.build());
    }
    if listener.proxy_protocol.is_some() {
        let (gateway, name) = (Arc::clone(&process.gateway), name.clone());
        front = front.behind(Box::new(move |ip| {
            let snapshot = gateway.snapshot.load();
            let balancers = snapshot.loaded.config.listeners.get(&name).and_then(|l| l.balancers());
            balancers.is_some_and(|balancers| balancers.iter().any(|net| net.contains(&ip)))
        }));
    }
    let mut service = Service::new(name.to_string(), front);
    service.add_tcp(&listener.address.to_string());
    Ok(service)
}

/// Keys, names and files, while the process runs.
struct Background(Arc<Process>);

const POLL_INTERVAL: Duration = Duration::from_secs(5);

#[async_trait]
impl BackgroundService for Background {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let process = &self.0;
        let gateway = &process.gateway;
        let keys = async {
            loop {
                let snapshot = gateway.snapshot.load_full();
                gateway.fetcher.refresh(&snapshot.loaded.config).await;
                drop(snapshot);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let names = async {
            loop {
                let snapshot = gateway.snapshot.load_full();
                snapshot.upstreams.resolve(&gateway.lookup(&snapshot)).await;
                drop(snapshot);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let store = async {
            match &gateway.store {
                Some(store) => store.run(&gateway.switchboard).await,
                None => std::future::pending().await,
            }
        };
        let health = Watch {
            state: Arc::clone(&gateway.state),
            dial: gateway.dial.clone(),
            audit: Arc::clone(&gateway.audit),
            metrics: Arc::clone(&gateway.metrics),
        };
        let in_force = || {
            let snapshot = gateway.snapshot.load();
            (Arc::clone(&snapshot.upstreams), Arc::clone(&snapshot.policy))
        };
        tokio::select! {
            () = store => {}
            () = process.watch() => {}
            () = keys => {}
            () = names => {}
            () = gateway.switchboard.run() => {}
            () = health.run(in_force) => {}
            () = process.follow() => {}
            () = gateway.drain.ending() => {}
            _ = shutdown.changed() => {}
        }
        if let Some(store) = &gateway.store {
            store.leave().await;
        }
    }
}
