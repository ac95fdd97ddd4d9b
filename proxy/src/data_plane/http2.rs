//! An HTTP/2 stream from a client: one request and its response.
//!
//! Pingora's own type forwards no interim responses, and gives no access to the stream to send one.

mod head;
mod serve;

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use pingora::{
    Error, ErrorType, OrErr, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::{
        Digest,
        http::{
            HttpTask, body_buffer::FixedBuffer, date::get_cached_date,
            v1::client::http_req_header_to_wire, v2::write_body,
        },
        l4::socket::SocketAddr,
    },
};
use tokio::{sync::mpsc::UnboundedSender, time::timeout};

pub(crate) use serve::serve;

/// A request's body up to this size is buffered for a retry.
const RETRY_MAX: usize = 64 << 10;
/// The maximum size of all interim response heads to one request. No flow control applies to them, and they
/// are only hints: more are not forwarded.
const INTERIM_BYTES_MAX: usize = 32 << 10;
/// The overhead of each header (RFC 9113 6.5.2).
const HEADER_OVERHEAD: usize = 32;

/// One request and its response.
pub(crate) struct Stream {
    request: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// The task that resets the stream if its response is cut off.
    broken: UnboundedSender<SendResponse<Bytes>>,
    /// The response body, once the response has begun.
    answer: Option<SendStream<Bytes>>,
    /// Its head.
    written: Option<Box<ResponseHeader>>,
    ended: bool,
    interim_bytes: usize,
    bytes_read: usize,
    bytes_sent: usize,
    retry: Option<FixedBuffer>,
    digest: Arc<Digest>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

impl Stream {
    fn new(
        request: RequestHeader,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        broken: UnboundedSender<SendResponse<Bytes>>,
        digest: Arc<Digest>,
    ) -> Self {
        Self {
            request,
            body,
            respond,
            broken,
            answer: None,
            written: None,
            ended: false,
            interim_bytes: 0,
            bytes_read: 0,
            bytes_sent: 0,
            retry: None,
            digest,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    pub(crate) fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    pub(crate) fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    /// The next part of the body; `None` after its end.
    pub(crate) async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let part = self.body.data().await.transpose();
        let part = part.or_err(ErrorType::ReadError, "while reading the request's body")?;
        if let Some(part) = &part {
            self.bytes_read += part.len();
            if let Some(retry) = &mut self.retry {
                retry.write_to_buffer(part);
            }
            // It fails only if the stream is closed, which the next read reports.
            let _ = self.body.flow_control().release_capacity(part.len());
        }
        Ok(part)
    }

    /// The same, but after the end of the body it waits until the client resets the stream.
    pub(crate) async fn read_body_or_idle(&mut self, no_body: bool) -> Result<Option<Bytes>> {
        if !no_body && !self.is_body_done() {
            return self.read_body_bytes().await;
        }
        let reset = poll_fn(|cx| match &mut self.answer {
            Some(answer) => answer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        let reason = reset.await.or_err(ErrorType::H2Error, "the client is gone")?;
        Error::e_explain(ErrorType::H2Error, format!("the client gave up its stream: {reason}"))
    }

    pub(crate) async fn drain_request_body(&mut self) -> Result<()> {
        let patience = self.drain_timeout;
        let drain = async {
            while !self.is_body_done() && self.read_body_bytes().await?.is_some() {}
            Ok(())
        };
        match patience {
            None => drain.await,
            Some(patience) => timeout(patience, drain).await.unwrap_or_else(|_| {
                Error::e_explain(ErrorType::ReadTimedout, "draining the request's body")
            }),
        }
    }

    /// Writes a response head. Several interim ones may precede the final one.
    pub(crate) async fn write_response_header(
        &mut self,
        mut head: Box<ResponseHeader>,
        end: bool,
    ) -> Result<()> {
        // Nothing may follow it.
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        for name in HOP_BY_HOP {
            head.remove_header(&name);
        }
        if head.status.is_informational() {
            return self.write_interim(&head).await;
        }
        head.insert_header(header::DATE, get_cached_date())?;
        let response = Response::from_parts(head.as_owned_parts(), ());
        let answer = self.respond.send_response(response, end);
        self.answer = Some(answer.or_err(ErrorType::WriteError, "while writing the answer")?);
        self.written = Some(head);
        self.ended |= end;
        Ok(())
    }

    async fn write_interim(&mut self, head: &ResponseHeader) -> Result<()> {
        // An HTTP/2 client does not wait for a 100, and 101 does not exist there.
        if matches!(head.status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return Ok(());
        }
        self.interim_bytes = self.interim_bytes.saturating_add(size(&head.headers));
        if self.interim_bytes > INTERIM_BYTES_MAX || self.is_given_up().await {
            return Ok(());
        }
        let response = Response::from_parts(head.as_owned_parts(), ());
        self.respond
            .send_informational(response)
            .or_err(ErrorType::WriteError, "while writing an interim answer")
    }

    /// Whether the client has reset the stream already: h2 would still accept data for it.
    async fn is_given_up(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.respond.poll_reset(cx).is_ready())).await
    }

    pub(crate) async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(answer) = &mut self.answer else {
            return Error::e_explain(ErrorType::H2Error, "a body before its head");
        };
        let bytes = data.len();
        let write = write_body(answer, data, end, self.write_timeout);
        let written = match self.write_timeout {
            None => write.await,
            Some(patience) => timeout(patience, write).await.unwrap_or_else(|_| {
                Error::e_explain(ErrorType::WriteTimedout, "while writing the answer's body")
            }),
        };
        written.map_err(|error| error.into_down())?;
        self.bytes_sent += bytes;
        self.ended |= end;
        Ok(())
    }

