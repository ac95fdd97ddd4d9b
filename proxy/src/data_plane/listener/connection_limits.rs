//! Limits of concurrent connections: in total, and of each client.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

/// The current connections, in total and by client.
#[derive(Default)]
pub(super) struct ConnectionLimits {
    all: AtomicUsize,
    /// Only used if there is a limit per client; bounded by the total limit.
    clients: Mutex<HashMap<u128, usize>>,
}

/// One place; given up when it is dropped.
pub(super) struct ConnectionPermit {
    places: Arc<ConnectionLimits>,
    client: Option<u128>,
}

impl ConnectionLimits {
    /// A slot for a client's connection. `None` if there are `max` in total, or `per_client_max` of this
    /// client; 0 means no such limit.
    pub(super) fn take(
        self: &Arc<Self>,
        peer: IpAddr,
        max: usize,
        per_client_max: usize,
    ) -> Option<ConnectionPermit> {
        let before = self.all.fetch_add(1, Ordering::Relaxed);
        let mut place = ConnectionPermit { places: Arc::clone(self), client: None };
        if before >= max {
            return None;
        }
        if per_client_max > 0 {
            let client = filters::client::network(peer);
            let mut clients = self.clients.lock();
            let count = clients.entry(client).or_default();
            if *count >= per_client_max {
                return None;
            }
            *count += 1;
            place.client = Some(client);
        }
        Some(place)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.places.all.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut clients = self.places.clients.lock();
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_takes_its_share_and_no_more_and_gives_it_back() {
        let places = Arc::new(ConnectionLimits::default());
        let take = |last| places.take(IpAddr::from([192, 0, 2, last]), 3, 2);
        let (first, _second) = (take(1).unwrap(), take(1).unwrap());
        assert!(take(1).is_none());
        let third = take(2).unwrap();
        assert!(take(2).is_none(), "there are three");
        drop(first);
        assert!(take(2).is_some());
        drop(third);
        drop(_second);
        assert!(places.clients.lock().is_empty());
        assert_eq!(places.all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_limit_per_client_is_nothing_to_remember() {
        let places = Arc::new(ConnectionLimits::default());
        let _taken = places.take(IpAddr::from([192, 0, 2, 1]), 3, 0).unwrap();
        assert!(places.clients.lock().is_empty());
    }
}
