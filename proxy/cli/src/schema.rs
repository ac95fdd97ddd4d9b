//! `stagedoor schema`: the config's schema for editors, its manual for people.

use std::process::ExitCode;

use clap::Args;

/// Print the JSON Schema of the config.
#[derive(Args)]
pub(super) struct Schema {
    /// Print the manual instead, in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Print the schema of a control source's response instead.
    #[arg(long, conflicts_with = "markdown")]
    control: bool,
    /// Print the schema of `/state` on the admin listener instead.
    #[arg(long, conflicts_with_all = ["markdown", "control"])]
    state: bool,
}

impl Schema {
    pub(super) fn run(self) -> ExitCode {
        let text = match self {
            Self { markdown: true, .. } => config::markdown(),
            Self { control: true, .. } => config::control_schema(),
            Self { state: true, .. } => proxy::admin::state::schema(),
            _ => config::json_schema(),
        };
        super::say::text(&text);
        ExitCode::SUCCESS
    }
}
