//! `stagedoor audit`: queries over the records.

mod filter;
mod follow;
mod member;
mod output;
mod query;
mod record;
mod source;
mod stats;
mod tail;
mod verify;
mod when;

use std::{io, process::ExitCode};

use clap::{Args, Subcommand};
use thiserror::Error;

/// Search, count and verify audit records.
#[derive(Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Verify that no records were changed, removed or inserted. Exit code 1 if any were.
    Verify(verify::Verify),
    /// Show matching records, oldest first. Exit code 1 if there are none.
    Query(Box<query::Query>),
    /// Show the last matching records, and follow new ones (`-f`).
    Tail(Box<tail::Tail>),
    /// Count matching records.
    Stats(Box<stats::Stats>),
}

/// How a command ended that showed records.
struct Ended {
    found: bool,
    unreadable: bool,
}

/// Why a command could not continue.
#[derive(Debug, Error)]
enum Trouble {
    #[error("{0}")]
    Misuse(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Audit {
    pub(super) fn run(self) -> ExitCode {
        let ended = match self.what {
            What::Verify(verify) => return verify.run(),
            What::Query(query) => query.run(),
            What::Tail(tail) => tail.run(),
            What::Stats(stats) => stats.run(),
        };
        match ended {
            Ok(Ended { unreadable: true, .. }) => ExitCode::from(2),
            Ok(Ended { found, .. }) => ExitCode::from(u8::from(!found)),
            // The reader has closed the pipe, as `head` does.
            Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Err(trouble) => {
                source::report(&trouble.to_string());
                ExitCode::from(2)
            }
        }
    }
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self::Misuse(message)
    }
}
