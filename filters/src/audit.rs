//! The record of one exchange: one line of JSON, written the same way every time.
//!
//! It holds every fact that the decision used, so that `replay` can decide again. Only the fields named here
//! are written: tokens, cookies, bodies and query values have none, and text from a client that looks like a
//! token is masked.

pub mod explain;
pub mod replay;

pub mod chain;
pub mod checkpoint;
pub mod event;
mod housekeeping;
mod line;
mod mask;
mod received;
mod time;
pub mod verify;

use std::{borrow::Cow, net::IpAddr, time::Duration};

use ring::digest::{SHA256, digest};

use crate::{
    Denial, Exchange, Now, Policy,
    checks::body::{
        Operation, OperationRules,
        graphql::{self, Graphql},
    },
    denial::step::{Step, Steps},
    identity::{ClientCertificate, Proof},
    pipeline::exchange::{CallDetails, FirstBytes, Served, Shared},
    request::query::Query,
    types::hex,
};

pub use self::housekeeping::{
    write_end, write_gap, write_killed, write_pruned, write_recovery, write_segment,
};
use self::line::{Line, Whole};
pub use self::received::{CallConnection, Received};
pub use self::time::{rfc3339, unix_of};

/// The version of the set of facts in a record. Raised when a decision begins to use another fact.
pub const FACTS: u32 = 1;

/// How an exchange ended. What is known earlier is noted here as it happens.
#[derive(Debug, Default)]
pub struct Ended {
    /// The status that the client saw; 0 if it saw none.
    pub status: u16,
    /// Why it was denied, if it was.
    pub denial: Option<Denial>,
    /// The upstream's address, if a request was sent.
    pub upstream_address: Option<std::net::SocketAddr>,
    /// How many times the request was sent.
    pub attempts: u32,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the head to the end.
    pub took: Duration,
    /// From sending the request to the head of the upstream's response.
    pub upstream_took: Option<Duration>,
    /// How the response came about.
    pub served: Served,
    /// Whether it ended before its response was complete.
    pub cut: bool,
    /// Whether its intent has been recorded.
    pub intended: bool,
    /// The control plane's id for what the request started (DXCP's deployment id).
    pub control_id: Option<String>,
}

/// What the records of one exchange have in common.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// What decided.
    pub policy: &'a Policy,
    /// What was decided.
    pub exchange: &'a Exchange,
    /// The request id that client and upstream see.
    pub request_id: &'a str,
    /// What was received.
    pub received: &'a Received,
}

impl Entry<'_> {
    /// Appends the record of the exchange to `out`, as one line.
    pub fn write(&self, out: &mut Vec<u8>, ended: &Ended) {
        let mut line = Line(out);
        line.open();
        line.entry(self);
        line.text("decision", if ended.denial.is_some() { "deny" } else { "allow" });
        line.text("code", ended.denial.as_ref().map_or("ok", Denial::code));
        line.steps(self.exchange.steps, ended.denial.as_ref());
        if let Some(Denial::Token(fault)) = &ended.denial {
            line.foreign("token_fault", &fault.to_string());
        }
        line.number("status", ended.status);
        if let Some(address) = ended.upstream_address {
            line.address("upstream_address", address.ip(), Some(address.port()));
        }
        line.number("attempts", ended.attempts);
        line.number("bytes_in", ended.bytes_in);
        line.number("bytes_out", ended.bytes_out);
        line.number("duration_us", ended.took.as_micros());
        if let Some(took) = ended.upstream_took {
            line.number("upstream_us", took.as_micros());
        }
        let Served { shared, fallback_for, pacing_delay } = ended.served;
        line.maybe("shared", shared.map(Shared::name));
        line.maybe("fallback_for", fallback_for);
        if !pacing_delay.is_zero() {
            line.number("pacing_delay_us", pacing_delay.as_micros());
        }
        if ended.status == 101 {
            line.literal("upgraded", "true");
        }
        if ended.intended {
            line.literal("intended", "true");
        }
        if ended.cut {
            line.literal("cut", "true");
        }
        line.idempotency_key(self.received);
        if let Some(id) = &ended.control_id {
            line.foreign("control_id", id);
        }
        line.text("config", &self.policy.digest);
        line.close();
    }

    /// Appends the intent of an action to `out`, as one line: it is about to be sent to the upstream.
    /// The record of the exchange, with the same id, has its outcome.
    pub fn write_intent(&self, out: &mut Vec<u8>) {
        let mut line = Line(out);
        line.open();
        line.text("kind", "intent");
        line.entry(self);
        line.idempotency_key(self.received);
        line.text("config", &self.policy.digest);
        line.close();
    }
}

/// A head that never became a request.
#[derive(Debug)]
pub struct Refused<'a> {
    /// When it arrived.
    pub at: Now,
    /// The request id sent to the client.
    pub request_id: &'a str,
    /// The listener.
    pub listener: &'a str,
    /// Who sent it.
    pub peer: IpAddr,
    /// The beginning of its request line.
    pub request_line: &'a str,
    /// The code of the denial.
    pub code: &'a str,
    /// The status sent to the client; 0 if none was.
    pub status: u16,
}

