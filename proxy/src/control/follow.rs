//! Follows the control source of the config in force.

use std::sync::Arc;

use super::Failure;
use crate::{
    aside::aside,
    live::Stage,
    reload::{self, Source},
};

impl Stage {
    /// Asks the control source until the process ends.
    pub async fn follow(self: &Arc<Self>) {
        loop {
            let files = Arc::clone(&self.live.load().files);
            let Some(control) = &files.config.control else {
                self.control.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep(self.control.wait(control)) => {
                    let stage = Arc::clone(self);
                    if let Err(error) = aside(async move { stage.ask_control().await }).await {
                        tracing::error!(%error, "cannot ask the control source");
                    }
                }
                () = self.control.changed.notified() => {}
            }
        }
    }

    /// Asks the control source of the config in force, and takes over what is new.
    async fn ask_control(&self) {
        let _one_after_the_other = self.seen.lock().await;
        let last = self.live.load_full();
        let said = match self.control.ask(&last.files, &self.dial).await {
            Ok(Some(said)) => said,
            Ok(None) => return,
            Err(failure) => return self.refused(&failure),
        };
        if reload::digest(&said.loaded) == *last.policy.digest {
            self.control.hold(said).await;
            return;
        }
        match self.take_over(said.loaded.clone(), Arc::clone(&last.files)).await {
            Ok(mut messages) => {
                messages.extend(self.control.hold(said).await);
                let policy = self.live.load().policy.digest.to_string();
                tracing::info!(policy, ?messages, "what the control source says is in force");
                self.on_record(Source::Control.name(), true, Some(&last), &messages);
            }
            Err(problems) => self.refused(&self.control.refuse(problems)),
        }
    }

    /// Puts on record that an answer was bad, once.
    pub(crate) fn refused(&self, failure: &Failure) {
        if failure.refused && failure.is_news {
            let last = self.live.load_full();
            self.on_record(Source::Control.name(), false, Some(&last), &failure.messages);
        }
    }
}
