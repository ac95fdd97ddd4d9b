//! A denial as an error of gRPC, gRPC-Web or Connect.

use std::fmt::Write;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD as BASE64},
};
use http::StatusCode;
use prost::encoding::{bytes, int32, int64, string};
use serde_json::{Value, json};

use super::problem::Problem;

/// What gRPC calls a status, and Connect a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument,
    DeadlineExceeded,
    PermissionDenied,
    ResourceExhausted,
    Aborted,
    Unimplemented,
    Internal,
    Unavailable,
    Unauthenticated,
}

impl Code {
    pub(super) fn of(said: &Problem<'_>) -> Self {
        match said.status.as_u16() {
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            408 | 504 => Self::DeadlineExceeded,
            409 => Self::Aborted,
            // gRPC's code for a message that is too large.
            413 | 429 | 431 => Self::ResourceExhausted,
            421 => Self::Unimplemented,
            502 if said.code == "internal" => Self::Internal,
            502 | 503 => Self::Unavailable,
            _ => Self::InvalidArgument,
        }
    }

    /// Its number, Connect's name for it, and the status that a unary error of Connect has.
    fn row(self) -> (u8, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Self::InvalidArgument => (3, "invalid_argument", S::BAD_REQUEST),
            Self::DeadlineExceeded => (4, "deadline_exceeded", S::GATEWAY_TIMEOUT),
            Self::PermissionDenied => (7, "permission_denied", S::FORBIDDEN),
            Self::ResourceExhausted => (8, "resource_exhausted", S::TOO_MANY_REQUESTS),
            Self::Aborted => (10, "aborted", S::CONFLICT),
            Self::Unimplemented => (12, "unimplemented", S::NOT_IMPLEMENTED),
            Self::Internal => (13, "internal", S::INTERNAL_SERVER_ERROR),
            Self::Unavailable => (14, "unavailable", S::SERVICE_UNAVAILABLE),
            Self::Unauthenticated => (16, "unauthenticated", S::UNAUTHORIZED),
        }
    }

    pub(super) fn number(self) -> u8 {
        self.row().0
    }

    pub(super) fn http(self) -> StatusCode {
        self.row().2
    }
}

/// `grpc-message`: percent-encoded.
pub(super) fn message_of(said: &Problem<'_>) -> String {
    let mut encoded = String::new();
    for byte in said.message().bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => _ = write!(encoded, "%{byte:02X}"),
            plain => encoded.push(plain.into()),
        }
    }
    encoded
}

/// `grpc-status-details-bin`: a `google.rpc.Status`, for machines.
pub(super) fn details_of(said: &Problem<'_>) -> String {
    let mut status = Vec::new();
    int32::encode(1, &Code::of(said).number().into(), &mut status);
    string::encode(2, &said.message(), &mut status);
    for (name, value) in details(said) {
        let mut any = Vec::new();
        string::encode(1, &format!("type.googleapis.com/{name}"), &mut any);
        bytes::encode(2, &value, &mut any);
        bytes::encode(3, &any, &mut status);
    }
    BASE64.encode(status)
}

/// Details as `google/rpc/error_details.proto` has them.
fn details(said: &Problem<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let mut info = Vec::new();
    string::encode(1, &said.code.to_ascii_uppercase(), &mut info);
    string::encode(2, &"stagedoor".to_owned(), &mut info);
    let mut request = Vec::new();
    string::encode(1, &said.request_id.to_owned(), &mut request);
    let mut details = vec![("google.rpc.ErrorInfo", info), ("google.rpc.RequestInfo", request)];
    if let Some(seconds) = said.retry_after {
        let (mut delay, mut retry) = (Vec::new(), Vec::new());
        int64::encode(1, &i64::try_from(seconds).unwrap_or(i64::MAX), &mut delay);
        bytes::encode(1, &delay, &mut retry);
        details.push(("google.rpc.RetryInfo", retry));
    }
    details
}

/// The only frame of a gRPC-Web response: trailers.
pub(super) fn trailers_frame(said: &Problem<'_>) -> Vec<u8> {
    let trailers = format!(
        "grpc-status: {}\r\ngrpc-message: {}\r\ngrpc-status-details-bin: {}\r\n",
        Code::of(said).number(),
        message_of(said),
        details_of(said)
    );
    frame(0x80, trailers.as_bytes())
}

