//! Whether the process is stopping, and what is still in progress. Shared by all listeners.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// The steps of a drain, which are never reversed.
#[derive(Default)]
pub struct Drain {
    draining: AtomicBool,
    handing_over: AtomicBool,
    closing: CancellationToken,
    ending: CancellationToken,
    exchanges: TaskTracker,
    /// HTTP/2 connections: requests may arrive on them until their clients have read GOAWAY.
    multiplexed: TaskTracker,
}

/// An exchange or a connection in progress, until this is dropped.
pub type InFlight = TaskTrackerToken;

impl Drain {
    /// From now on every response on a connection is its last.
    pub fn begin(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The same while another process takes the listeners over: this one stays ready meanwhile.
    pub fn hand_over(&self) {
        self.handing_over.store(true, Ordering::Relaxed);
    }

    /// Whether a response is the last on its connection.
    pub fn is_leaving(&self) -> bool {
        self.is_draining() || self.handing_over.load(Ordering::Relaxed)
    }

    /// Closes idle connections, and sends GOAWAY on HTTP/2 ones. Not before load balancers have noticed the
    /// drain: a client must not find its connection closed just as it uses it, nor reconnect here.
    pub fn close_idle(&self) {
        self.closing.cancel();
    }

    /// Waits until connections that wait for another request are to be closed.
    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Whether they are.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Ends what would last for longer than the process: tunnels, and background work.
    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Waits until that is to end.
    pub async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Whether the process is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// How many exchanges are in progress.
    pub fn in_flight(&self) -> usize {
        self.exchanges.len()
    }

    /// Counts an exchange until what it returns is dropped.
    pub fn exchange(&self) -> InFlight {
        self.exchanges.token()
    }

    /// Counts a connection of HTTP/2 until what it returns is dropped.
    pub(super) fn multiplexed(&self) -> InFlight {
        self.multiplexed.token()
    }

    /// Waits until no exchange is in progress, and none can begin: HTTP/2 clients have the time `heard` to
    /// read GOAWAY, and requests until then are served.
    pub async fn drained(&self, heard: Duration) {
        self.exchanges.close();
        self.multiplexed.close();
        let _ = timeout(heard, self.multiplexed.wait()).await;
        while !self.exchanges.is_empty() {
            self.exchanges.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_drained_with_the_last_exchange() {
        let drain = Drain::default();
        let (one, other) = (drain.exchange(), drain.exchange());
        let waiting =
            |within| timeout(Duration::from_millis(within), drain.drained(Duration::ZERO));
        assert!(waiting(50).await.is_err());
        drop(one);
        assert_eq!(drain.in_flight(), 1);
        assert!(waiting(50).await.is_err());
        drop(other);
        assert!(waiting(50).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_before_a_client_has_read_goaway_are_served() {
        let drain = Drain::default();
        let connection = drain.multiplexed();
        let heard = Duration::from_secs(1);
        let late = async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let exchange = drain.exchange();
            drop(connection);
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(exchange);
        };
        let begun = tokio::time::Instant::now();
        tokio::join!(drain.drained(heard), late);
        assert_eq!(begun.elapsed(), Duration::from_millis(5900));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_leaves_is_waited_for_only_until_it_could_have_read_goaway() {
        let drain = Drain::default();
        let _connection = drain.multiplexed();
        let begun = tokio::time::Instant::now();
        drain.drained(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}
