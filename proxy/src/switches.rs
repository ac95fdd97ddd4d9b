//! Sets switches and removes them, and puts on record what became of each.

use std::{sync::Arc, time::Duration};

use filters::{
    audit::event::{Event, SwitchChange},
    switches::{Position, Scope, Switch},
};

use crate::{clock, live::Stage};

/// How often it is looked for switches that have ended, to tell it. They count no longer anyway.
const LOOK: Duration = Duration::from_secs(1);

impl Stage {
    /// Sets a switch, and cuts what it is about if `cuts`: also answers how many. `None` if there are
    /// too many switches.
    pub fn switch(
        &self,
        scope: Scope,
        position: Position,
        lasts: Duration,
        cuts: bool,
        (by, reason): (&str, &str),
    ) -> Option<(Arc<Switch>, Option<usize>)> {
        self.expire_switches();
        let switches = &self.state.switches;
        let switch = switches.set(scope, position, lasts, (by, reason), clock::now())?;
        // Once it is set: whatever begins from now on asks it.
        let cut = cuts.then(|| self.lasting.cut(&switch, clock::now()));
        self.switched(&switch, SwitchChange::Set { cut });
        Some((switch, cut))
    }

    /// Removes a switch. `None` if there is none of this number.
    pub fn remove_switch(&self, id: u64, by: &str) -> Option<Arc<Switch>> {
        self.expire_switches();
        let switch = self.state.switches.remove(id)?;
        self.switched(&switch, SwitchChange::Removed { by });
        Some(switch)
    }

    /// Forgets the switches that have ended.
    pub fn expire_switches(&self) {
        for switch in self.state.switches.expire(clock::now()) {
            self.switched(&switch, SwitchChange::Expired);
        }
    }

    /// Does so until the process ends.
    pub async fn watch_switches(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.expire_switches();
        }
    }

    fn switched(&self, switch: &Switch, change: SwitchChange<'_>) {
        let (id, scope, position) = (switch.id, &switch.scope, switch.position.name());
        tracing::warn!(id, %scope, position, by = %switch.by, reason = %switch.reason, "switch {}", change.name());
        self.audit.happened(&Event::Switch { switch, change });
    }
}
