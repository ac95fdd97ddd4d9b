//! How many tunnels each workspace has open.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{Denial, Label};

/// Open tunnels by workspace; bounded by the number of tunnels.
#[derive(Clone, Default)]
pub struct Tunnels(Arc<Mutex<HashMap<Label, u32>>>);

/// An open tunnel; it is counted until it is dropped.
pub struct Open {
    all: Tunnels,
    whose: Label,
}

impl Tunnels {
    /// Opens and counts a tunnel.
    ///
    /// # Errors
    /// [`Denial::TunnelsExhausted`] if there are `max` already.
    pub fn open(&self, whose: &Label, max: u32) -> Result<Open, Denial> {
        let mut all = self.0.lock();
        let count = all.get(whose).copied().unwrap_or_default();
        if count >= max {
            return Err(Denial::TunnelsExhausted { name: whose.clone(), max });
        }
        all.insert(whose.clone(), count + 1);
        Ok(Open { all: self.clone(), whose: whose.clone() })
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.0.lock().values().map(|count| *count as usize).sum()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        let Some(count) = all.get_mut(&self.whose) else { return };
        *count -= 1;
        if *count == 0 {
            all.remove(&self.whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_has_so_many_tunnels_and_no_more() {
        let (tunnels, payments, web) =
            (Tunnels::default(), Label::lossy("payments"), Label::lossy("web"));
        let first = tunnels.open(&payments, 2).unwrap();
        let _second = tunnels.open(&payments, 2).unwrap();
        assert!(tunnels.open(&payments, 2).is_err());
        assert!(tunnels.open(&web, 2).is_ok());
        drop(first);
        assert!(tunnels.open(&payments, 2).is_ok());
    }

    #[test]
    fn nothing_remains_of_ended_ones() {
        let tunnels = Tunnels::default();
        for n in 0..1000 {
            drop(tunnels.open(&Label::lossy(&format!("ws-{n}")), 1));
            assert!(tunnels.open(&Label::lossy("none"), 0).is_err());
        }
        assert!(tunnels.is_empty());
        assert!(tunnels.0.lock().is_empty());
    }
}
