//! How the process ends: readiness fails first, then connections drain, within a bound.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use crate::{live::Stage, reload::Source};

/// Waits for a signal, and drains before it passes one on to Pingora.
pub struct Stop(pub Arc<Stage>);

const LOOK: Duration = Duration::from_millis(20);
/// How long a client may take to read that it must leave. What it asked before is on its way.
const HEARD: Duration = Duration::from_secs(1);

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let on = |kind| signal(kind).expect("the signal exists");
        let (mut term, mut int) = (on(SignalKind::terminate()), on(SignalKind::interrupt()));
        let (mut quit, mut hup) = (on(SignalKind::quit()), on(SignalKind::hangup()));
        loop {
            tokio::select! {
                _ = term.recv() => {
                    self.drain().await;
                    return ShutdownSignal::GracefulTerminate;
                }
                _ = int.recv() => {
                    tracing::info!("stopping at once");
                    return ShutdownSignal::FastShutdown;
                }
                _ = quit.recv() => {
                    if self.takes_over() {
                        tracing::info!("handing the listeners to the new process");
                        return ShutdownSignal::GracefulUpgrade;
                    }
                }
                _ = hup.recv() => {
                    tracing::info!("reloading, as SIGHUP asks");
                    // It may wait for others; the next signal must not.
                    let stage = Arc::clone(&self.0);
                    tokio::spawn(async move { stage.reload(Source::Signal).await });
                }
            }
        }
    }
}

impl Stop {
    async fn drain(&self) {
        let process = self.0.live.load().loaded.config.process.clone();
        tracing::info!(delay = %process.drain_delay, timeout = %process.drain_timeout, "stopping");
        self.0.drain.begin();
        sleep(*process.drain_delay).await;
        let drain = &self.0.drain;
        drain.close_idle();
        let told = Instant::now();
        while told.elapsed() < *process.drain_timeout
            && (drain.under_way() > 0 || (drain.may_be_asked() && told.elapsed() < HEARD))
        {
            sleep(LOOK).await;
        }
        let cut = drain.under_way();
        if cut > 0 {
            tracing::warn!(cut, "exchanges were still under way");
        }
    }

    /// Whether somebody listens to take the sockets over. Without, stopping would be an outage.
    fn takes_over(&self) -> bool {
        let process = &self.0.live.load().loaded.config.process;
        let Some(socket) = &process.upgrade_socket else {
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
