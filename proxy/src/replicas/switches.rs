//! Sets switches and removes them, and puts on record what became of each.

use std::{sync::Arc, time::Duration};

use filters::{
    Now, State,
    audit::event::SwitchChange,
    switches::{DURATION_MAX, Position, Scope, Switch},
};

use super::store::Store;
use crate::{
    clock,
    observability::{audit::Audit, changes::switch_changed},
};

/// How often expired switches are looked for, to record them. They no longer count anyway.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Sets switches and removes them, here and for all replicas.
pub struct Switchboard {
    state: Arc<State>,
    audit: Arc<Audit>,
    store: Option<Arc<Store>>,
    sever: Box<Sever>,
}

/// Severs the exchanges that a switch is about; how many.
pub type Sever = dyn Fn(&Switch, Now) -> usize + Send + Sync;

impl Switchboard {
    /// For these switches. `sever` ends exchanges in progress for one that cuts.
    pub fn new(
        state: Arc<State>,
        audit: Arc<Audit>,
        store: Option<Arc<Store>>,
        sever: Box<Sever>,
    ) -> Self {
        Self { state, audit, store, sever }
    }

    /// All switches that are set.
    pub fn all(&self) -> Arc<Vec<Arc<Switch>>> {
        self.state.switches.all()
    }

    /// Sets a switch, and cuts matching exchanges if `cuts`: also returns how many. `None` if there are too
    /// many switches.
    pub fn set(
        &self,
        scope: Scope,
        position: Position,
        lasts: Duration,
        cuts: bool,
        (by, reason): (&str, &str),
    ) -> Option<(Arc<Switch>, Option<usize>)> {
        self.expire();
        let switches = &self.state.switches;
        let now = clock::now();
        let switch = match &self.store {
            None => switches.set(scope, position, lasts, (by, reason), now)?,
            Some(_) => switches.put(Switch {
                id: Store::switch_id(),
                scope,
                position,
                reason: reason.into(),
                by: by.into(),
                cuts,
                set: now,
                until: now.plus(lasts.min(DURATION_MAX)),
            })?,
        };
        // After it is set: whatever begins from now on is checked against it.
        let cut = cuts.then(|| (self.sever)(&switch, clock::now()));
        self.switched(&switch, SwitchChange::Set { cut });
        if let Some(store) = &self.store {
            store.switch_set();
        }
        Some((switch, cut))
    }

    /// Removes a switch. `None` if there is none with this number.
    pub fn remove(&self, id: u64, by: &str) -> Option<Arc<Switch>> {
        self.expire();
        let switch = self.state.switches.remove(id)?;
        self.switched(&switch, SwitchChange::Removed { by });
        if let Some(store) = &self.store {
            store.switch_removed(&switch, by);
        }
        Some(switch)
    }

    /// Sets a switch that was set on another replica, and cuts what that cut.
    pub fn set_elsewhere(&self, switch: Switch) {
        let Some(switch) = self.state.switches.put(switch) else { return };
        let cut = switch.cuts.then(|| (self.sever)(&switch, clock::now()));
        self.switched(&switch, SwitchChange::Set { cut });
    }

    /// Removes a switch that was removed on another replica.
    pub fn removed_elsewhere(&self, id: u64, by: &str) {
        if let Some(switch) = self.state.switches.remove(id) {
            self.switched(&switch, SwitchChange::Removed { by });
        }
    }

    /// Forgets the switches that have ended.
    pub fn expire(&self) {
        for switch in self.state.switches.expire(clock::now()) {
            self.switched(&switch, SwitchChange::Expired);
        }
    }

    /// Does so until the process ends.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            self.expire();
        }
    }

    fn switched(&self, switch: &Switch, change: SwitchChange<'_>) {
        switch_changed(&self.audit, switch, change);
    }
}
