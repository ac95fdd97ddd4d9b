//! `stagedoor audit`: what can be asked of the records.

mod verify;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Ask something of audit records.
#[derive(Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Tell whether records were changed, removed or put between. Exit code 1 if so.
    Verify(verify::Verify),
}

impl Audit {
    pub(super) fn run(self) -> ExitCode {
        match self.what {
            What::Verify(verify) => verify.run(),
        }
    }
}
