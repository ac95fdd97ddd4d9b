//! `stagedoor check`: everything that is wrong with a config.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{reload, tls};

/// Tell everything that is wrong with a config. Exit code 1 if something is.
#[derive(Args)]
pub(super) struct Check {
    /// The config file.
    #[arg(short, long, env = "STAGEDOOR_CONFIG")]
    config: PathBuf,
    /// How to tell.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Also read the files it names: certificates, keys and secrets.
    #[arg(long)]
    files: bool,
    /// Let warnings count as problems.
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// `file:line:column: message`, one a line.
    Text,
    /// One object with `problems` and `warnings`.
    Json,
}

impl Check {
    pub(super) fn run(self) -> ExitCode {
        let (problems, warnings): (Vec<config::Problem>, Vec<config::Problem>) =
            match reload::load(&self.config) {
                Err(problems) => (problems.iter().cloned().collect(), Vec::new()),
                Ok(loaded) => {
                    let warnings = loaded.warnings.iter().cloned().collect();
                    let problems = if self.files { unusable(loaded) } else { Vec::new() };
                    (problems, warnings)
                }
            };
        match self.format {
            Format::Text => {
                problems.iter().for_each(|problem| println!("{problem}"));
                warnings.iter().for_each(|warning| {
                    println!("{}: warning: {}", warning.place, warning.message)
                });
                if problems.is_empty() {
                    println!("{}: valid", self.config.display());
                }
            }
            Format::Json => println!("{:#}", json!({"problems": problems, "warnings": warnings})),
        }
        let fine = problems.is_empty() && (warnings.is_empty() || !self.strict);
        ExitCode::from(u8::from(!fine))
    }
}

/// Files that a valid config names and that cannot be used.
fn unusable(loaded: config::Loaded) -> Vec<config::Problem> {
    let mut problems = config::Problems::default();
    for (name, listener) in &loaded.config.listeners {
        if let Some(written) = &listener.tls
            && let Err(error) = tls::certificates(name, written)
        {
            problems.add(&written.place, error.to_string());
        }
    }
    for issuer in loaded.config.identity.issuers.values() {
        let keys = &issuer.keys;
        for file in [&keys.file, &keys.secret_file, &keys.ca].into_iter().flatten() {
            if let Err(error) = std::fs::read(&file.value) {
                let shown = file.value.display();
                problems.add(&file.place, format!("cannot read `{shown}`: {error}"));
            }
        }
    }
    for upstream in loaded.config.upstreams.values() {
        let tls = &upstream.tls;
        if let Some(ca) = &tls.ca
            && let Err(error) = certs::roots(ca)
        {
            problems.add(&ca.place, error.to_string());
        }
        if let (Some(cert), Some(key)) = (&tls.client_cert, &tls.client_key)
            && let Err(error) = certs::client_pair(cert, key)
        {
            problems.add(&cert.place, error.to_string());
        }
    }
    problems.iter().cloned().collect()
}
