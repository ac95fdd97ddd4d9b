//! Whether a plugin is on for a workspace.

use std::collections::HashMap;

use crate::{Denial, Label, checks::workspaces::Workspace, types::sha256};

/// Plugins that are off or in a rollout.
#[derive(Debug, Default)]
pub struct Plugins(HashMap<String, u8>);

impl Plugins {
    /// From what the operator wrote.
    pub fn new(written: &config::Config) -> Self {
        let percents = written.plugins.iter();
        Self(percents.map(|(name, plugin)| (name.to_string(), plugin.enabled_percent.0)).collect())
    }

    /// Permits a request if its route's plugin is on for its workspace.
    ///
    /// # Errors
    /// [`Denial::PluginDisabled`].
    pub fn enabled(
        &self,
        plugin: Option<&Label>,
        workspace: Option<&Workspace>,
    ) -> Result<(), Denial> {
        let Some(plugin) = plugin else { return Ok(()) };
        let own = workspace
            .and_then(|w| w.declared.as_ref())
            .and_then(|declared| declared.plugins.get(&**plugin).copied());
        let name = workspace.map(|w| &*w.name).unwrap_or_default();
        let on = own.unwrap_or_else(|| match self.0.get(&**plugin) {
            None | Some(100) => true,
            Some(percent) => position(plugin, name) < u32::from(*percent) * 100,
        });
        if on {
            return Ok(());
        }
        Err(Denial::PluginDisabled { plugin: plugin.clone(), workspace: Label::lossy(name) })
    }
}

/// The position of a workspace in a plugin's rollout, 0 to 9999. It never changes, so a workspace that has
/// the plugin at 10 % still has it at 50 %; and it differs between plugins, so that the same teams are not
/// always first.
fn position(plugin: &str, workspace: &str) -> u32 {
    let hash = sha256::of(format!("{plugin}\n{workspace}").as_bytes());
    u32::from_be_bytes(sha256::array(&hash)) % 10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_reaches_its_share_and_never_takes_a_workspace_back() {
        let on = |percent: u32| {
            (0..1000).map(|n| position("argocd", &format!("ws-{n}")) < percent * 100).collect()
        };
        let (ten, fifty): (Vec<bool>, Vec<bool>) = (on(10), on(50));
        let count = |v: &[bool]| v.iter().filter(|on| **on).count();
        assert!((70..130).contains(&count(&ten)), "{}", count(&ten));
        assert!((440..560).contains(&count(&fifty)), "{}", count(&fifty));
        assert!(ten.iter().zip(&fifty).all(|(ten, fifty)| !ten || *fifty));
    }

    #[test]
    fn a_position_never_changes() {
        assert_eq!(position("argocd", "payments"), position("argocd", "payments"));
        assert_ne!(position("argocd", "payments"), position("dxcp", "payments"));
    }
}
