//! `stagedoor doctor`: which clients go past the proxy, and what they lack.

mod expected;
mod listeners;
mod node;
mod processes;
mod report;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use self::{
    expected::{Exception, Expected},
    report::Report,
    watch::Watch,
};
use proxy::{lifecycle::reload, net::dial::Dial};

/// Find connections that bypass the proxy. Run it beside the proxy, in the same pod. Exit code 3 if there are
/// any.
#[derive(Args)]
pub(super) struct Doctor {
    /// The config file: used to check that its forward listeners respond, and to name the proxy that clients
    /// should use.
    #[arg(short, long, env = "STAGEDOOR_CONFIG")]
    config: Option<PathBuf>,
    /// How long to watch.
    #[arg(long = "for", default_value = "10s")]
    time: config::Duration,
    /// Allowed direct connections, as `host:port` or `10.2.0.0/16:5432`. May be repeated.
    #[arg(long)]
    expect: Vec<Exception>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The exit code if connections bypass the proxy.
const BYPASSED: u8 = 3;

impl Doctor {
    pub(super) fn run(self) -> ExitCode {
        match self.examined() {
            Ok(report) => {
                super::say::text(&if self.json { report.json() } else { report.text() });
                ExitCode::from(if report.bypasses.is_empty() { 0 } else { BYPASSED })
            }
            Err(message) => {
                crate::say::err(format_args!("{message}"));
                ExitCode::from(2)
            }
        }
    }

    fn examined(&self) -> Result<Report, String> {
        let loaded = match &self.config {
            Some(path) => Some(reload::load(path).map_err(|problems| problems.to_string())?),
            None => None,
        };
        let config = loaded.as_ref().map(|loaded| &loaded.config);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let servers = config.map(|config| &*config.process.name_servers).unwrap_or_default();
            let dial = Dial::asking(servers);
            let expected = Expected::resolve(&self.expect, &dial).await?;
            let listeners = config.map(listeners::forward).unwrap_or_default();
            let mut watch = Watch::new(expected, &listeners, &dial);
            watch.run(*self.time).await?;
            let answers = listeners::ask(&listeners, &dial).await;
            Ok(Report::of(watch, &listeners, &answers, &dial.own_addresses()))
        })
    }
}
