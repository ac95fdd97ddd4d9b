//! Follows the control source of the config in force.

use std::sync::Arc;

use super::Failure;
use crate::lifecycle::{
    low_priority::aside,
    process::Process,
    reload::{self, Source},
};

impl Process {
    /// Polls the control source until the process ends.
    pub async fn follow(self: &Arc<Self>) {
        loop {
            let files = Arc::clone(&self.gateway.snapshot.load().files);
            let Some(control) = &files.config.control else {
                self.control.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep(self.control.wait(control)) => {
                    let process = Arc::clone(self);
                    if let Err(error) = aside(async move { drop(process.ask_control().await) }).await {
                        tracing::error!(%error, "cannot poll the control source");
                    }
                }
                () = self.control.changed.notified() => {}
            }
        }
    }

    /// Polls the control source of the config in force, and applies a new response. Returns the problems.
    pub(crate) async fn ask_control(&self) -> Vec<String> {
        let files = Arc::clone(&self.gateway.snapshot.load().files);
        let said = match self.control.ask(&files, &self.gateway.dial).await {
            Ok(Some(said)) => said,
            Ok(None) => return Vec::new(),
            Err(failure) => {
                self.refused(&failure);
                return failure.messages;
            }
        };
        // Not during the request: a reload must not wait for that.
        let _one_after_the_other = self.seen.lock().await;
        let last = self.gateway.snapshot.load_full();
        if !Arc::ptr_eq(&last.files, &files) {
            // Other files were loaded meanwhile, so their source must be polled.
            self.control.changed.notify_one();
            return Vec::new();
        }
        if reload::digest(&said.loaded) == *last.policy.digest {
            return self.control.hold(said).await;
        }
        match self.take_over(said.loaded.clone(), Arc::clone(&last.files)).await {
            Ok(mut messages) => {
                messages.extend(self.control.hold(said).await);
                let policy = self.gateway.snapshot.load().policy.digest.to_string();
                tracing::info!(policy, ?messages, "the control source's response is in force");
                self.on_record(Source::Control.name(), true, Some(&last), &messages);
                messages
            }
            Err(problems) => {
                let failure = self.control.refuse(problems);
                self.refused(&failure);
                failure.messages
            }
        }
    }

    /// Records an invalid response, once.
    pub(crate) fn refused(&self, failure: &Failure) {
        if failure.refused && failure.is_news {
            let last = self.gateway.snapshot.load_full();
            self.on_record(Source::Control.name(), false, Some(&last), &failure.messages);
        }
    }
}
