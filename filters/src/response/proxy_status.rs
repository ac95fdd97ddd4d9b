//! How gateways describe responses that they generated themselves: `Proxy-Status` (RFC 9209).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::Denial;

/// The header.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Our field for a denial.
pub fn of(denial: &Denial) -> HeaderValue {
    written(kind(denial), denial.code())
}

/// Our field for a request that was refused with this code.
pub fn refused(code: &str) -> HeaderValue {
    written("http_request_denied", code)
}

fn written(kind: &str, code: &str) -> HeaderValue {
    let text = format!("stagedoor; error={kind}; details=\"{code}\"");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("stagedoor"))
}

/// Whether a gateway behind us generated a response in place of its own upstream. Such a response says
/// nothing about our upstream, unless the gateway itself failed.
pub fn is_gateways(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(PROXY_STATUS).iter().filter_map(|value| value.to_str().ok());
    // Text in quotes is never a parameter.
    fields.map(unquoted).any(|field| {
        let parameters =
            field.split([',', ';']).filter_map(|part| part.trim().strip_prefix("error="));
        parameters.map(str::trim).any(|kind| {
            !kind.is_empty()
                && !matches!(kind, "proxy_internal_error" | "proxy_internal_response" | "internal")
        })
    })
}

/// A structured field (RFC 9651) whose quoted strings are unquoted if they could be tokens, because some
/// gateways quote them, and removed otherwise.
fn unquoted(field: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(field.len()), field);
    while let Some(open) = rest.find('"') {
        let (before, quoted) = rest.split_at(open);
        out.push_str(before);
        let quoted = &quoted[1..];
        let mut escaped = false;
        let end = quoted.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            ends
        });
        let Some(end) = end else { return out };
        let text = &quoted[..end];
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            out.push_str(text);
        }
        rest = &quoted[end + 1..];
    }
    out.push_str(rest);
    out
}

/// The type of a denial (RFC 9209 2.3).
fn kind(denial: &Denial) -> &'static str {
    match denial {
        Denial::BreakerOpen { .. } | Denial::UpstreamUnreachable { .. } => {
            "destination_unavailable"
        }
        Denial::UpstreamTls { .. } => "tls_protocol_error",
        Denial::UpstreamReset { .. } => "connection_terminated",
        Denial::UpstreamMalformed { .. } => "http_protocol_error",
        Denial::ConnectTimeout { .. } => "connection_timeout",
        Denial::UpstreamTimeout { .. }
        | Denial::WholeTimeout { .. }
        | Denial::UpstreamSlow { .. } => "http_response_timeout",
        Denial::HostUnresolved { .. } => "dns_error",
        Denial::AddressRefused { .. } => "destination_ip_prohibited",
        Denial::BodyTimeout | Denial::BodySlow { .. } | Denial::BodyMalformed => {
            "http_request_error"
        }
        Denial::BodyTooLarge { .. } => "http_request_error",
        Denial::Internal | Denial::Stopping { .. } => "proxy_internal_error",
        _ => "http_request_denied",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Label, upstream::breaker::Cause};

    fn gateways(field: &'static str) -> bool {
        let line = (PROXY_STATUS, HeaderValue::from_static(field));
        is_gateways(&[line].into_iter().collect())
    }

    #[test]
    fn a_response_generated_by_a_gateway_is_recognized() {
        let upstream = Label::lossy("dxcp");
        let retry_after = std::time::Duration::from_secs(1);
        let denial = Denial::BreakerOpen { upstream, retry_after, cause: Cause::NoResponse };
        let ours = of(&denial);
        assert_eq!(ours, "stagedoor; error=destination_unavailable; details=\"breaker_open\"");
        assert!(is_gateways(&[(PROXY_STATUS, ours)].into_iter().collect()));
        for field in [
            "stagedoor; error=\"breaker_open\"",
            "envoy; error=connection_refused; details=\"x\"",
            "a.example, b.example;error=http_request_denied",
            "\"a, b\"; error=connection_timeout",
        ] {
            assert!(gateways(field), "{field}");
        }
    }

    #[test]
    fn one_that_it_only_passed_on_or_failed_at_itself_is_not() {
        for field in [
            "",
            "envoy",
            "envoy; next-hop=backend; received-status=503",
            "envoy; details=\"error=connection_refused\"",
            "envoy; details=\"a\\\"; error=connection_refused; b=\\\"\"",
            "stagedoor; error=proxy_internal_error",
            "stagedoor; error=",
            "stagedoor; error=\"; x",
        ] {
            assert!(!gateways(field), "{field}");
        }
        assert!(!is_gateways(&HeaderMap::new()));
    }
}
