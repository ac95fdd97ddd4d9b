//! Records as OpenTelemetry logs, for the body of a post.

use data_encoding::HEXLOWER_PERMISSIVE;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use prost::Message;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::transport::host_name;

/// A batch. Each record is a line, and the text to send for it.
pub(super) fn body<'a>(records: impl Iterator<Item = (&'a [u8], String)>) -> Vec<u8> {
    let text = |name: &str, value: &str| pair(name, text(value));
    let attributes = vec![
        text("service.name", "stagedoor"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", host_name()),
        text("host.name", host_name()),
    ];
    let scope = InstrumentationScope { name: "stagedoor.audit".to_owned(), ..Default::default() };
    let log_records = records.map(|(line, shown)| log_record(line, shown)).collect();
    let logs = ScopeLogs { scope: Some(scope), log_records, ..Default::default() };
    let resource = Resource { attributes, ..Default::default() };
    let logs =
        ResourceLogs { resource: Some(resource), scope_logs: vec![logs], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
}

/// How many records a response reports as rejected, and why.
pub(super) fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let answer = ExportLogsServiceResponse::decode(answer).ok()?;
    let partial = answer.partial_success?;
    let count = u64::try_from(partial.rejected_log_records).unwrap_or(0);
    (count > 0).then_some((count, partial.error_message))
}

fn log_record(line: &[u8], shown: String) -> LogRecord {
    let read: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let member = |name: &str| read.get(name).and_then(Value::as_str);
    let kind = member("kind").unwrap_or("exchange");
    let severity = match (kind, member("decision")) {
        ("gap" | "recovery", _) => SeverityNumber::Error,
        (_, Some("deny")) => SeverityNumber::Warn,
        _ => SeverityNumber::Info,
    };
    let time = member("time").and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    let nanoseconds =
        time.and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok()).unwrap_or(0);
    LogRecord {
        time_unix_nano: nanoseconds,
        observed_time_unix_nano: nanoseconds,
        severity_number: severity.into(),
        severity_text: severity.as_str_name().trim_start_matches("SEVERITY_NUMBER_").to_owned(),
        body: Some(text(&shown)),
        attributes: read.iter().flat_map(|(name, value)| attributes(name, value)).collect(),
        trace_id: member("trace_id").and_then(trace_id).unwrap_or_default(),
        event_name: format!("stagedoor.audit.{kind}"),
        ..Default::default()
    }
}

/// The attributes of a member: by the semantic conventions, or our own.
fn attributes(name: &str, value: &Value) -> Vec<KeyValue> {
    let usual = match name {
        "time" | "trace_id" => return Vec::new(),
        "method" => "http.request.method",
        "path" => "url.path",
        "status" => "http.response.status_code",
        "client" => "client.address",
        "caller" => "user.id",
        "roles" => "user.roles",
        "host" => {
            let text = value.as_str().unwrap_or_default();
            let of_port = |(name, port): (&str, &str)| Some((name.to_owned(), port.parse().ok()?));
            let (host, port) = match text.rsplit_once(':').and_then(of_port) {
                Some((host, port)) => (host, Some::<u16>(port)),
                None => (text.to_owned(), None),
            };
            let port = port.map(|port| pair("server.port", number(port.into())));
            return [Some(pair("server.address", self::text(&host))), port]
                .into_iter()
                .flatten()
                .collect();
        }
        _ => "",
    };
    let name = if usual.is_empty() { format!("stagedoor.{name}") } else { usual.to_owned() };
    vec![pair(&name, any(value))]
}

fn any(value: &Value) -> AnyValue {
    match value {
        Value::Bool(value) => AnyValue { value: Some(any_value::Value::BoolValue(*value)) },
        Value::String(value) => text(value),
        Value::Array(all) => {
            let values = all.iter().map(any).collect();
            AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values })) }
        }
        Value::Number(value) if value.is_i64() => number(value.as_i64().unwrap_or_default()),
        other => text(&other.to_string()),
    }
}

fn pair(name: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(value), ..Default::default() }
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }
}

fn number(value: i64) -> AnyValue {
    AnyValue { value: Some(any_value::Value::IntValue(value)) }
}

/// The bytes of a trace id, which is 32 hex digits.
fn trace_id(hex: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok().filter(|id| id.len() == 16)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    use super::*;

    #[test]
    fn a_record_is_a_log_record_with_its_line_as_body() {
        let line = r#"{"time":"2026-11-24T12:00:00.000001Z","id":"r1","trace_id":"0af7651916cd43dd8448eb211c80319c","method":"GET","host":"portal:8443","status":429,"decision":"deny","roles":["a"],"cut":true}"#;
        let body = body([(line.as_bytes(), line.to_owned())].into_iter());
        let read = ExportLogsServiceRequest::decode(&body[..]).unwrap();
        let record = &read.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(record.time_unix_nano, 1_795_521_600_000_001_000);
        assert_eq!((record.severity_number, &*record.severity_text), (13, "WARN"));
        assert_eq!(record.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(record.body, Some(text(line)));
        let names: Vec<&str> = record.attributes.iter().map(|a| &*a.key).collect();
        let expected = [
            "stagedoor.id",
            "http.request.method",
            "server.address",
            "server.port",
            "http.response.status_code",
            "stagedoor.decision",
            "user.roles",
            "stagedoor.cut",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_response_reports_what_was_rejected() {
        assert_eq!(rejected(b""), None);
        assert_eq!(rejected(b"{}"), None);
        let partial = |rejected_log_records, error_message: &str| {
            let error_message = error_message.to_owned();
            let partial = ExportLogsPartialSuccess { rejected_log_records, error_message };
            let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
            rejected(&answer.encode_to_vec())
        };
        assert_eq!(partial(0, "a warning"), None);
        assert_eq!(partial(2, "too old"), Some((2, "too old".to_owned())));
    }
}
