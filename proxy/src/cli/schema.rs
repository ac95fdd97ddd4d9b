//! `stagedoor schema`: the config's schema for editors, its manual for people.

use std::process::ExitCode;

use clap::Args;

/// Print the JSON Schema of the config.
#[derive(Args)]
pub(super) struct Schema {
    /// Print the manual instead, in Markdown.
    #[arg(long)]
    markdown: bool,
}

impl Schema {
    pub(super) fn run(self) -> ExitCode {
        let text = if self.markdown { config::markdown() } else { config::json_schema() };
        print!("{text}");
        ExitCode::SUCCESS
    }
}
