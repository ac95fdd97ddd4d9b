//! `stagedoor suggest`: proposes config from records.

mod calls;
mod context;
mod groups;
mod proposal;
mod records;
mod risks;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use self::{calls::Calls, context::Context};
use proxy::{clock, lifecycle::reload};

/// Propose additions to the config. Applies nothing and writes no file.
#[derive(Args)]
pub(super) struct Suggest {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Propose rules for calls that were refused, or that a `report_only` listener let through.
    Egress(Egress),
}

#[derive(Args)]
struct Egress {
    /// Files of audit records; a folder means all of its files.
    #[arg(long, required = true, num_args = 1..)]
    audit: Vec<PathBuf>,
    /// The config file: calls that its rules already allow are left out, and its host groups are used by
    /// name.
    #[arg(short, long, env = "STAGEDOOR_CONFIG")]
    config: Option<PathBuf>,
}

impl Suggest {
    pub(super) fn run(self) -> ExitCode {
        let What::Egress(egress) = self.what;
        match egress.proposed() {
            Ok(text) => {
                super::say::text(&text);
                ExitCode::SUCCESS
            }
            Err(message) => {
                crate::say::err(format_args!("{message}"));
                ExitCode::from(2)
            }
        }
    }
}

impl Egress {
    fn proposed(self) -> Result<String, String> {
        let loaded = match &self.config {
            Some(path) => Some(reload::load(path).map_err(|problems| problems.to_string())?),
            None => None,
        };
        let mut calls = Calls::default();
        let read = records::read(&self.audit, |record| calls.take(record))?;
        read.report();
        calls.left.report();
        let context = Context::of(loaded.as_ref().map(|loaded| &loaded.config));
        Ok(proposal::write(calls, &context, clock::now()))
    }
}
