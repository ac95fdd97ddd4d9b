//! The state of the circuit breakers of the policy in force.

use std::collections::BTreeMap;

use filters::breaker::{Key, Position, Status};

use crate::{clock, data_plane::gateway::Gateway};

/// All breakers. One without any event is closed.
pub(super) fn all(gateway: &Gateway) -> Vec<(Key, Status)> {
    let seen = gateway.state.breakers.statuses(clock::now());
    let snapshot = gateway.snapshot.load();
    let closed = Status { position: Position::Closed, cause: None };
    let named =
        snapshot.policy.routes.all().iter().map(|route| (route.breaker.key.clone(), closed));
    let mut all: BTreeMap<Key, Status> = named.collect();
    for (key, facts) in seen {
        let of_route = Key { part: None, ..key.clone() };
        if all.contains_key(&of_route) {
            all.insert(key, facts);
        }
    }
    all.into_iter().collect()
}
