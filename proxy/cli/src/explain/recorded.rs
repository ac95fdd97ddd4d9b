//! One exchange or call that is on record, from its first byte to the verdict, and what would turn it.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use filters::{
    Policy, Replay,
    explain::verdict,
    replay::{
        Was,
        record::{Record, Text},
        turn::{settled, turns},
    },
};

use crate::lines;
use proxy::{lifecycle::reload, observability::audit::read::Line};

/// The records of an id.
#[derive(Default)]
struct Found {
    /// The line of the exchange; the last, if a client used its id again.
    outcome: Option<Vec<u8>>,
    outcomes: u64,
    /// When its intent was recorded.
    intent: Option<Vec<u8>>,
    /// Whether a later process reports its outcome as unknown.
    unknown: bool,
}

pub(super) fn explained(
    id: &str,
    paths: &[PathBuf],
    config: Option<&Path>,
) -> Result<String, String> {
    let found = find(id, paths)?;
    let mut out = String::new();
    let Some(line) = found.outcome.as_ref().or(found.intent.as_ref()) else {
        return Err(format!("no record has the id `{}`", id.escape_debug()));
    };
    let record = Record::read(line).expect("it was read before");
    if found.outcomes > 1 {
        step(
            &mut out,
            "note",
            &format!("{} records have this id; this is the last", found.outcomes),
        );
    }
    describe(&mut out, &record, &found);
    if let Some(config) = config
        && found.outcome.is_some()
    {
        now(&mut out, &record, config)?;
    }
    Ok(out)
}

fn find(id: &str, paths: &[PathBuf]) -> Result<Found, String> {
    let mut found = Found::default();
    let quoted = format!("\"{id}\"");
    let needle = memchr::memmem::Finder::new(quoted.as_bytes());
    lines::each(paths, |line| {
        let Line::Whole(line) = line else { return };
        if needle.find(line).is_none() {
            return;
        }
        let Some(record) = Record::read(line) else { return };
        match record.kind.as_deref() {
            None if *record.id == *id => {
                found.outcome = Some(line.to_vec());
                found.outcomes += 1;
            }
            Some("intent") if *record.id == *id => found.intent = Some(line.to_vec()),
            Some("recovery") => found.unknown = true,
            _ => {}
        }
    })?;
    Ok(found)
}

fn step(out: &mut String, name: &str, found: &str) {
    let _ = writeln!(out, "{name:<12} {found}");
}

/// Nothing that could turn a terminal's text around.
fn plain(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            ' '..='~' => out.push(c),
            _ => out.extend(c.escape_unicode()),
        }
        out
    })
}

/// Lines that describe a record. Its content comes from clients, and is escaped.
struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn say(&mut self, name: &str, text: String) {
        if !text.is_empty() {
            step(self.0, name, &plain(&text));
        }
    }
}

fn text(text: &Option<Text<'_>>) -> String {
    text.as_deref().unwrap_or_default().to_owned()
}

