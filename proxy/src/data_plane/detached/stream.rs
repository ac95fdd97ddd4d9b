//! An HTTP/2 stream whose client may disconnect or be too slow. With HTTP/1 our own connection type handles
//! that.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::{
        Digest,
        http::{
            HttpTask, ServerSession,
            custom::{CustomMessageWrite, server::Session},
        },
        l4::socket::SocketAddr,
    },
};

use crate::{data_plane::http2::Stream as Http2, progress};

type MessageReader = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// The stream, and whether its response is complete. `None` only when it is over.
struct DetachedStream {
    stream: Option<Http2>,
    answered: bool,
}

/// How long, and for how many bytes, we read from a client that keeps sending after its response. If its
/// stream is reset immediately, some clients lose the response (curl 7).
const LISTEN: Duration = Duration::from_secs(2);
const LISTEN_BYTES_MAX: usize = 16 << 20;

impl Drop for DetachedStream {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        if !self.answered || stream.is_body_done() {
            return stream.end();
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let listen = async {
                let mut left = LISTEN_BYTES_MAX;
                while let Ok(Some(part)) = stream.read_body_bytes().await {
                    let Some(less) = left.checked_sub(part.len()) else { return };
                    left = less;
                }
            };
            let _ = tokio::time::timeout(LISTEN, listen).await;
        });
    }
}

/// The session of a new stream.
pub(super) fn session(stream: Http2) -> ServerSession {
    ServerSession::Custom(Box::new(DetachedStream { stream: Some(stream), answered: false }))
}

impl DetachedStream {
    fn get(&self) -> &Http2 {
        self.stream.as_ref().expect("it is not over")
    }

    fn get_mut(&mut self) -> &mut Http2 {
        self.stream.as_mut().expect("it is not over")
    }
}

/// Reports a failed write to a disconnected client as a success.
fn taken<T>(written: Result<T>, instead: T) -> Result<T> {
    let goes_on = || progress::verdict().is_none() && super::lost();
    written.or_else(|error| if goes_on() { Ok(instead) } else { Err(error) })
}

/// The maximum of one write, so that the client's progress is visible.
const PART: usize = 16 << 10;

/// Writes `bytes` to the client, within its time.
async fn write<T>(bytes: usize, write: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let mut write = pin!(write);
    poll_fn(|cx| {
        if let Some(over) = progress::timeout_error() {
            let error = Error::because(ErrorType::WriteTimedout, "client", over);
            return Poll::Ready(Err(error.into_down()));
        }
        let written = write.as_mut().poll(cx);
        match &written {
            Poll::Pending => progress::written(None),
            Poll::Ready(Ok(_)) => progress::written(Some(bytes)),
            Poll::Ready(Err(_)) => {}
        }
        written
    })
    .await
}

/// Splits the parts of an upstream's response.
fn parts(tasks: Vec<HttpTask>) -> Vec<HttpTask> {
    let large =
        |task: &HttpTask| matches!(task, HttpTask::Body(Some(data), _) if data.len() > PART);
    if !tasks.iter().any(large) {
        return tasks;
    }
    let mut parts = Vec::with_capacity(tasks.len() * 4);
    for task in tasks {
        let HttpTask::Body(Some(mut data), end) = task else {
            parts.push(task);
            continue;
        };
        while data.len() > PART {
            parts.push(HttpTask::Body(Some(data.split_to(PART)), false));
        }
        parts.push(HttpTask::Body(Some(data), end));
    }
    parts
}

#[async_trait]
impl Session for DetachedStream {
    /// Where a disconnected client would end the exchange, this waits forever.
    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let all_there = no_body_expected || self.get().is_body_done();
        let read = progress::reading(self.get_mut().read_body_or_idle(no_body_expected)).await;
        if read.is_err() && progress::verdict().is_none() && all_there && super::lost() {
            return progress::reading(pending()).await;
        }
        read
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        taken(self.get_mut().write_response_header(head, end).await, ())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        let bytes = data.len();
        taken(write(bytes, self.get_mut().write_body(data, end)).await, ())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        taken(self.get_mut().write_trailers(trailers), ())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in parts(tasks) {
            let end = task.is_end();
            let failed = matches!(task, HttpTask::Failed(_));
            let bytes = match &task {
                HttpTask::Body(Some(data), _) => data.len(),
                _ => 0,
            };
            let written = write(bytes, self.get_mut().write_task(task)).await;
            self.answered |= matches!(written, Ok(true));
            // That the upstream failed is no fault of the client.
            ended |= if failed { written } else { taken(written, end) }?;
        }
        Ok(ended)
    }

    async fn finish(&mut self) -> Result<()> {
        self.answered |= self.get().response_written().is_some();
        taken(self.get_mut().finish(), ())
    }

    /// Whatever ends the exchange, the stream ends when this is dropped.
    async fn shutdown(&mut self, _: u32, _: &str) {}

    fn req_header(&self) -> &RequestHeader {
        self.get().req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.get_mut().req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.get_mut().read_body_bytes().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.get_mut().drain_request_body().await
    }

    /// The time to read is not up to a stream of HTTP/2.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.get_mut().set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.get().get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.get_mut().set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.get().get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.get().request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.get().response_written()
    }

    fn is_body_done(&mut self) -> bool {
        self.get().is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.get().is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.get().body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.get().body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        Some(self.get().digest())
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.get_mut().digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.get().client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.get().server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.get().pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.get_mut().enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.get().retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.get().get_retry_buffer()
    }

    // There are no messages besides those of HTTP.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<MessageReader> {
        None
    }

    fn restore_custom_message_reader(&mut self, _: MessageReader) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