    /// Trailers are the end.
    pub(crate) fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(answer) = &mut self.answer else {
            return Error::e_explain(ErrorType::H2Error, "trailers before their head");
        };
        let sent = answer.send_trailers(trailers);
        sent.or_err(ErrorType::WriteError, "while writing the answer's trailers")?;
        self.ended = true;
        Ok(())
    }

    /// Ends the response if it has begun. Otherwise dropping the stream resets it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        if let Some(answer) = &mut self.answer {
            let sent = answer.send_data(Bytes::new(), true);
            sent.or_err(ErrorType::WriteError, "while ending the answer")?;
            self.ended = true;
        }
        Ok(())
    }

    /// Writes a part of an upstream's response. Returns whether it was the last.
    pub(crate) async fn write_task(&mut self, task: HttpTask) -> Result<bool> {
        let end = match task {
            HttpTask::Header(head, end) => {
                self.write_response_header(head, end).await.map_err(|error| error.into_down())?;
                end
            }
            HttpTask::Body(data, end) => {
                if let Some(data) = data.filter(|data| !data.is_empty()) {
                    self.write_body(data, end).await.map_err(|error| error.into_down())?;
                }
                end
            }
            HttpTask::UpgradedBody(..) => {
                return Error::e_explain(ErrorType::InternalError, "an upgrade of HTTP/2");
            }
            HttpTask::Trailer(Some(trailers)) => {
                self.write_trailers(*trailers)?;
                true
            }
            HttpTask::Trailer(None) | HttpTask::Done => true,
            HttpTask::Failed(error) => return Err(error),
        };
        if end {
            self.finish().map_err(|error| error.into_down())?;
        }
        Ok(end)
    }

    pub(crate) fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    pub(crate) fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    pub(crate) fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    pub(crate) fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    pub(crate) fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri)
    }

    pub(crate) fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    /// Ends the stream. Unless the response is complete, the client sees that it was cut off.
    pub(crate) fn end(self) {
        if !self.ended {
            // It fails only if the connection is closed.
            let _ = self.broken.send(self.respond);
        }
    }

    pub(crate) fn is_body_done(&self) -> bool {
        self.is_body_empty() || self.body.is_end_stream()
    }

    pub(crate) fn is_body_empty(&self) -> bool {
        let says_so = || {
            let length = self.request.headers.get(header::CONTENT_LENGTH);
            length.is_some_and(|length| length.as_bytes() == b"0")
        };
        self.bytes_read == 0 && (self.body.is_end_stream() || says_so())
    }

    pub(crate) fn body_bytes_sent(&self) -> usize {
        self.bytes_sent
    }

    pub(crate) fn body_bytes_read(&self) -> usize {
        self.bytes_read
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    pub(crate) fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    pub(crate) fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    pub(crate) fn pseudo_raw_h1_request_header(&self) -> Bytes {
        let wire = http_req_header_to_wire(&self.request);
        wire.expect("a request with such a target was refused").freeze()
    }

    pub(crate) fn enable_retry_buffering(&mut self) {
        self.retry.get_or_insert_with(|| FixedBuffer::new(RETRY_MAX));
    }

    pub(crate) fn retry_buffer_truncated(&self) -> bool {
        self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    pub(crate) fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry.as_ref().filter(|retry| !retry.is_truncated())?.get_buffer()
    }
}

/// What HTTP/2 has in other ways (RFC 9113 8.2.2).
const HOP_BY_HOP: [HeaderName; 5] = [
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What headers cost their reader.
fn size(headers: &HeaderMap) -> usize {
    let of = |(name, value): (&HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD
    };
    headers.iter().map(of).sum()
}
