//! The current state of a request's breaker and limits in a running process.

use std::{fmt::Write, sync::Arc, time::Duration};

use filters::{Label, audit::rfc3339, guard::Guard};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use proxy::net::{
    dial::Dial,
    fetch::{self, Endpoint},
};

/// The response of a running process.
#[derive(Default)]
pub(super) struct Running {
    /// In lines, as the steps of a decision.
    pub(super) text: String,
    /// Whether it would refuse the request for it.
    pub(super) refuses: bool,
}

#[derive(Deserialize)]
struct Standing {
    config: String,
    breaker: Breaker,
    limits: Vec<Limit>,
}

#[derive(Deserialize)]
struct Breaker {
    upstream: String,
    plugin: Option<String>,
    host: Option<String>,
    part: Option<String>,
    position: String,
    cause: Option<String>,
    since: Option<u64>,
    for_seconds: Option<f64>,
    tried_in_seconds: Option<f64>,
}

#[derive(Deserialize)]
struct Limit {
    scope: String,
    name: String,
    kind: String,
    of: Option<String>,
    burst: u32,
    left: Option<u32>,
    next_in_seconds: f64,
    /// `whole_in_seconds` in the version before.
    #[serde(alias = "whole_in_seconds")]
    full_in_seconds: Option<f64>,
    shared: bool,
}

/// Queries the admin listener at `admin` about a request, if it reaches the rate limits.
pub(super) fn asked(
    admin: &str,
    config: &config::Config,
    digest: &Label,
    about: Option<&[(&'static str, String)]>,
) -> Result<Running, String> {
    let mut running = Running::default();
    let Some(about) = about else {
        running.line("right now", "not queried: the request is refused before it counts anywhere");
        return Ok(running);
    };
    let text = if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
    let base: config::Url = text.parse().map_err(|why| format!("--admin: {why}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let standing = runtime.block_on(get(&base, config, about))?;
    if standing.config != **digest {
        let other = format!(
            "`{base}` runs a different config ({}) from this one ({digest})",
            standing.config
        );
        running.line("right now", &other);
    }
    running.breaker(&standing.breaker);
    standing.limits.iter().for_each(|limit| running.limit(limit));
    let over = standing.limits.iter().any(|limit| limit.left == Some(0));
    let verdict = match (over, &*standing.breaker.position) {
        (true, _) => "deny 429 rate_limited",
        (false, "open") => "deny 503 breaker_open",
        (false, "half_open") => "a few requests try the upstream, others get 503 breaker_open",
        (false, _) => "neither breaker nor limits refuse it",
    };
    running.refuses = over || standing.breaker.position == "open";
    running.line("verdict now", verdict);
    Ok(running)
}

async fn get(
    base: &config::Url,
    config: &config::Config,
    about: &[(&'static str, String)],
) -> Result<Standing, String> {
    let encode = |(name, value): &(&str, String)| {
        format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
    };
    let query: Vec<String> = about.iter().map(encode).collect();
    let query = query.join("&");
    let dial = Dial::asking(&config.process.name_servers);
    let guard = Arc::new(Guard::new(&config.egress));
    let client = fetch::client(&dial, &guard, &Endpoint::told(base), None)?;
    let shown = format!("{base}/quota-status");
    let mut answer = client.send(client.get(format!("{shown}?{query}")), &shown).await?;
    if answer.status().as_u16() == 404 {
        // What the version before called it.
        let old = format!("{base}/standing");
        answer = client.send(client.get(format!("{old}?{query}")), &old).await?;
    }
    let status = answer.status().as_u16();
    let body = fetch::body(answer, &shown).await?;
    match status {
        200 => serde_json::from_slice(&body)
            .map_err(|_| format!("`{shown}` is not an admin listener of this version")),
        422 => {
            let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            Err(format!("`{shown}`: {}", said["messages"][0].as_str().unwrap_or("422")))
        }
        404 => Err(format!(
            "`{shown}` responded with 404; name an `admin` listener of a process of this version"
        )),
        _ => Err(format!("`{shown}` responded with {status}")),
    }
}

impl Running {
    fn line(&mut self, step: &str, found: &str) {
        let _ = writeln!(self.text, "{step:<12} {found}");
    }

    fn breaker(&mut self, breaker: &Breaker) {
        let mut text = format!("of upstream `{}`", breaker.upstream);
        for (what, name) in
            [("plugin", &breaker.plugin), ("host", &breaker.host), ("part", &breaker.part)]
        {
            if let Some(name) = name {
                let _ = write!(text, ", {what} `{name}`");
            }
        }
        let _ = write!(text, ": {}", breaker.position);
        if let Some((since, lasts)) = breaker.since.zip(breaker.for_seconds) {
            let since = rfc3339(Duration::from_secs(since));
            let since = String::from_utf8_lossy(&since[..19]);
            let _ = write!(text, " since {since}Z ({})", span(lasts));
        }
        let why = match breaker.cause.as_deref() {
            Some("no_response" | "silence") => ", because it does not respond (`no_response`)",
            Some("failures" | "answers") => ", because it responds with failures (`failures`)",
            _ => "",
        };
        text.push_str(why);
        if breaker.position == "open" {
            let tried = span(breaker.tried_in_seconds.unwrap_or_default());
            let _ = match breaker.cause.as_deref() {
                Some("no_response" | "silence") => write!(
                    text,
                    "; it is probed every second, and requests try it in {tried} at the latest"
                ),
                _ => write!(text, "; requests try it in {tried}"),
            };
        }
        self.line("breaker now", &text);
    }

    fn limit(&mut self, limit: &Limit) {
        let mut text = format!("{} `{}`", limit.scope, limit.name);
        if let Some(of) = &limit.of {
            let _ = write!(text, ", {} `{of}`", limit.kind);
        }
        let _ = match limit.left {
            Some(left) => write!(text, ": {left} of {} left", limit.burst),
            None => write!(text, ": this replica has not queried the store about it yet"),
        };
        if limit.left == Some(0) {
            let _ = write!(text, ", one more in {}", span(limit.next_in_seconds));
        }
        if let Some(full) = limit.full_in_seconds.filter(|full| *full > 0.0) {
            let _ = write!(text, ", all of them in {}", span(full));
        }
        if limit.shared && limit.left.is_some() {
            text.push_str("; replicas share it, and this is what this replica knows");
        }
        self.line("limit now", &text);
    }
}

/// A time as a person reads it.
fn span(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{:.0} ms", (seconds * 1000.0).ceil());
    }
    format!("{:.0} s", seconds.ceil())
}
