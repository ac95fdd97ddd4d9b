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
mod time;
pub mod verify;

use std::{borrow::Cow, net::IpAddr, time::Duration};

use ring::digest::{SHA256, digest};

use http::HeaderMap;

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
pub use self::time::{rfc3339, unix_of};

/// The version of the set of facts in a record. Raised when a decision begins to use another fact.
pub const FACTS: u32 = 1;

/// What the proxy observed of an exchange, beyond its [`Exchange`].
#[derive(Debug)]
pub struct Observed<'a> {
    /// When its head had been read.
    pub began: Now,
    /// The request id that client and upstream see.
    pub request_id: &'a str,
    /// The trace it belongs to (W3C trace context), if the client named one.
    pub trace_id: Option<&'a str>,
    /// The listener.
    pub listener: &'a str,
    /// The address that connected to us.
    pub peer: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host, as received.
    pub host: Option<&'a [u8]>,
    /// The path, as received; recorded only if it has no normal form.
    pub raw_path: &'a [u8],
    /// The query without its question mark. For parameters with a rule, the record says whether they were
    /// present, and with which allowed value.
    pub query: Option<&'a [u8]>,
    /// Whether it was received over TLS.
    pub tls: bool,
    /// The headers, for the few that are recorded.
    pub headers: Option<&'a HeaderMap>,
    /// The client certificate that was verified, if any.
    pub certificate: Option<&'a ClientCertificate>,
    /// The status sent to the client; 0 if none was.
    pub status: u16,
    /// Why it was refused, if it was.
    pub denial: Option<&'a Denial>,
    /// The upstream's address, if a request was sent to it.
    pub upstream_address: Option<std::net::SocketAddr>,
    /// How many times the request was sent upstream.
    pub attempts: u32,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the head to the end.
    pub took: Duration,
    /// From sending the request upstream to its response head.
    pub upstream_took: Option<Duration>,
    /// How the response was produced.
    pub served: Served,
    /// Whether the exchange was upgraded to another protocol.
    pub upgraded: bool,
    /// Whether it ended before its response was complete.
    pub cut: bool,
    /// Whether its intent has been recorded.
    pub intended: bool,
    /// The idempotency key, as received.
    pub idempotency_key: Option<&'a [u8]>,
    /// The control plane's id for what the request started (DXCP's deployment id).
    pub control_id: Option<&'a str>,
}

/// Appends the record of an exchange to `out`, as one line.
pub fn write(out: &mut Vec<u8>, policy: &Policy, exchange: &Exchange, observed: &Observed<'_>) {
    let mut line = Line(out);
    line.open();
    line.asked(policy, exchange, observed);
    line.text("decision", if observed.denial.is_some() { "deny" } else { "allow" });
    line.text("code", observed.denial.map_or("ok", Denial::code));
    line.steps(exchange.steps, observed.denial);
    if let Some(Denial::Token(fault)) = observed.denial {
        line.foreign("token_fault", &fault.to_string());
    }
    line.number("status", observed.status);
    if let Some(address) = observed.upstream_address {
        line.address("upstream_address", address.ip(), Some(address.port()));
    }
    line.number("attempts", observed.attempts);
    line.number("bytes_in", observed.bytes_in);
    line.number("bytes_out", observed.bytes_out);
    line.number("duration_us", observed.took.as_micros());
    if let Some(took) = observed.upstream_took {
        line.number("upstream_us", took.as_micros());
    }
    let Served { shared, fallback_for, pacing_delay } = observed.served;
    line.maybe("shared", shared.map(Shared::name));
    line.maybe("fallback_for", fallback_for);
    if !pacing_delay.is_zero() {
        line.number("turn_us", pacing_delay.as_micros());
    }
    if observed.upgraded {
        line.literal("upgraded", "true");
    }
    if observed.intended {
        line.literal("intended", "true");
    }
    if observed.cut {
        line.literal("cut", "true");
    }
    if let Some(key) = observed.idempotency_key {
        line.text("idempotency_key_sha256", &fingerprint(key));
    }
    if let Some(id) = observed.control_id {
        line.foreign("control_id", id);
    }
    line.text("config", &policy.digest);
    line.close();
}

/// Appends the intent of an action to `out`, as one line, before the action is sent upstream. The record of
/// the exchange, with the same id, has the outcome.
pub fn write_intent(
    out: &mut Vec<u8>,
    policy: &Policy,
    exchange: &Exchange,
    observed: &Observed<'_>,
) {
    let mut line = Line(out);
    line.open();
    line.text("kind", "intent");
    line.asked(policy, exchange, observed);
    if let Some(key) = observed.idempotency_key {
        line.text("idempotency_key_sha256", &fingerprint(key));
    }
    line.text("config", &policy.digest);
    line.close();
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
    fn asked(&mut self, policy: &Policy, exchange: &Exchange, observed: &Observed<'_>) {
        self.time("time", observed.began.unix);
        self.number("facts", FACTS);
        self.text("id", observed.request_id);
        self.maybe("trace_id", observed.trace_id);
        self.text("listener", observed.listener);
        self.address("client", exchange.client.unwrap_or(observed.peer), None);
        if observed.tls {
            self.literal("tls", "true");
        }
        self.foreign("method", observed.method);
        let whole = match observed.host.map(std::str::from_utf8) {
            Some(Ok(host)) => self.foreign("host", &target(host)),
            Some(Err(_)) => self.foreign("host", "?"),
            None => Whole::Yes,
        };
        if whole == Whole::No {
            self.literal("host_in_part", "true");
        }
        let whole = match &exchange.path {
            Some(path) => self.foreign("path", path.as_str()),
            None if observed.raw_path.is_empty() => Whole::Yes,
            None => self.foreign("path", &String::from_utf8_lossy(observed.raw_path)),
        };
        if whole == Whole::No {
            self.literal("path_in_part", "true");
        }
        self.head(policy, exchange, observed);
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
        if let Some(shown) = observed.certificate
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

    /// The headers and query parameters that a decision reads.
    fn head(&mut self, policy: &Policy, exchange: &Exchange, observed: &Observed<'_>) {
        if let Some(headers) = observed.headers {
            if crate::request::head::offers_websocket(headers) {
                self.literal("upgrade", "true");
            }
            let mut asked = headers.get_all(policy.workspaces.header()).iter();
            if let Some(asked) = asked.next() {
                self.foreign("asked_workspace", asked.to_str().unwrap_or("?"));
            }
            if asked.next().is_some() {
                self.literal("workspace_ambiguous", "true");
            }
            if let Some(asked) = policy.workspaces.cookies(headers) {
                self.foreign("cookie_workspace", std::str::from_utf8(asked.first).unwrap_or("?"));
                if asked.several {
                    self.literal("cookie_ambiguous", "true");
                }
            }
        }
        if let Some(query) = observed.query {
            self.query(exchange.route.as_ref().map(|route| &route.query), query);
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
        if call.encrypted_hello {
            self.literal("encrypted_hello", "true");
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
    fn who_asks_for_a_host_leaves_no_password() {
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
