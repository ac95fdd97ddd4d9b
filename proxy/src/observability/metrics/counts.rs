//! The counters of a policy's routes and workspaces, each looked up once.

use std::sync::OnceLock;

use filters::{Exchange, Label, Policy, workspaces::Workspace};
use parking_lot::RwLock;
use prometheus::{Histogram, IntCounter};

/// The counters of a policy's routes and workspaces, looked up once each. They belong to the policy, so that
/// an exchange that outlives a reload counts by its own policy's numbers.
pub struct Counts {
    /// The last one counts exchanges without a route.
    routes: Vec<RouteCounts>,
    /// The last one counts those beyond the cap.
    workspaces: Vec<WorkspaceCounts>,
}

pub(super) struct RouteCounts {
    pub(super) name: Label,
    pub(super) class: &'static str,
    /// By status: a route sees few.
    pub(super) requests: RwLock<Vec<(u16, IntCounter)>>,
    /// Of the whole exchange, and of the upstream's part.
    pub(super) durations: OnceLock<(Histogram, Histogram)>,
}

pub(super) struct WorkspaceCounts {
    pub(super) name: Label,
    pub(super) allowed: OnceLock<IntCounter>,
    pub(super) denied: OnceLock<IntCounter>,
}

impl Counts {
    /// For a policy and its config. Workspaces beyond the cap count as `other`.
    pub fn new(policy: &Policy, written: &config::Config) -> Self {
        let routes = policy.routes.all().iter();
        let routes = routes.map(|route| (route.name.clone(), route.class.name()));
        let named = written.workspaces.named.keys().map(Label::from);
        let named = named.take(written.process.metric_workspaces_max.into());
        Self {
            routes: routes
                .chain([(Label::lossy("none"), "none")])
                .map(|(name, class)| RouteCounts {
                    name,
                    class,
                    requests: RwLock::default(),
                    durations: OnceLock::new(),
                })
                .collect(),
            workspaces: named
                .chain([Label::lossy("other")])
                .map(|name| WorkspaceCounts {
                    name,
                    allowed: OnceLock::new(),
                    denied: OnceLock::new(),
                })
                .collect(),
        }
    }

    pub(super) fn route(&self, exchange: &Exchange) -> &RouteCounts {
        let last = self.routes.len() - 1;
        &self.routes[exchange.route.as_ref().map_or(last, |route| route.index)]
    }

    pub(super) fn workspace(&self, workspace: &Workspace) -> &WorkspaceCounts {
        let last = self.workspaces.len() - 1;
        let declared = workspace.declared.as_ref();
        &self.workspaces[declared.map_or(last, |declared| declared.index.min(last))]
    }
}
