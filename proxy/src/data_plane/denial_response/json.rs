//! A denial as JSON, in the form that a route's clients read.

use config::ErrorFormat;
use serde_json::{Value, json};

use super::problem::Problem;

/// The media type and the body.
pub(super) fn body(said: &Problem<'_>, format: ErrorFormat) -> (&'static str, Value) {
    match format {
        ErrorFormat::Problem => ("application/problem+json", problem(said)),
        ErrorFormat::Backstage => ("application/json", backstage(said)),
        ErrorFormat::Kubernetes => ("application/json", kubernetes(said)),
        ErrorFormat::String => {
            let body = json!({
                "error": said.message(),
                "code": said.code,
                "request_id": said.request_id,
            });
            ("application/json", body)
        }
    }
}

fn problem(said: &Problem<'_>) -> Value {
    let mut body = json!({
        "type": "about:blank",
        "title": said.sentence,
        "status": said.status.as_u16(),
        "code": said.code,
        "request_id": said.request_id,
    });
    if let Some(rule) = said.rule {
        body["rule"] = json!({"route": rule.name.as_str(), "place": &*rule.place});
    }
    body
}

fn backstage(said: &Problem<'_>) -> Value {
    json!({
        "error": {
            "name": error_name(said.status.as_u16()),
            "message": said.message(),
            "code": said.code,
        },
        "request": {"method": said.method, "url": said.path},
        "response": {"statusCode": said.status.as_u16()},
        "request_id": said.request_id,
    })
}

/// The names that Backstage's clients turn into exceptions.
fn error_name(status: u16) -> &'static str {
    match status {
        400 | 408 | 413 | 421 | 431 => "InputError",
        401 => "AuthenticationError",
        403 => "NotAllowedError",
        409 => "ConflictError",
        _ => "ServiceUnavailableError",
    }
}

/// A `Status` (`meta/v1`). kubectl prints only its reason and message.
fn kubernetes(said: &Problem<'_>) -> Value {
    let mut details = json!({
        "causes": [{"reason": said.code, "message": format!("request id {}", said.request_id)}],
    });
    if let Some(seconds) = said.retry_after {
        // An int32 there.
        details["retryAfterSeconds"] = seconds.min(i32::MAX as u64).into();
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("{}, request id {}", said.message(), said.request_id),
        "reason": reason(said.status.as_u16()),
        "details": details,
        "code": said.status.as_u16(),
    })
}

/// The reasons that Kubernetes' clients know (`StatusReason`).
fn reason(status: u16) -> &'static str {
    match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        408 | 504 => "Timeout",
        409 => "Conflict",
        413 | 431 => "RequestEntityTooLarge",
        429 => "TooManyRequests",
        502 | 503 => "ServiceUnavailable",
        _ => "BadRequest",
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use crate::data_plane::denial_response::{json::*, problem::tests::said};

    #[test]
    fn kubernetes_clients_get_a_status() {
        let said = Problem {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "rate_limited",
            sentence: "Too Many Requests".into(),
            retry_after: Some(7),
            ..said()
        };
        let (kind, body) = body(&said, ErrorFormat::Kubernetes);
        assert_eq!(kind, "application/json");
        let expected = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "Too Many Requests (rate_limited), request id abc-1",
            "reason": "TooManyRequests",
            "details": {
                "causes": [{"reason": "rate_limited", "message": "request id abc-1"}],
                "retryAfterSeconds": 7,
            },
            "code": 429,
        });
        assert_eq!(body, expected);
    }
}
