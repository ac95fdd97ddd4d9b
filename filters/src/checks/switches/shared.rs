//! Switches that replicas share: the difference between this replica's and the store's, and who removed
//! what.
//!
//! There is no leader. Each replica adopts what it finds in the store, and stores what it knows and does not
//! find: so a store that lost everything is refilled. A removed switch is remembered as removed until it
//! would have ended, or a replica that missed the removal would bring it back.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{DURATION_MAX, Position, Scope, Switch};
use crate::{Label, Now};

/// A switch, as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredSwitch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    position: String,
    reason: String,
    by: String,
    cut: bool,
    /// Milliseconds since 1970, by the wall clock of the replica that set it.
    set: u64,
    /// By the store's clock.
    until: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed_by: Option<String>,
}

/// Switches that were removed here, and by whom, until they would have ended.
pub type Removed = HashMap<u64, (Arc<Switch>, Arc<str>)>;

/// What to do so that this replica and the store have the same switches.
#[derive(Debug, Default)]
pub struct Plan {
    /// Set these here.
    pub set: Vec<Switch>,
    /// Remove these here, with who removed them.
    pub remove: Vec<(u64, String)>,
    /// Write these to the store.
    pub store: Vec<(u64, StoredSwitch)>,
    /// Delete these from the store.
    pub ended: Vec<u64>,
}

/// A switch with less time left is not adopted: it might have ended here already.
const WORTH: Duration = Duration::from_secs(1);

/// Compares this replica's switches with the store's at `store_now`, its own time since 1970.
pub fn plan(
    own: &[Arc<Switch>],
    removed: &Removed,
    known: &[(u64, Option<StoredSwitch>)],
    store_now: Duration,
    now: Now,
) -> Plan {
    let mut plan = Plan::default();
    for (id, known) in known {
        let Some(known) = known else {
            plan.ended.push(*id);
            continue;
        };
        let left = Duration::from_millis(known.until).saturating_sub(store_now);
        let is_set = own.iter().any(|switch| switch.id == *id);
        match &known.removed_by {
            _ if left.is_zero() => plan.ended.push(*id),
            Some(by) if is_set => plan.remove.push((*id, by.clone())),
            None if !is_set && !removed.contains_key(id) && left > WORTH => {
                match known.switch(*id, left, now) {
                    Some(switch) => plan.set.push(switch),
                    None => plan.ended.push(*id),
                }
            }
            _ => {}
        }
    }
    let lacks = |id: &u64, as_removed: bool| {
        let found =
            known.iter().find(|(other, _)| other == id).and_then(|(_, known)| known.as_ref());
        found.is_none_or(|known| as_removed && known.removed_by.is_none())
    };
    let mut store = |switch: &Switch, by: Option<&str>| {
        if switch.lasts(now) && lacks(&switch.id, by.is_some()) {
            plan.store.push((switch.id, StoredSwitch::of(switch, by, store_now, now)));
        }
    };
    own.iter().for_each(|switch| store(switch, None));
    removed.values().for_each(|(switch, by)| store(switch, Some(by)));
    plan
}

impl StoredSwitch {
    fn of(switch: &Switch, removed_by: Option<&str>, store_now: Duration, now: Now) -> Self {
        let text = |label: &Option<Label>| label.as_ref().map(|label| label.to_string());
        let Scope { upstream, plugin, workspace, caller, class } = &switch.scope;
        let until = store_now + switch.until.elapsed.saturating_sub(now.elapsed);
        Self {
            upstream: text(upstream),
            plugin: text(plugin),
            workspace: text(workspace),
            caller: text(caller),
            class: class.map(|class| class.name().to_owned()),
            position: switch.position.name().to_owned(),
            reason: switch.reason.to_string(),
            by: switch.by.to_string(),
            cut: switch.cuts,
            set: millis(switch.set.unix),
            until: millis(until),
            removed_by: removed_by.map(str::to_owned),
        }
    }

