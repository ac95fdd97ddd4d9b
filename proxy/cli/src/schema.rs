//! `stagedoor schema`: the config's schema for editors, its manual for people.

use std::process::ExitCode;

use clap::Args;

/// Print the JSON Schema of the config.
#[derive(Args)]
pub(super) struct Schema {
    /// Print the manual instead, in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Print the schema of what a control source may answer instead.
    #[arg(long, conflicts_with = "markdown")]
    control: bool,
}

impl Schema {
    pub(super) fn run(self) -> ExitCode {
        let text = match (self.markdown, self.control) {
            (true, _) => config::markdown(),
            (_, true) => config::answer_schema(),
            _ => config::json_schema(),
        };
        super::say::text(&text);
        ExitCode::SUCCESS
    }
}
