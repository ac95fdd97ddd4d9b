//! How the process ends: readiness fails first, then connections drain, within a bound.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use crate::lifecycle::{process::Process, reload::Source};

/// Waits for a signal, and drains before it passes one on to Pingora.
pub struct Shutdown {
    /// The process to drain.
    pub process: Arc<Process>,
    /// Notified when the process may end.
    pub drained: mpsc::Sender<()>,
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long Pingora lets both processes accept before the old one stops.
const OVERLAP: Duration = Duration::from_secs(5);
/// How long a client may take to read GOAWAY, while its earlier requests are in transit.
const GOAWAY_TIME: Duration = Duration::from_secs(1);

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        let on = |kind| signal(kind).expect("the signal exists");
        let (mut term, mut int) = (on(SignalKind::terminate()), on(SignalKind::interrupt()));
        let (mut quit, mut hup) = (on(SignalKind::quit()), on(SignalKind::hangup()));
        loop {
            tokio::select! {
                _ = term.recv() => {
                    self.drain().await;
                    self.process.gateway.drain.end();
                    // So that GOAWAY frames are sent, and the store is notified.
                    sleep(GOAWAY_TIME).await;
                    // Drops what is still in flight, which is then on record.
                    return ShutdownSignal::FastShutdown;
                }
                _ = int.recv() => {
                    tracing::info!("stopping immediately");
                    return ShutdownSignal::FastShutdown;
                }
                _ = quit.recv() => {
                    if self.takes_over() {
                        tracing::info!("handing the listeners to the new process");
                        self.hand_over();
                        return ShutdownSignal::GracefulUpgrade;
                    }
                }
                _ = hup.recv() => {
                    tracing::info!("reloading, as SIGHUP asks");
                    // It may wait for others; the next signal must not.
                    let process = Arc::clone(&self.process);
                    tokio::spawn(async move { process.reload(Source::Signal).await });
                }
            }
        }
    }
}

impl Shutdown {
    async fn drain(&self) {
        let written = self.process.gateway.snapshot.load().loaded.config.process.clone();
        tracing::info!(delay = %written.drain_delay, timeout = %written.drain_timeout, "stopping");
        self.process.gateway.drain.begin();
        sleep(*written.drain_delay).await;
        let drain = &self.process.gateway.drain;
        drain.close_idle();
        if timeout(*written.drain_timeout, drain.drained(GOAWAY_TIME)).await.is_err() {
            tracing::warn!(cut = drain.in_flight(), "exchanges were still in flight");
        }
    }

    /// Moves clients to the new process: every response from now on is the last on its connection, and what
    /// is in progress when the listeners are closed has time to end.
    fn hand_over(&self) {
        self.process.gateway.drain.hand_over();
        let gateway = Arc::clone(&self.process.gateway);
        self.end_when(move |told| {
            let limit = *gateway.snapshot.load().loaded.config.process.drain_timeout;
            let waited = told.elapsed().saturating_sub(OVERLAP + GOAWAY_TIME);
            let busy = gateway.drain.in_flight() > 0;
            told.elapsed() > OVERLAP + GOAWAY_TIME && (!busy || waited >= limit)
        });
    }

    /// Ends the process as soon as it may. Pingora would wait a fixed time instead.
    fn end_when(&self, may: impl Fn(Instant) -> bool + Send + 'static) {
        let (drained, told) = (self.drained.clone(), Instant::now());
        thread::spawn(move || {
            while !may(told) {
                thread::sleep(POLL_INTERVAL);
            }
            let _ = drained.send(());
        });
    }

    /// Whether a new process is ready to take the sockets over. Without one, stopping would be an outage.
    fn takes_over(&self) -> bool {
        let written = &self.process.gateway.snapshot.load().loaded.config.process;
        let Some(socket) = &written.upgrade_socket else {
            tracing::error!("SIGQUIT hands over to a new process: set `process.upgrade_socket`");
            return false;
        };
        if !socket.exists() {
            tracing::error!(socket = %socket.display(), "start the new process first: `stagedoor run --upgrade`");
            return false;
        }
        true
    }
}