/// Appends the record of a head that never became a request to `out`, as one line.
pub fn write_refused(out: &mut Vec<u8>, policy: &Policy, refused: &Refused<'_>) {
    let mut line = Line(out);
    line.open();
    line.time("time", refused.at.unix);
    line.text("id", refused.request_id);
    line.text("listener", refused.listener);
    line.address("client", refused.peer, None);
    line.foreign("request_line", &request_line(refused.request_line));
    line.text("decision", "deny");
    line.text("code", refused.code);
    line.number("status", refused.status);
    line.text("config", &policy.digest);
    line.close();
}

/// The first half of a SHA-256 in hex: enough to search for a known key, too little to recover one.
fn fingerprint(key: &[u8]) -> String {
    hex::write(&digest(&SHA256, key).as_ref()[..16])
}

/// The fingerprint of a parameter's value that is not allowed: enough to search for a known value.
pub(crate) fn refused_value(value: &str) -> String {
    format!("sha256:{}", fingerprint(value.as_bytes()))
}

/// The request target, without user information and query.
fn target(text: &str) -> Cow<'_, str> {
    let text = text.split('?').next().unwrap_or_default();
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find('/').map_or(text.len(), |at| start + at);
    match text[start..end].rfind('@') {
        Some(at) => Cow::Owned(format!("{}{}", &text[..start], &text[start + at + 1..])),
        None => Cow::Borrowed(text),
    }
}

/// The method and target, if the line is a request line; it may as well be a header, or the rest of a body.
fn request_line(line: &str) -> String {
    let (method, rest) = line.split_once(' ').unwrap_or((line, ""));
    let is_method = (1..=20).contains(&method.len())
        && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if !is_method {
        return "?".to_owned();
    }
    let asked = rest.split(' ').next().unwrap_or_default();
    format!("{method} {}", target(asked)).trim_end().to_owned()
}

