//! The command line. Exit codes: 0 fine, 1 findings, 2 wrong use, or output that could not be written; 3 if
//! the doctor finds a bypass, a replay finds what `--fail-on` names, or a drill finds a broken promise.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod audit;
mod check;
mod demo;
mod doctor;
mod drill;
mod explain;
mod issuer;
mod lines;
mod replay;
mod say;
mod schema;
mod suggest;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A governed edge proxy and sidecar for Backstage.
#[derive(Parser)]
#[command(name = "stagedoor", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a config until stopped (SIGTERM drains, SIGHUP reloads, SIGQUIT hands over).
    Run {
        /// The config file.
        #[arg(short, long, env = "STAGEDOOR_CONFIG")]
        config: PathBuf,
        /// Take over the listeners from a running process.
        #[arg(long)]
        upgrade: bool,
    },
    /// Report everything that is wrong with a config.
    Check(check::Check),
    /// Show what would happen to a request, step by step, and why.
    Explain(Box<explain::Explain>),
    /// Show what another config would have decided about recorded requests.
    Replay(replay::Replay),
    /// Search, count and verify audit records.
    Audit(audit::Audit),
    /// Propose additions to the config, from audit records.
    Suggest(suggest::Suggest),
    /// Find connections that bypass the proxy. Run it beside the proxy.
    Doctor(doctor::Doctor),
    /// Print the config's JSON Schema, or its manual.
    Schema(schema::Schema),
    /// Break things around a private copy of the proxy, one after another, and report what callers saw.
    Drill(drill::Drill),
    /// Try it: the proxy, an issuer and stand-ins on this machine, with commands to copy.
    Demo(demo::Demo),
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the command.
fn main() -> ExitCode {
    let code = run();
    // With redirected output, a part of it must not pass for all of it.
    if say::is_unwritten() { ExitCode::from(2) } else { code }
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            if error.use_stderr() {
                return ExitCode::from(2);
            }
            say::written(printed);
            return ExitCode::SUCCESS;
        }
    };
    match cli.command {
        Command::Run { config, upgrade } => {
            log_to_stderr();
            match proxy::serve::run(&config, upgrade) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    crate::say::err(format_args!("{error:#}"));
                    ExitCode::from(1)
                }
            }
        }
        Command::Check(check) => check.run(),
        Command::Explain(explain) => explain.run(),
        Command::Replay(replay) => replay.run(),
        Command::Audit(audit) => audit.run(),
        Command::Suggest(suggest) => suggest.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Schema(schema) => schema.run(),
        Command::Drill(drill) => drill.run(),
        Command::Demo(demo) => demo.run(),
    }
}

/// `1 call`, `2 calls`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The log levels of libraries, whatever the operator sets: some of them log whole heads, and so tokens.
/// Pingora logs every bad client as an error; we have records for that.
const LIBRARIES: [&str; 10] = [
    "pingora=off",
    "pingora_core=off",
    "pingora_http=off",
    "pingora_pool=off",
    "pingora_proxy=off",
    "hickory=off",
    "h2=warn",
    "hyper=warn",
    "reqwest=warn",
    "rustls=warn",
];

/// Text for people on a terminal, and one line of JSON for each event elsewhere; `STAGEDOOR_LOG_FORMAT`
/// (`text`, `json`) overrides it. `STAGEDOOR_LOG` sets the level of our own events, like `RUST_LOG`.
fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("STAGEDOOR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = LIBRARIES.iter().fold(filter, |filter, directive| {
        filter.add_directive(directive.parse().expect("it is a directive"))
    });
    let format = std::env::var("STAGEDOOR_LOG_FORMAT").unwrap_or_default();
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // If stderr is closed, reporting that there would panic.
        .log_internal_errors(false)
        .with_env_filter(filter);
    // If a logger is set already, it stays.
    let _ = match &*format {
        "text" => lines.with_ansi(is_terminal).with_target(false).try_init(),
        "" if is_terminal => lines.with_target(false).try_init(),
        _ => lines.json().flatten_event(true).try_init(),
    };
    if !["", "text", "json"].contains(&&*format) {
        tracing::warn!("STAGEDOOR_LOG_FORMAT is `text` or `json`; the log is JSON");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_flags_of_a_command_are_the_same() {
        Cli::command().debug_assert();
    }
}
