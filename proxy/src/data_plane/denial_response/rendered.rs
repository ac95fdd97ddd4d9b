//! A denial in the words of its reader, ready to be sent over whatever connection.

use bytes::Bytes;
use filters::proxy_status;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    json, page,
    problem::Problem,
    reader::Reader,
    rpc::{self, Code},
};
use crate::request_id::X_REQUEST_ID;

/// A rendered response.
pub(crate) struct Rendered {
    pub(crate) status: StatusCode,
    /// All but those of its framing.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS_BIN: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// When a gRPC client may retry (gRFC A6).
const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

impl Rendered {
    /// Renders it for a reader.
    pub(crate) fn new(reader: Reader, said: &Problem<'_>) -> Self {
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, plain(said.request_id));
        headers.insert(proxy_status::PROXY_STATUS, proxy_status::refused(said.code));
        if let Some(seconds) = said.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        let mut is = |media_type: HeaderValue| _ = headers.insert(header::CONTENT_TYPE, media_type);
        let (status, body) = match reader {
            Reader::Person => (said.status, page::page(said, &mut headers).into()),
            Reader::Program(format) => {
                let (media_type, body) = json::body(said, format);
                is(HeaderValue::from_static(media_type));
                (said.status, body.to_string().into())
            }
            Reader::Grpc(media_type) => {
                is(media_type);
                trailers_only(&mut headers, said);
                (StatusCode::OK, Bytes::new())
            }
            Reader::GrpcWeb { media_type, text } => {
                is(media_type);
                let frame = rpc::trailers_frame(said);
                let body = if text { rpc::base64(&frame).into() } else { frame.into() };
                (StatusCode::OK, body)
            }
            Reader::Connect => {
                is(HeaderValue::from_static("application/json"));
                (Code::of(said).http(), rpc::error(said).to_string().into())
            }
            Reader::ConnectStream(media_type) => {
                is(media_type);
                (StatusCode::OK, rpc::end_of_stream(said).into())
            }
        };
        Self { status, headers, body }
    }
}

/// gRPC's immediate error: a trailers-only response.
fn trailers_only(headers: &mut HeaderMap, said: &Problem<'_>) {
    headers.insert(GRPC_STATUS, u16::from(Code::of(said).number()).into());
    headers.insert(GRPC_MESSAGE, plain(&rpc::message_of(said)));
    headers.insert(GRPC_STATUS_DETAILS_BIN, plain(&rpc::details_of(said)));
    if let Some(seconds) = said.retry_after {
        headers.insert(GRPC_RETRY_PUSHBACK_MS, seconds.saturating_mul(1000).into());
    }
}

fn plain(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids, codes and what is encoded are plain")
}