fn list(name: &str, all: &[Text<'_>]) -> String {
    match all {
        [] => String::new(),
        all => format!(", {name} [{}]", all.iter().map(|t| &**t).collect::<Vec<_>>().join(", ")),
    }
}

fn when(text: &str, yes: bool) -> String {
    if yes { text.to_owned() } else { String::new() }
}

/// A route's or rule's name, and where it is written.
fn at(record: &Record<'_>, name: &Option<Text<'_>>) -> String {
    match (name, &record.rule) {
        (Some(name), Some(place)) => format!("{name}, at {place}"),
        (Some(name), None) => name.to_string(),
        _ => String::new(),
    }
}

/// The record, from the first byte to the verdict.
fn describe(out: &mut String, record: &Record<'_>, found: &Found) {
    let mut out = Lines(out);
    request(&mut out, record);
    out.say("route", at(record, &record.route));
    out.say("class", text(&record.class));
    out.say("operation", text(&record.operation));
    caller(&mut out, record);
    call(&mut out, record);
    dispatch(&mut out, record, found);
    end(&mut out, record, found);
}

/// What was received.
fn request(out: &mut Lines<'_>, record: &Record<'_>) {
    let trace = record.trace_id.as_ref().map(|trace| format!(", trace {trace}"));
    out.say("record", format!("{} at {}{}", record.id, record.time, trace.unwrap_or_default()));
    let tls = if record.tls { "over TLS" } else { "without TLS" };
    out.say("client", format!("{} on listener `{}`, {tls}", record.client, record.listener));
    out.say("head", text(&record.request_line));
    let host = record.host.as_ref().map(|host| format!(" of {host}"));
    let asked = record.path.as_deref().or(record.target.as_deref()).unwrap_or_default();
    out.say(
        "request",
        format!("{} {asked}{}", record.method, host.unwrap_or_default()).trim().to_owned(),
    );
    let part = record.path_in_part || record.host_in_part;
    out.say("", when("(in part: too long, or it contained something like a token)", part));
    out.say("", when("to switch protocols", record.upgrade));
    if let Some(query) = &record.query {
        let of = |(name, values): &(Text<'_>, Vec<Text<'_>>)| match &values[..] {
            [] => format!("{name} not there"),
            values => {
                format!("{name} = {}", values.iter().map(|v| &**v).collect::<Vec<_>>().join(", "))
            }
        };
        let judged: Vec<String> = query.0.iter().map(of).collect();
        out.say(
            "query",
            if judged.is_empty() { "one that no rule reads".into() } else { judged.join("; ") },
        );
    }
}

/// Who called, and for which workspace.
fn caller(out: &mut Lines<'_>, record: &Record<'_>) {
    if let Some(caller) = &record.caller {
        let behalf = record.on_behalf_of.as_ref().map(|user| format!(" on behalf of {user}"));
        let plugin = record.caller_plugin.as_ref().map(|plugin| format!(", plugin {plugin}"));
        out.say(
            "caller",
            format!(
                "{caller}{} by {} ({}){}{}{}{}",
                behalf.unwrap_or_default(),
                text(&record.issuer),
                text(&record.proof),
                list("roles", &record.roles),
                list("groups", &record.groups),
                list("workspaces", &record.workspaces),
                plugin.unwrap_or_default(),
            ),
        );
    }
    out.say("plugin", text(&record.plugin));
    let asked = match &record.asked_workspace {
        Some(asked) if record.workspace_ambiguous => format!("requested `{asked}`, and another"),
        Some(asked) => format!("requested `{asked}`"),
        None => String::new(),
    };
    let workspace = text(&record.workspace);
    out.say(
        "workspace",
        [workspace, asked].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(", "),
    );
}

/// What is recorded of a call on a forward listener alone.
fn call(out: &mut Lines<'_>, record: &Record<'_>) {
    out.say("egress rule", at(record, &record.egress_rule));
    let own = list("of this machine", &record.resolved_own);
    let resolved = list("", &record.resolved);
    out.say("resolved", format!("{}{own}", resolved.trim_start_matches([',', ' '])));
    let named = record.server_name.as_ref().map(|name| format!(" for {name}"));
    let hidden = when(", another name may be hidden", record.encrypted_client_hello);
    out.say(
        "hello",
        record
            .hello
            .as_ref()
            .map(|hello| format!("{hello}{}{hidden}", named.unwrap_or_default()))
            .unwrap_or_default(),
    );
    out.say("would deny", text(&record.would_deny));
}

/// The checks, and what was sent to the upstream.
fn dispatch(out: &mut Lines<'_>, record: &Record<'_>, found: &Found) {
    out.say("checks", record.checks().unwrap_or_default());
    let intent = found.intent.as_deref().and_then(Record::read);
    out.say(
        "intent",
        intent.map(|intent| format!("on disk since {}", intent.time)).unwrap_or_default(),
    );
    out.say("credential", text(&record.credential));
    out.say("shared", text(&record.shared));
    if record.attempts > 0 || record.upstream_address.is_some() {
        let name = record.upstream.as_ref().or(record.target.as_ref());
        let took = record.upstream_us.map(|us| format!(", responded after {us} us"));
        let turn = when(
            &format!(", waited {} us for its turn", record.pacing_delay_us),
            record.pacing_delay_us > 0,
        );
        out.say(
            "upstream",
            format!(
                "{} at {}, {} attempt(s){}{turn}",
                name.map_or("", |name| &**name),
                record.upstream_address.as_deref().unwrap_or("?"),
                record.attempts,
                took.unwrap_or_default(),
            ),
        );
    } else {
        out.say("upstream", when("not sent", found.outcome.is_some()));
    }
    out.say("control id", text(&record.control_id));
}

/// How it ended.
fn end(out: &mut Lines<'_>, record: &Record<'_>, found: &Found) {
    if found.outcome.is_none() {
        let what =
            if found.unknown { "unknown: the process ended first" } else { "not yet recorded" };
        out.say("outcome", what.to_owned());
        out.say("config", record.config.to_string());
        return;
    }
    let took = record.duration_us.map(|us| format!(", {us} us in all"));
    let cut = when(", cut off before its end", record.cut);
    out.say(
        "response",
        format!(
            "{}, {} bytes in, {} bytes out{}{cut}",
            record.status,
            record.bytes_in,
            record.bytes_out,
            took.unwrap_or_default()
        ),
    );
    let why = lacked(&record.code).map(|why| format!(": {why}")).unwrap_or_default();
    out.say("verdict", format!("{} {}{why}", record.decision, record.code));
    out.say("config", record.config.to_string());
}

/// The explanation of a code that the record does not contain otherwise.
fn lacked(code: &str) -> Option<&'static str> {
    Some(match code {
        "caller_missing" => "no token and no accepted client certificate",
        "token_malformed" => "it is not a token: not three parts, or not JSON",
        "token_too_large" => "the token is larger than any issuer's",
        "token_algorithm_refused" => "its `alg` is not among the issuer's `algorithms`",
        "token_header_refused" => "its header tries to choose its own key or rules",
        "token_type_wrong" => "its `typ` is not among the issuer's `token_types`",
        "token_issuer_unknown" => "no issuer is configured for its `iss`",
        "token_key_unknown" => "the issuer has no key with its `kid`",
        "token_signature_wrong" => "the signature is not that of the issuer's key",
        "token_audience_wrong" => "its `aud` is not among the issuer's `audiences`",
        "token_party_wrong" => "its `azp` is not among the issuer's `authorized_parties`",
        "token_expired" => "its `exp` had passed; a new token would be accepted",
        "token_not_yet_valid" => "its `nbf` or `iat` was in the future: compare the clocks",
        "token_claim_missing" => "a required claim was missing (`exp`, `iss`, or the subject's)",
        "password_wrong" => "the password did not match the caller",
        "rate_limited" => {
            "a limit was used up: `rate_limit`, the workspace's, the plugin's or the route's own"
        }
        "limits_unavailable" => {
            "the store that counts limits was unreachable, and `store.on_error` is `closed`"
        }
        "switched_off" => {
            "an operator had switched it off; the lines of `kind` switch say who and why"
        }
        "breaker_open" => {
            "the upstream's breaker was open after failures: `upstreams.*.breaker`; the lines of `kind` breaker say since when, and whether the upstream did not respond (`no_response`) or responded with failures (`failures`)"
        }
        "body_slow" => "the client sent its body too slowly: the listener's `limits.rate_min`",
        "client_slow" => {
            "the client read the response too slowly, or stopped: the listener's `limits.rate_min` and `write_timeout`"
        }
        "upstream_slow" => "the upstream sent its response too slowly: `timeouts.rate_min`",
        "pace_exceeded" => "the wait for the upstream's pace was too long: `upstreams.*.pace`",
        "tunnels_exhausted" => "too many concurrent tunnels: `egress.tunnels_max`",
        "idempotency_in_flight" => "an exchange with the same `Idempotency-Key` was in flight",
        "audit_unavailable" => "it could not be recorded: check the disk of `audit.directory`",
        _ => return None,
    })
}