impl Line<'_> {
    /// The request, its caller, and its route or rule.
    fn entry(&mut self, entry: &Entry<'_>) {
        let Entry { policy, exchange, request_id, received } = *entry;
        self.time("time", received.at.unix);
        self.number("facts", FACTS);
        self.text("id", request_id);
        self.maybe("trace_id", received.trace_id());
        self.text("listener", &policy.listeners[received.listener].name);
        self.address("client", exchange.client.unwrap_or(received.peer), None);
        if received.tls {
            self.literal("tls", "true");
        }
        self.foreign("method", received.method());
        // A call's target says it once it is known.
        let host = received.host.as_deref().filter(|_| exchange.call.is_none());
        let whole = match host.map(std::str::from_utf8) {
            Some(Ok(host)) => self.foreign("host", &target(host)),
            Some(Err(_)) => self.foreign("host", "?"),
            None => Whole::Yes,
        };
        if whole == Whole::No {
            self.literal("host_in_part", "true");
        }
        let (path, query) = received.path_and_query();
        let whole = match &exchange.path {
            Some(path) => self.foreign("path", path.as_str()),
            None if path.is_empty() => Whole::Yes,
            None => self.foreign("path", &String::from_utf8_lossy(path)),
        };
        if whole == Whole::No {
            self.literal("path_in_part", "true");
        }
        self.head(received);
        if let Some(query) = query {
            self.query(exchange.route.as_ref().map(|route| &route.query), query);
        }
        if let Some(call) = &exchange.call {
            self.call(call);
            self.maybe("identity_strength", exchange.caller.as_ref().map(|c| c.proof.strength()));
        }
        if let Some(route) = &exchange.route {
            self.text("route", &route.name);
            self.text("rule", &route.place);
            let operation = exchange.operation.as_ref();
            self.maybe("operation", operation.map(|operation| &**operation.label()));
            if let (
                Some(OperationRules::Graphql(rules)),
                Some(Operation::Graphql { operation, .. }),
            ) = (route.body.operations(), operation)
            {
                self.graphql(rules, operation);
            }
            self.text("class", exchange.class().unwrap_or(route.class).name());
            self.maybe("plugin", route.plugin.as_deref());
            self.text("upstream", &route.upstream);
        }
        self.maybe("credential", exchange.credential.as_ref().map(|shown| &*shown.name));
        self.maybe("workspace", exchange.workspace.as_ref().map(|w| &*w.name));
        if let Some(caller) = &exchange.caller {
            self.text("caller", &caller.subject);
            self.maybe("on_behalf_of", caller.on_behalf_of.as_deref());
            self.text("issuer", &caller.issuer);
            self.text("proof", caller.proof.name());
            self.list("roles", &caller.roles);
            self.list("groups", &caller.groups);
            self.list("workspaces", &caller.workspaces);
            self.maybe("default_workspace", caller.default_workspace.as_deref());
            self.list("left_out", &caller.left_out.names());
            self.maybe("caller_plugin", caller.plugin.as_deref());
        }
        let counted = |proof| matches!(proof, Proof::ClientCertificate | Proof::Listener);
        if let Some(shown) = &received.certificate
            && exchange.caller.as_ref().is_none_or(|caller| counted(caller.proof))
        {
            self.certificate(shown);
        }
    }

    /// The last check, or the one that refused and those passed before it.
    fn steps(&mut self, steps: Steps, denial: Option<&Denial>) {
        let Some(refused) = denial.map(Denial::step) else {
            return self.maybe("step", steps.last().map(Step::name));
        };
        self.text("step", refused.name());
        self.name("passed");
        self.0.push(b'[');
        for step in steps.passed(Some(refused)) {
            self.comma();
            self.quoted(step.name());
        }
        self.0.push(b']');
    }

    /// The headers that a decision reads.
    fn head(&mut self, received: &Received) {
        if received.offers_websocket {
            self.literal("upgrade", "true");
        }
        if let Some(first) = &received.workspace.first {
            self.foreign("asked_workspace", first.to_str().unwrap_or("?"));
        }
        if received.workspace.several {
            self.literal("workspace_ambiguous", "true");
        }
        if let Some(first) = &received.cookie.first {
            let first = std::str::from_utf8(first.as_bytes());
            self.foreign("cookie_workspace", first.unwrap_or("?"));
        }
        if received.cookie.several {
            self.literal("cookie_ambiguous", "true");
        }
    }

    fn idempotency_key(&mut self, received: &Received) {
        if let Some(key) = &received.idempotency_key {
            self.text("idempotency_key_sha256", &fingerprint(key.as_bytes()));
        }
    }

    /// The values of each parameter that has a rule: allowed ones as they are, others as fingerprints.
    fn query(&mut self, rules: Option<&Query>, query: &[u8]) {
        self.name("query");
        self.open();
        for (name, values) in rules.into_iter().flat_map(|rules| rules.judged(query)) {
            self.key(name);
            self.0.push(b'[');
            for value in values {
                self.comma();
                match value {
                    Ok(allowed) => self.quoted(allowed),
                    Err(refused) => self.quoted(&refused_value(&refused)),
                }
            }
            self.0.push(b']');
        }
        self.0.push(b'}');
        if std::str::from_utf8(query).is_err() {
            self.literal("query_malformed", "true");
        }
    }

    fn call(&mut self, call: &CallDetails) {
        self.foreign("target", &call.target.to_string());
        self.maybe("plugin", call.plugin.as_deref());
        self.maybe("egress_rule", call.rule.as_ref().map(|rule| &*rule.name));
        self.maybe("rule", call.rule.as_ref().map(|rule| &*rule.place));
        self.maybe("would_deny", call.would_deny);
        self.addresses("resolved", &call.found);
        self.addresses("resolved_own", &call.own);
        self.maybe("parent", call.parent.as_deref());
        if let Some(first_bytes) = &call.first_bytes {
            self.text("hello", first_bytes.name());
            if let FirstBytes::Hello(Some(server_name)) = first_bytes {
                self.foreign("server_name", server_name);
            }
        }
        if call.encrypted_client_hello {
            self.literal("encrypted_client_hello", "true");
        }
    }

    /// The root fields of an operation, with the arguments that a rule reads.
    fn graphql(&mut self, rules: &Graphql, operation: &graphql::Operation) {
        self.name("graphql");
        self.open();
        self.text("kind", operation.kind.name());
        self.name("fields");
        self.0.push(b'[');
        for field in &operation.fields {
            self.comma();
            self.open();
            self.foreign("name", &field.name);
            self.name("arguments");
            self.open();
            for argument in rules.arguments_of(operation.kind, &field.name) {
                self.key(argument);
                match field.text(argument) {
                    Some(text) => _ = self.foreign_value(&text),
                    None => self.0.extend_from_slice(b"null"),
                }
            }
            self.0.extend_from_slice(b"}}");
        }
        self.0.extend_from_slice(b"]}");
    }

    fn certificate(&mut self, shown: &ClientCertificate) {
        self.name("certificate");
        self.open();
        self.maybe("common_name", shown.common_name.as_deref());
        self.list("uris", &shown.uris);
        self.list("dns", &shown.dns);
        self.list("emails", &shown.emails);
        self.maybe("sha256", shown.fingerprint.as_deref());
        self.0.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_host_is_recorded_without_a_password() {
        assert_eq!(target("user:pass@a.example:443"), "a.example:443");
        assert_eq!(target("http://user:p@ss@a.example/x@y?token=1"), "http://a.example/x@y");
        assert_eq!(target("a.example:443"), "a.example:443");
        assert_eq!(target("https://a.example/"), "https://a.example/");
        let check = |line: &str, expected: &str| assert_eq!(request_line(line), expected);
        check("GET http://user:pass@a.example/x HTTP/1.1", "GET http://a.example/x");
        check("CONNECT user:pass@a.example:443 HTTP/1.1", "CONNECT a.example:443");
        check("GET /users/@me?token=1 HTTP/1.1", "GET /users/@me");
        check("GET", "GET");
        check("Authorization: Bearer x", "?");
        check("{\"password\": \"x\"}", "?");
        check("password=x GET /", "?");
    }
}
