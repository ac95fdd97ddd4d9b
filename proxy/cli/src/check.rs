//! `stagedoor check`: everything that is wrong with a config.

mod online;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use certs::LoadError;
use clap::{Args, ValueEnum};
use config::Place;
use serde_json::json;

use self::online::Online;
use proxy::{
    data_plane::listener::tls,
    identity::{jwks, opaque_tokens},
    lifecycle::reload,
    net::parent,
    observability::audit::{chain::Signing, ship::Secrets},
    replicas::store,
    secret_file, serve,
    upstream::{self, credentials},
};

/// Report everything that is wrong with a config. Exit code 1 if anything is.
#[derive(Args)]
pub(super) struct Check {
    /// The config file.
    #[arg(short, long, env = "STAGEDOOR_CONFIG")]
    config: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Also read the files that it names: certificates, keys and secrets.
    #[arg(long)]
    files: bool,
    /// Also contact the systems that it names, as the running proxy would: fetch each issuer's discovery
    /// document and keys, and connect to each upstream. Takes at most 10 s. What contradicts the config is a
    /// problem; what cannot be reached from here is a warning.
    #[arg(long)]
    online: bool,
    /// Also check a control source's response: a file in the format given by `control.format`.
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,
    /// Treat warnings as problems.
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// `file:line:column: message`, one per line.
    Text,
    /// One object with `problems` and `warnings`.
    Json,
}

impl Check {
    pub(super) fn run(self) -> ExitCode {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let mut answers = None;
        match reload::load_with(&self.config, self.control.as_deref()) {
            Err(found) => problems.extend(found.iter().cloned()),
            Ok(loaded) => {
                warnings.extend(loaded.warnings.iter().cloned());
                if self.files {
                    problems.extend(unusable(&loaded));
                }
                if self.online {
                    let online = Online::ask(&Arc::new(loaded.config));
                    problems.extend(online.problems.iter().cloned());
                    warnings.extend(online.warnings.iter().cloned());
                    answers = Some(online.answers);
                }
            }
        }
        match self.format {
            Format::Text => {
                problems.iter().for_each(|problem| crate::say::out(format_args!("{problem}")));
                warnings.iter().for_each(|warning| {
                    crate::say::out(format_args!("{}: warning: {}", warning.place, warning.message))
                });
                let answers = answers.as_deref().unwrap_or_default();
                let reached = answers.iter().filter(|answer| answer.well);
                reached.for_each(|answer| crate::say::out(format_args!("{answer}")));
                if answers.iter().any(|answer| !answer.not_checked.is_empty()) {
                    crate::say::out(format_args!(
                        "not checked: `audiences`, which needs a token; check one with `stagedoor explain -H 'authorization: Bearer ...'`"
                    ));
                }
                if problems.is_empty() {
                    crate::say::out(format_args!("{}: valid", self.config.display()));
                }
            }
            Format::Json => {
                let mut found = json!({"problems": problems, "warnings": warnings});
                if let Some(answers) = answers {
                    found["online"] = json!(answers);
                }
                crate::say::out(format_args!("{found:#}"));
            }
        }
        let fine = problems.is_empty() && (warnings.is_empty() || !self.strict);
        ExitCode::from(u8::from(!fine))
    }
}