/// As gRPC-Web's text form has it.
pub(super) fn base64(frame: &[u8]) -> String {
    BASE64_STANDARD.encode(frame)
}

/// The one message of a stream of Connect: its end.
pub(super) fn end_of_stream(said: &Problem<'_>) -> Vec<u8> {
    frame(0x02, json!({"error": error(said)}).to_string().as_bytes())
}

fn frame(flags: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a denial is short");
    [&[flags][..], &length.to_be_bytes(), content].concat()
}

/// An error of Connect.
pub(super) fn error(said: &Problem<'_>) -> Value {
    let (_, code, _) = Code::of(said).row();
    let details: Vec<Value> = details(said)
        .into_iter()
        .map(|(name, value)| json!({"type": name, "value": BASE64.encode(value)}))
        .collect();
    json!({"code": code, "message": said.message(), "details": details})
}

#[cfg(test)]
mod tests {
    use crate::data_plane::denial_response::{problem::tests::said, rpc::*};

    fn limited() -> Problem<'static> {
        Problem {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "rate_limited",
            sentence: "100% of `zo\u{eb}` is used".into(),
            retry_after: Some(2),
            ..said()
        }
    }

    #[test]
    fn a_status_becomes_a_code() {
        let check = |status: u16, code: &'static str, number: u8, http: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            let is = Code::of(&Problem { status, code, ..said() });
            assert_eq!((is.number(), is.http().as_u16()), (number, http), "{status} {code}");
        };
        check(400, "path_ambiguous", 3, 400);
        check(401, "caller_missing", 16, 401);
        check(403, "plugin_disabled", 7, 403);
        check(408, "body_timeout", 4, 504);
        check(409, "idempotency_in_flight", 10, 409);
        check(413, "body_too_large", 8, 429);
        check(421, "host_unknown", 12, 501);
        check(429, "rate_limited", 8, 429);
        check(431, "head_too_large", 8, 429);
        check(502, "upstream_unreachable", 14, 503);
        check(502, "internal", 13, 500);
        check(503, "breaker_open", 14, 503);
        check(504, "upstream_timeout", 4, 504);
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(message_of(&limited()), "100%25 of `zo%C3%AB` is used (rate_limited)");
        let evil = Problem { sentence: "a\r\ngrpc-status: 0".into(), ..said() };
        assert_eq!(message_of(&evil), "a%0D%0Agrpc-status: 0 (breaker_open)");
    }

    #[test]
    fn details_are_what_googles_own_code_writes() {
        // `SerializeToString` of a `Status` in Python's googleapis-common-protos.
        let expected = "CAgSJTEwMCUgb2YgYHpvw6tgIGlzIHVzZWQgKHJhdGVfbGltaXRlZCkaRQoodHlwZS5nb29nbGVh\
            cGlzLmNvbS9nb29nbGUucnBjLkVycm9ySW5mbxIZCgxSQVRFX0xJTUlURUQSCXN0YWdlZG9vcho1Cip0eXBlLmdvb2ds\
            ZWFwaXMuY29tL2dvb2dsZS5ycGMuUmVxdWVzdEluZm8SBwoFYWJjLTEaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29n\
            bGUucnBjLlJldHJ5SW5mbxIECgIIAg";
        assert_eq!(details_of(&limited()), expected);
    }

    #[test]
    fn frames_have_their_length() {
        let frame = trailers_frame(&limited());
        assert_eq!(frame[0], 0x80);
        assert_eq!(frame[1..5], u32::try_from(frame.len() - 5).unwrap().to_be_bytes());
        assert!(frame[5..].starts_with(b"grpc-status: 8\r\ngrpc-message: 100%25 of"));
        let frame = end_of_stream(&limited());
        assert_eq!(frame[0], 2);
        let end: Value = serde_json::from_slice(&frame[5..]).unwrap();
        assert_eq!(end["error"]["code"], "resource_exhausted");
        assert_eq!(end["error"]["details"][0]["type"], "google.rpc.ErrorInfo");
    }
}
