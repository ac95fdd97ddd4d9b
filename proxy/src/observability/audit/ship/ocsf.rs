//! A record as an event of the Open Cybersecurity Schema Framework.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The version of the schema.
const VERSION: &str = "1.5.0";

/// The event of a line, in ASCII.
pub(super) fn event(line: &[u8]) -> String {
    let read: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let rest = Record(read);
    let event = match rest.text("kind").as_deref() {
        None | Some("intent") => activity(rest, line),
        Some(_) => of_the_log(rest, line),
    };
    ascii(&event.to_string())
}

/// When something was, in milliseconds since 1970.
pub(super) fn milliseconds(time: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// JSON with everything escaped that is not visible ASCII, so that no name can turn a terminal's or
/// a log viewer's text around.
pub(super) fn ascii(json: &str) -> String {
    // Nearly always there is nothing to do.
    if json.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if (' '..='~').contains(&c) {
            out.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            write!(out, "\\u{unit:04x}").expect("a string takes all that is written");
        }
    }
    out
}

/// What of a record has no place yet.
struct Record(Map<String, Value>);

impl Record {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    /// Takes a member that has a field in OCSF.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name)
    }

    fn take_text(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        self.0.shift_remove(name);
        Some(text)
    }
}

/// A request: API Activity.
fn activity(mut record: Record, line: &[u8]) -> Value {
    let intended = record.text("kind").is_some();
    let method = record.text("method").unwrap_or_default();
    let activity = match &*method {
        "POST" => 1,
        "GET" | "HEAD" | "OPTIONS" => 2,
        "PUT" | "PATCH" => 3,
        "DELETE" => 4,
        _ => 99,
    };
    let denied = record.take_text("decision").map(|decision| decision == "deny");
    let status = record.take("status").and_then(|status| status.as_i64());
    let code = record.take_text("code");
    let went_well =
        denied == Some(false) && status.is_some_and(|status| (1..400).contains(&status));
    let mut event = common(&mut record, line, 6003, 6, activity);
    let severity = if denied == Some(true) { 3 } else { 1 };
    event.insert("severity_id".to_owned(), json!(severity));
    let (status_id, action, disposition) = match denied {
        None => (0, 0, 0),
        Some(true) => (2, 2, 2),
        Some(false) => (if went_well { 1 } else { 2 }, 1, 1),
    };
    event.insert("status_id".to_owned(), json!(status_id));
    event.insert("action_id".to_owned(), json!(action));
    event.insert("disposition_id".to_owned(), json!(disposition));
    put(&mut event, "status_code", code.clone().map(Value::from));
    if intended {
        event.insert("message".to_owned(), json!("about to be sent to the upstream"));
    }
    if let Some(took) = record.0.get("duration_us").and_then(Value::as_i64) {
        event.insert("duration".to_owned(), json!(took / 1000));
    }
    event.insert("actor".to_owned(), actor(&mut record));
    let service = record.text("upstream").or_else(|| record.text("target"));
    let operation = [record.text("operation"), record.text("route"), record.text("path")];
    let operation = operation.into_iter().flatten().next();
    let operation = operation.or_else(|| record.text("request_line"));
    let id = record.take_text("id").unwrap_or_else(|| "?".to_owned());
    let mut api = Map::new();
    let operation = operation.unwrap_or_else(|| "unknown".to_owned());
    api.insert("operation".to_owned(), json!(operation));
    api.insert("request".to_owned(), json!({"uid": id}));
    if status.is_some() || code.is_some() {
        let mut response = Map::new();
        put(&mut response, "code", status.map(Value::from));
        put(&mut response, "error", code.filter(|code| code != "ok").map(Value::from));
        api.insert("response".to_owned(), Value::Object(response));
    }
    put(&mut api, "service", service.map(|name| json!({"name": name})));
    event.insert("api".to_owned(), Value::Object(api));
    let client = record.take_text("client");
    let source = client.map_or_else(|| json!({"name": "unknown"}), |ip| json!({"ip": ip}));
    event.insert("src_endpoint".to_owned(), source);
    if let Some(address) = record.text("upstream_address")
        && let Ok(address) = address.parse::<std::net::SocketAddr>()
    {
        record.take("upstream_address");
        let endpoint = json!({"ip": address.ip().to_string(), "port": address.port()});
        event.insert("dst_endpoint".to_owned(), endpoint);
    }
    put(&mut event, "http_request", http_request(&mut record));
    if let Some(status) = status.filter(|status| *status > 0) {
        event.insert("http_response".to_owned(), json!({"code": status}));
    }
    finished(event, record)
}

/// An event about the log itself: Event Log Activity.
fn of_the_log(mut record: Record, line: &[u8]) -> Value {
    let (activity, severity, message) = match record.text("kind").as_deref() {
        Some("segment") => (5, 1, "a segment of the audit log begins"),
        Some("recovery") => (8, 4, "a process was killed: the outcome of some actions is unknown"),
        Some("gap") => (99, 4, "records were lost"),
        _ => (99, 1, "something about the audit log"),
    };
    let mut event = common(&mut record, line, 1008, 1, activity);
    event.insert("severity_id".to_owned(), json!(severity));
    event.insert("message".to_owned(), json!(message));
    event.insert("log_name".to_owned(), json!("stagedoor audit"));
    event.insert("log_type_id".to_owned(), json!(2));
    finished(event, record)
}

