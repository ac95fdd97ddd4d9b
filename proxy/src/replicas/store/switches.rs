//! Operators' switches on all replicas: each stores its own, and fetches the others' every second.

use std::{collections::HashMap, sync::Arc, time::Duration};

use filters::switches::{
    DURATION_MAX, Switch,
    shared::{StoredSwitch, plan},
};
use redis::{Value, aio::MultiplexedConnection, from_redis_value};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;

use super::{Fault, Store};
use crate::{clock, replicas::switches::Switchboard};

impl Store {
    /// A random number for a switch, unique among replicas, that fits a JSON number.
    pub fn switch_id() -> u64 {
        let mut id = [0; 8];
        SystemRandom::new().fill(&mut id[2..]).expect("the system has randomness");
        u64::from_be_bytes(id)
    }

    /// A switch was set here.
    pub fn switch_set(&self) {
        self.switched.notify_one();
    }

    /// A switch was removed here.
    pub fn switch_removed(&self, switch: &Arc<Switch>, by: &str) {
        self.removed.lock().insert(switch.id, (Arc::clone(switch), by.into()));
        self.switched.notify_one();
    }

    /// Adopts other replicas' switches, and stores those that only this replica has.
    pub(super) async fn share_switches(
        &self,
        connection: &mut MultiplexedConnection,
        switchboard: &Switchboard,
    ) -> Result<(), Fault> {
        let key = self.key("switches");
        let mut look = redis::pipe();
        look.cmd("TIME").cmd("HGETALL").arg(&key);
        let found = timeout(**self.written.timeout, look.query_async(connection)).await;
        let ((seconds, micros), all): ((u64, u64), HashMap<String, Value>) =
            found.map_err(|_| Fault::late())??;
        let store_now = Duration::from_secs(seconds) + Duration::from_micros(micros);
        let read = |(id, value): (String, Value)| {
            let text: Option<String> = from_redis_value(value).ok();
            Some((
                id.parse().ok()?,
                text.and_then(|text| serde_json::from_str::<StoredSwitch>(&text).ok()),
            ))
        };
        let known: Vec<_> = all.into_iter().filter_map(read).collect();
        let now = clock::now();
        let plan = {
            let mut removed = self.removed.lock();
            removed.retain(|_, (switch, _)| switch.lasts(now));
            plan(&switchboard.all(), &removed, &known, store_now, now)
        };
        plan.set.into_iter().for_each(|switch| switchboard.set_elsewhere(switch));
        for (id, by) in plan.remove {
            switchboard.removed_elsewhere(id, &by);
        }
        if plan.store.is_empty() && plan.ended.is_empty() {
            return Ok(());
        }
        let mut store = redis::pipe();
        for (id, known) in &plan.store {
            let text = serde_json::to_string(known).expect("what is known is JSON");
            store.cmd("HSET").arg(&key).arg(id.to_string()).arg(text).ignore();
        }
        for id in &plan.ended {
            store.cmd("HDEL").arg(&key).arg(id.to_string()).ignore();
        }
        let millis = u64::try_from(DURATION_MAX.as_millis()).unwrap_or(u64::MAX);
        store.cmd("PEXPIRE").arg(&key).arg(millis).ignore();
        let told = timeout(**self.written.timeout, store.exec_async(connection)).await;
        Ok(told.map_err(|_| Fault::late())??)
    }
}