/// Files that a valid config names and that cannot be used. Each is read as `run` reads it.
fn unusable(loaded: &config::Loaded) -> Vec<config::Problem> {
    let config = &loaded.config;
    let mut found: Vec<(&Place, LoadError)> = Vec::new();
    for tls in config.listeners.values().filter_map(|listener| listener.tls.as_ref()) {
        for pair in &tls.certificates {
            let error = certs::pair(&pair.cert, &pair.key).err();
            found.extend(of_pair(error, &pair.cert, &pair.key).map(|error| (&tls.place, error)));
        }
        let ca = tls.client_ca.iter();
        found.extend(ca.filter_map(|ca| Some((&ca.place, tls::clients(tls).err()?))));
    }
    for keys in config.identity.issuers.values().map(|issuer| &issuer.keys) {
        found.extend(keys.file.iter().filter_map(|f| Some((&f.place, jwks::set(f).err()?))));
        found.extend(
            keys.secret_file.iter().filter_map(|f| Some((&f.place, jwks::secret(f).err()?))),
        );
        found.extend(keys.ca.iter().filter_map(|f| Some((&f.place, certs::roots(f).err()?))));
        let token = keys.token_file.iter();
        found.extend(token.filter_map(|f| Some((&f.place, secret_file::token(f).err()?))));
    }
    for token in config.identity.tokens.values() {
        let file = token.file().into_iter();
        found.extend(file.filter_map(|f| Some((&f.place, opaque_tokens::of(token).err()?))));
    }
    for credential in config.credentials.values() {
        let file = credential.secret_file().into_iter();
        found.extend(file.filter_map(|f| Some((&f.place, credentials::secret(credential).err()?))));
        let ca = credential.ca.iter();
        found.extend(ca.filter_map(|f| Some((&f.place, certs::roots(f).err()?))));
    }
    if let Some(written) = &config.control {
        let token = written.token_file.iter();
        found.extend(token.filter_map(|f| Some((&f.place, secret_file::token(f).err()?))));
        let ca = written.ca.iter();
        found.extend(ca.filter_map(|f| Some((&f.place, certs::roots(f).err()?))));
    }
    if let Some(written) = &config.store {
        let wrong = store::files(written).err();
        found.extend(wrong.map(|error| (&written.place, error)));
    }
    for own in config.upstreams.values().filter_map(|upstream| upstream.idempotency.as_ref()) {
        let error = upstream::scope(own).err();
        found.extend(error.map(|error| (&own.secret_file.place, error)));
    }
    for tls in config.upstreams.values().map(|upstream| &upstream.tls) {
        found.extend(
            tls.ca.iter().filter_map(|f| Some((&f.place, certs::ca_certificates(f).err()?))),
        );
        if let (Some(cert), Some(key)) = (&tls.client_cert, &tls.client_key) {
            let error = certs::client_pair(cert, key).err();
            found.extend(of_pair(error, cert, key).map(|error| (&cert.place, error)));
        }
    }
    for ship in config.audit.ship.values() {
        found.extend(Secrets::read(ship).err().map(|error| (&ship.place, error)));
    }
    let passwords = config.egress.callers.values().map(|caller| &caller.password_file);
    found.extend(passwords.filter_map(|f| Some((&f.place, reload::password(f).err()?))));
    if let Some(parent) = &config.egress.parent {
        let file = parent.password_file.iter();
        found.extend(file.filter_map(|f| Some((&f.place, parent::password(f).err()?))));
        let ca = parent.ca.iter();
        found.extend(ca.filter_map(|f| Some((&f.place, certs::roots(f).err()?))));
    }
    let key = config.headers.assertion_key.iter();
    found.extend(key.filter_map(|f| Some((&f.place, serve::assertions(&config.headers).err()?))));
    let signed = config.audit.checkpoints.iter();
    found.extend(signed.filter_map(|c| Some((&c.key_file.place, Signing::new(c).err()?))));
    let mut problems = config::Problems::default();
    found.into_iter().for_each(|(place, error)| problems.add(place, error.to_string()));
    problems.iter().cloned().collect()
}

/// What is wrong with a certificate and its key. A fault in the certificate hides one in the key.
fn of_pair(
    error: Option<LoadError>,
    cert: &Path,
    key: &Path,
) -> impl Iterator<Item = LoadError> + use<> {
    let of_cert = error.as_ref().is_some_and(|error| error.file == cert);
    let of_key = of_cert.then(|| certs::key(key).err()).flatten();
    error.into_iter().chain(of_key)
}