/// What the config would decide now, and which changes turn that.
fn now(out: &mut String, record: &Record<'_>, path: &Path) -> Result<(), String> {
    let loaded = reload::load(path).map_err(|problems| problems.to_string())?;
    let digest = reload::digest(&loaded);
    let mut replay = Replay::new(Policy::new(&loaded.config, &digest));
    out.push('\n');
    let other = if *record.config == *digest { "the same" } else { "a different one from then" };
    step(out, "now", &format!("config {digest}, {other}"));
    let decided = match replay.decide(record) {
        Ok(decided) => decided,
        Err(why) => {
            step(out, "", &format!("not decided again: {}", why.sentence()));
            if record.was() == Was::State {
                step(out, "", "no rule refused it");
            }
            return Ok(());
        }
    };
    step(out, "verdict", &verdict(&decided.exchange, decided.denial.as_ref()));
    if let Some(unjudged) = decided.unjudged {
        step(out, "", &format!("{unjudged}: not recorded, and so not decided"));
    }
    let what = if decided.denial.is_some() { "allow it" } else { "deny it" };
    let turns = turns(&loaded.config, record, &decided);
    if !turns.is_empty() {
        step(out, "to turn", &format!("each of these alone would {what}; the narrowest first"));
    }
    for turn in &turns {
        let place = if turn.place.is_empty() { "" } else { &*format!("{}  ", turn.place) };
        step(out, "", &format!("{place}{}", turn.change));
        if let Some(unsettled) = turn.unsettled {
            step(out, "", &format!("  not recorded, and so undecided: {unsettled}"));
        }
    }
    match settled(&loaded.config, &decided) {
        Some(why) => step(out, if turns.is_empty() { "to turn" } else { "" }, &why),
        None if turns.is_empty() => {
            step(out, "to turn", &format!("no single change that was tried would {what}"));
        }
        None => {}
    }
    Ok(())
}