    /// `None` if it is not one that we could have set.
    fn switch(&self, id: u64, left: Duration, now: Now) -> Option<Switch> {
        let label = |text: &Option<String>| match text {
            Some(text) => Label::new(text).map(Some),
            None => Some(None),
        };
        let class = match self.class.as_deref() {
            None => None,
            Some("read") => Some(config::Class::Read),
            Some("action") => Some(config::Class::Action),
            Some(_) => return None,
        };
        let scope = Scope {
            upstream: label(&self.upstream)?,
            plugin: label(&self.plugin)?,
            workspace: label(&self.workspace)?,
            caller: label(&self.caller)?,
            class,
        };
        let position = match &*self.position {
            "open" => Position::Open,
            "closed" => Position::Closed,
            _ => return None,
        };
        (!scope.is_empty()).then(|| Switch {
            id,
            scope,
            position,
            reason: self.reason.as_str().into(),
            by: self.by.as_str().into(),
            cuts: self.cut,
            set: Now { unix: Duration::from_millis(self.set), ..now },
            until: now.plus(left.min(DURATION_MAX)),
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: Duration = Duration::from_secs(1_800_000_000);

    fn at(seconds: u64) -> Now {
        Now::default().plus(Duration::from_secs(seconds))
    }

    fn switch(id: u64) -> Arc<Switch> {
        let plugin = Some(Label::lossy("argocd"));
        Arc::new(Switch {
            id,
            scope: Scope { plugin, class: Some(config::Class::Action), ..Scope::default() },
            position: Position::Open,
            reason: "it \"burns\"".into(),
            by: "ada".into(),
            cuts: true,
            set: at(0),
            until: at(100),
        })
    }

    /// As a replica with another clock finds it later.
    fn read(known: &StoredSwitch) -> Option<StoredSwitch> {
        serde_json::from_str(&serde_json::to_string(known).unwrap()).unwrap()
    }

    #[test]
    fn a_switch_set_by_one_is_adopted_by_others_with_its_end() {
        let told = plan(&[switch(7)], &Removed::new(), &[], STORE, at(10)).store;
        let [(7, known)] = &told[..] else { panic!("{told:?}") };
        let store = [(7, read(known))];
        let later = STORE + Duration::from_secs(40);
        let there = plan(&[], &Removed::new(), &store, later, at(9000));
        let [taken] = &there.set[..] else { panic!("{there:?}") };
        assert_eq!(taken.until.elapsed, at(9050).elapsed);
        assert_eq!(
            (&taken.scope, taken.cuts, &*taken.reason),
            (&switch(7).scope, true, "it \"burns\"")
        );
        let same = [switch(7)];
        let again = plan(&same, &Removed::new(), &store, STORE, at(10));
        assert!(again.set.is_empty() && again.store.is_empty() && again.ended.is_empty());
    }

    #[test]
    fn a_switch_removed_by_one_is_removed_everywhere_for_good() {
        let set = plan(&[switch(7)], &Removed::new(), &[], STORE, at(0)).store.remove(0);
        let removed: Removed = [(7, (switch(7), "bo".into()))].into();
        let known = [(7, read(&set.1))];
        let told = plan(&[], &removed, &known, STORE, at(1));
        assert!(told.set.is_empty());
        let store = [(7, read(&told.store[0].1))];
        assert_eq!(
            plan(&[switch(7)], &Removed::new(), &store, STORE, at(1)).remove,
            [(7, "bo".to_owned())]
        );
        assert!(plan(&[], &Removed::new(), &store, STORE, at(1)).set.is_empty());
        assert!(plan(&[], &removed, &store, STORE, at(1)).store.is_empty());
        // And it is forgotten when it would have ended.
        assert_eq!(
            plan(&[], &removed, &store, STORE + Duration::from_secs(200), at(201)).ended,
            [7]
        );
    }

    #[test]
    fn a_store_that_lost_everything_is_refilled() {
        let removed: Removed = [(8, (switch(8), "bo".into()))].into();
        let told = plan(&[switch(7)], &removed, &[], STORE, at(50)).store;
        assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [7, 8]);
        assert!(plan(&[switch(7)], &removed, &[], STORE, at(100)).store.is_empty());
    }

    #[test]
    fn what_is_none_is_not_taken_over() {
        let (_, good) = plan(&[switch(7)], &Removed::new(), &[], STORE, at(0)).store.remove(0);
        let check = |known: Option<StoredSwitch>, set: usize| {
            let plan = plan(&[], &Removed::new(), &[(7, known)], STORE, at(0));
            assert_eq!((plan.set.len(), plan.ended.len()), (set, 1 - set));
        };
        check(Some(good.clone()), 1);
        check(None, 0);
        check(Some(StoredSwitch { class: Some("admin".to_owned()), ..good.clone() }), 0);
        check(Some(StoredSwitch { position: "ajar".to_owned(), ..good.clone() }), 0);
        check(Some(StoredSwitch { plugin: Some("a b\n".to_owned()), ..good.clone() }), 0);
        check(Some(StoredSwitch { plugin: None, class: None, ..good }), 0);
    }
}