fn common(
    record: &mut Record,
    line: &[u8],
    class: u32,
    category: u32,
    activity: u32,
) -> Map<String, Value> {
    let time = record.text("time");
    let milliseconds = time.as_deref().and_then(milliseconds);
    if milliseconds.is_some() {
        record.take("time");
    }
    let mut metadata = Map::new();
    metadata.insert("version".to_owned(), json!(VERSION));
    metadata.insert("profiles".to_owned(), json!(["security_control"]));
    metadata.insert(
        "product".to_owned(),
        json!({"name": "Stagedoor", "vendor_name": "Stagedoor", "version": env!("CARGO_PKG_VERSION")}),
    );
    // The digest covers this line and all before it, so it is unique.
    put(&mut metadata, "uid", record.text("chain").map(Value::from));
    put(&mut metadata, "correlation_uid", record.text("id").map(Value::from));
    put(&mut metadata, "original_time", time.map(Value::from));
    let kind = record.text("kind").unwrap_or_else(|| "exchange".to_owned());
    metadata.insert("event_code".to_owned(), json!(kind));
    metadata.insert("log_name".to_owned(), json!("stagedoor audit"));
    let mut event = Map::new();
    event.insert("class_uid".to_owned(), json!(class));
    event.insert("category_uid".to_owned(), json!(category));
    event.insert("activity_id".to_owned(), json!(activity));
    if activity == 99 {
        event.insert("activity_name".to_owned(), json!(kind));
    }
    event.insert("type_uid".to_owned(), json!(class * 100 + activity));
    event.insert("time".to_owned(), json!(milliseconds.unwrap_or(0)));
    event.insert("metadata".to_owned(), Value::Object(metadata));
    // As in the log: the bytes that the chain covers.
    event.insert("raw_data".to_owned(), json!(String::from_utf8_lossy(line)));
    event
}

fn actor(record: &mut Record) -> Value {
    let mut actor = Map::new();
    let (caller, issuer) = (record.take_text("caller"), record.take_text("issuer"));
    let Some(caller) = caller else {
        actor.insert("user".to_owned(), json!({"name": "unknown", "type_id": 0}));
        put(&mut actor, "app_name", record.text("plugin").map(Value::from));
        return Value::Object(actor);
    };
    let mut user = Map::new();
    user.insert("uid".to_owned(), json!(caller));
    user.insert("name".to_owned(), json!(caller));
    if let Some(Value::Array(groups)) = record.take("groups") {
        let groups: Vec<Value> = groups.into_iter().map(|name| json!({"name": name})).collect();
        user.insert("groups".to_owned(), Value::Array(groups));
    }
    actor.insert("user".to_owned(), Value::Object(user));
    put(&mut actor, "idp", issuer.map(|issuer| json!({"name": issuer, "issuer": issuer})));
    put(&mut actor, "app_name", record.text("plugin").map(Value::from));
    Value::Object(actor)
}

fn http_request(record: &mut Record) -> Option<Value> {
    const METHODS: [&str; 8] =
        ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"];
    let mut request = Map::new();
    if record.text("method").is_some_and(|method| METHODS.contains(&&*method)) {
        put(&mut request, "http_method", record.take("method"));
    }
    if let Some(path) = record.take_text("path") {
        let mut url = Map::new();
        url.insert("path".to_owned(), json!(path));
        let host = record.text("host");
        let name = |host: &str| {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            let dns = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            (!name.is_empty() && name.bytes().all(dns)).then(|| name.to_owned())
        };
        put(&mut url, "hostname", host.as_deref().and_then(name).map(Value::from));
        request.insert("url".to_owned(), Value::Object(url));
    }
    (!request.is_empty()).then_some(Value::Object(request))
}

/// Everything without its own field goes to `unmapped`.
fn finished(mut event: Map<String, Value>, record: Record) -> Value {
    if !record.0.is_empty() {
        event.insert("unmapped".to_owned(), Value::Object(record.0));
    }
    Value::Object(event)
}

fn put(into: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        into.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Value {
        serde_json::from_str(&event(line.as_bytes())).unwrap()
    }

    #[test]
    fn an_exchange_is_api_activity_and_keeps_its_line() {
        let line = r#"{"time":"2026-11-24T12:00:00.123456Z","id":"r1","client":"10.0.0.1","method":"POST","host":"portal:8443","path":"/act","route":"act","upstream":"up","caller":"ada","issuer":"orbit","groups":["g"],"decision":"deny","code":"rate_limited","status":429,"workspace":"payments","chain":"00"}"#;
        let event = of(line);
        let pick = |pointer: &str| event.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(pick("/type_uid"), json!(600_301));
        assert_eq!(pick("/time"), json!(1_795_521_600_123_i64));
        assert_eq!(pick("/actor/user/uid"), json!("ada"));
        assert_eq!(pick("/api/operation"), json!("act"));
        assert_eq!(pick("/src_endpoint/ip"), json!("10.0.0.1"));
        assert_eq!((pick("/status_id"), pick("/action_id")), (json!(2), json!(2)));
        assert_eq!(pick("/http_request/url/hostname"), json!("portal"));
        assert_eq!(pick("/unmapped/workspace"), json!("payments"));
        assert_eq!(pick("/unmapped/caller"), Value::Null);
        assert_eq!(pick("/raw_data"), json!(line));
    }

    #[test]
    fn what_is_about_the_log_is_event_log_activity() {
        let event = of(r#"{"kind":"gap","time":"2026-11-24T12:00:00Z","lost":3,"chain":"00"}"#);
        assert_eq!(event["type_uid"], json!(100_899));
        assert_eq!(event["unmapped"]["lost"], json!(3));
    }

    #[test]
    fn whatever_a_line_contains_an_event_is_ascii_on_one_line() {
        for line in ["{", "[]", "\u{202e}", r#"{"path":"/\u202e\n\u{7f}","method":"\u0000"}"#] {
            let event = event(line.as_bytes());
            assert!(event.bytes().all(|b| (b' '..=b'~').contains(&b)), "{event}");
            assert!(serde_json::from_str::<Value>(&event).is_ok());
        }
    }
}
